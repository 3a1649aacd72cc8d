//! `sock_diag(7)`: what the kernel knows of the sockets of this network namespace, asked over netlink.
//!
//! It never changes a socket, needs no privilege and no `unsafe`, and never trusts a reply: a malformed one is an error, not a panic.

use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recvfrom, sendto, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;

use self::busy::Exchange;
use self::wire::{Found, Message, Request, state};

mod busy;
mod unix;
mod wire;

#[cfg(test)]
mod tests;

/// A dump that a change of the tables interrupted is asked again this many times.
const ATTEMPTS: usize = 5;

/// The kernel fills at most 32 KiB per datagram of a dump (`netlink_dump` in `net/netlink/af_netlink.c`).
const LONGEST_DATAGRAM: usize = 65_536;

/// The kernel answers before `sendto` returns, so a wait means that the answer is lost. A supervisor may not hang on that.
const PATIENCE: TimeVal = TimeVal::new(2, 0);

/// One netlink socket to the kernel's socket tables.
#[derive(Debug)]
pub struct SockDiag {
    socket: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

/// The protocols that zdr can hand over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Udp,
}

/// A bound UDP or listening TCP socket of this network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The address as it was bound: `[::]` stays `[::]`, see `only_v6`.
    pub address: SocketAddr,
    /// Whether an IPv6 socket leaves IPv4 alone.
    pub only_v6: bool,
    /// The inode by which `/proc/PID/fd` names it.
    pub inode: u32,
    /// The user who created it.
    pub uid: u32,
    /// TCP: connections in the accept queue. UDP: bytes in the receive queue.
    pub waiting: u32,
}

/// An open TCP connection, seen from the server's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The server's end.
    pub local: SocketAddr,
    /// The client's end.
    pub peer: SocketAddr,
    /// The kernel's name for it, never used twice.
    pub cookie: u64,
    /// The inode by which `/proc/PID/fd` names it; 0 while it waits in the accept queue, and again once the server has closed it.
    pub inode: u32,
    /// Whether a request seems to be in flight.
    pub busy: bool,
    /// The same where only what is beyond doubt counts.
    pub surely_busy: bool,
}

/// What became of a connection on the server's side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// There is no such connection, or the server has closed it already.
    NotConnected,
    /// It waits in the accept queue, or its handshake is not over yet.
    Waiting,
    /// Whoever holds this inode has accepted it.
    By { inode: u32 },
}

impl Bound {
    fn of(found: &Found<'_>) -> Self {
        Self {
            address: found.local,
            only_v6: found.only_v6,
            inode: found.inode,
            uid: found.uid,
            waiting: found.receive_queue,
        }
    }
}

impl SockDiag {
    /// Opens a socket of its own, closed on exec.
    pub fn open() -> io::Result<Self> {
        Ok(Self { socket: netlink()?, sequence: 0, buffer: vec![0; LONGEST_DATAGRAM] })
    }

    /// Looks up, without a dump, the server's end of the connection from `client` to `server`.
    pub fn accepted(&mut self, client: SocketAddr, server: SocketAddr) -> io::Result<Accepted> {
        let (client, server) = (canonical(client), canonical(server));
        let answer = self.look_up(&Request::exact(server, client))?;
        // AF_INET finds a connection to a dual-stack listener as well: seen on Linux 6.18, promised nowhere.
        if answer == Accepted::NotConnected && client.is_ipv4() && server.is_ipv4() {
            return self.look_up(&Request::exact(mapped(server), mapped(client)));
        }
        Ok(answer)
    }

    /// Every listening TCP socket on any port.
    pub fn listening(&mut self) -> io::Result<Vec<Bound>> {
        self.dump(libc::IPPROTO_TCP, 1 << state::LISTEN, wire::NO_EXTENSION, None, |found| Ok(Bound::of(found)))
    }

    /// Every listening TCP socket, or every bound and unconnected UDP socket, on local port `port`.
    pub fn bound(&mut self, transport: Transport, port: u16) -> io::Result<Vec<Bound>> {
        let (protocol, states) = match transport {
            Transport::Tcp => (libc::IPPROTO_TCP, 1 << state::LISTEN),
            Transport::Udp => (libc::IPPROTO_UDP, 1 << state::CLOSE),
        };
        self.dump(protocol, states, wire::NO_EXTENSION, Some(port), |found| Ok(Bound::of(found)))
    }

    /// The cookies of the handshakes on local port `port` that wait for the client's last word.
    pub fn half_open(&mut self, port: u16) -> io::Result<HashSet<u64>> {
        let states = 1 << state::SYN_RECV | 1 << state::NEW_SYN_RECV;
        let cookies = self.dump(libc::IPPROTO_TCP, states, wire::NO_EXTENSION, Some(port), |found| Ok(found.cookie))?;
        Ok(cookies.into_iter().collect())
    }

    /// The established and closing connections that came through a socket on this port and of this address's family: those
    /// of IPv4 clients to `[::]` are IPv6.
    pub fn connections(&mut self, door: SocketAddr) -> io::Result<Vec<Connection>> {
        let states = state::OPEN.iter().fold(0, |all, state| all | 1 << state);
        let family = if door.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        let request = Request::dump(family, libc::IPPROTO_TCP, states, wire::TCP_INFO, Some(door.port()));
        let mut connections = self.dump_whole(&request, |payload| {
            let found = Found::read(payload)?;
            let exchange = Exchange::read(&found)?;
            Ok(Connection {
                local: canonical(found.local),
                peer: canonical(found.peer),
                cookie: found.cookie,
                inode: found.inode,
                busy: exchange.is_some_and(Exchange::is_busy),
                surely_busy: exchange.is_some_and(Exchange::is_surely_busy),
            })
        })?;
        // A dump continues by position in the hash table, so a change between two datagrams can show a socket twice.
        connections.sort_unstable_by_key(|connection| connection.cookie);
        connections.dedup_by_key(|connection| connection.cookie);
        Ok(connections)
    }

    fn look_up(&mut self, request: &Request) -> io::Result<Accepted> {
        let mut accepted = Accepted::NotConnected;
        self.ask_for_one(request, &mut |payload| {
            accepted = standing(&Found::read(payload)?);
            Ok(())
        })?;
        Ok(accepted)
    }

    /// Calls `take` with the answer if there is such a socket, and not at all if there is none.
    fn ask_for_one(&mut self, request: &Request, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        match self.ask(request, take) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
            asked => asked.map(drop),
        }
    }

    fn dump<T>(
        &mut self,
        protocol: i32,
        states: u32,
        extension: u8,
        port: Option<u16>,
        make: impl Fn(&Found<'_>) -> io::Result<T>,
    ) -> io::Result<Vec<T>> {
        let mut all = Vec::new();
        // The tables hold every socket under one family only, an IPv4 client of [::] under IPv6.
        for family in [libc::AF_INET, libc::AF_INET6] {
            let request = Request::dump(family, protocol, states, extension, port);
            all.append(&mut self.dump_whole(&request, |payload| make(&Found::read(payload)?))?);
        }
        Ok(all)
    }

    fn dump_whole<T>(&mut self, request: &Request, make: impl Fn(&[u8]) -> io::Result<T>) -> io::Result<Vec<T>> {
        for _ in 0..ATTEMPTS {
            let mut all = Vec::new();
            let whole = self.ask(request, &mut |payload| {
                all.push(make(payload)?);
                Ok(())
            });
            match whole {
                Ok(Whole::Yes) => return Ok(all),
                Ok(Whole::No) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other(format!(
            "cannot list the sockets: the kernel did not finish a list in {ATTEMPTS} attempts"
        )))
    }

    fn ask(&mut self, request: &Request, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<Whole> {
        let answer = self.send(request).and_then(|()| self.receive(take));
        if answer.is_err() {
            // While a dump given up half-way is unread, the kernel refuses the next one with EBUSY (`__netlink_dump_start` in
            // `net/netlink/af_netlink.c`).
            self.socket = netlink()?;
        }
        answer
    }

    fn send(&mut self, request: &Request) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let bytes = request.bytes(self.sequence);
        let kernel = NetlinkAddr::new(0, 0);
        retried(|| sendto(self.socket.as_raw_fd(), &bytes, &kernel, MsgFlags::empty()))?;
        Ok(())
    }

    fn receive(&mut self, take: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<Whole> {
        let mut whole = Whole::Yes;
        loop {
            let (length, sender) = retried(|| recvfrom::<NetlinkAddr>(self.socket.as_raw_fd(), &mut self.buffer))?;
            // A privileged process may write to our port as well; only the kernel has the port 0.
            if sender.is_none_or(|sender| sender.pid() != 0) {
                continue;
            }
            for message in wire::messages(self.buffer.get(..length).unwrap_or_default()) {
                let message = message?;
                if message.sequence != self.sequence {
                    continue;
                }
                if message.was_interrupted() {
                    whole = Whole::No;
                }
                match message.content()? {
                    Message::Done => return Ok(whole),
                    Message::Failed(errno) => return Err(io::Error::from_raw_os_error(errno)),
                    Message::Socket(payload) => take(payload)?,
                    Message::Other => {}
                }
                if !message.is_one_of_many() {
                    return Ok(whole);
                }
            }
        }
    }
}

/// Whether a list is complete, or a change of the tables interrupted it.
enum Whole {
    Yes,
    No,
}

fn netlink() -> io::Result<OwnedFd> {
    let socket =
        socket(AddressFamily::Netlink, SockType::Datagram, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkSockDiag)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &PATIENCE)?;
    Ok(socket)
}

fn retried<T>(mut call: impl FnMut() -> nix::Result<T>) -> nix::Result<T> {
    loop {
        match call() {
            Err(Errno::EINTR) => {}
            result => return result,
        }
    }
}

/// How far the server is with a connection that an exact look-up found.
fn standing(found: &Found<'_>) -> Accepted {
    match (found.state, found.inode) {
        (state::ESTABLISHED | state::CLOSE_WAIT | state::SYN_RECV | state::NEW_SYN_RECV, 0) => Accepted::Waiting,
        // Once the connection is gone, the kernel answers with the listener (`__inet_lookup` in `include/net/inet_hashtables.h`). One that
        // closes without an inode belongs to no process any more.
        (state::LISTEN, _) | (_, 0) => Accepted::NotConnected,
        (_, inode) => Accepted::By { inode },
    }
}

/// The same address, an IPv4 one that comes in IPv6 clothes as what it is.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip @ IpAddr::V4(_) => SocketAddr::new(ip, address.port()),
        IpAddr::V6(_) => address,
    }
}

fn mapped(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    }
}
