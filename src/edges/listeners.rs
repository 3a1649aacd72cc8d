//! The listeners and their slots: bound once, steered in the kernel, lent to generations.
//!
//! A slot is one socket of every listener. Slots are never closed while zdr runs: a handshake that was begun on one is
//! finished there (kernel: a socket that leaves a reuseport group resets what it has not handed over). Sockets leave zdr
//! only through `lend`. What a generation is, and who serves, is decided elsewhere.

mod error;
mod make;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

pub use error::ListenError;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{Backlog, SockaddrStorage, connect, getsockopt, sockopt};
use tokio::net::TcpSocket;

use super::kernel::reuseport::{Steering, steer};
use super::kernel::sockopt::{accept_queue, receive_queue};
use crate::address::{Address, Listener};
use crate::supervisor::{Generation, Place};

/// How many probes are remembered: more than can wait in a queue while one generation starts.
const PROBES: usize = 64;

/// Every listener with its slots.
#[derive(Debug)]
pub struct Listeners {
    all: Vec<Listener>,
    slots: Vec<Slot>,
    /// The slot that new connections go to.
    steered: usize,
    /// The slot with the full queues that holds new connections back instead.
    held: Option<Held>,
    /// For every listener the slots as their sockets stand in the kernel's group, whose places steering speaks of.
    groups: Vec<Vec<usize>>,
    /// Where the last probes came from: they are nobody's loss.
    probes: VecDeque<SocketAddr>,
}

/// One socket of every listener, in the listeners' order.
#[derive(Debug, Default)]
struct Slot {
    sockets: Vec<OwnedFd>,
    /// Who it is lent to: more than one only while a dead one is not yet reaped.
    users: Vec<Generation>,
}

/// A slot that nobody can connect to.
#[derive(Debug)]
struct Held {
    slot: usize,
    /// Connections of our own that keep its queues full.
    _fillers: Vec<TcpSocket>,
}

/// A slot's socket on its way to a generation.
#[derive(Debug)]
pub struct Lent<'a> {
    /// The listener it belongs to.
    pub listener: &'a Listener,
    /// The socket.
    pub socket: BorrowedFd<'a>,
}

/// A connection to a listener that is not made yet, and will reach the slot of one generation.
#[derive(Debug)]
pub struct Aimed {
    /// What to connect.
    pub target: Target,
    /// Other generations take connections from the same queue: whose answer it is must be found out.
    pub shared: bool,
}

/// What to connect, to no other address than this.
#[derive(Debug)]
pub enum Target {
    /// A socket that has an address and is steered.
    Tcp(TcpSocket, SocketAddr),
    /// A path or an abstract name.
    Unix(std::os::unix::net::SocketAddr),
}

/// How a generation can be reached.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// The listeners that it has, by the numbers that `aim` takes, the first of them first.
    pub listeners: Vec<(usize, Listener)>,
    /// Those that the serving generation has and this one has not: a server that binds by itself may not be there yet.
    pub missing: Vec<Listener>,
}

/// A socket of a generation, to look at from elsewhere.
#[derive(Debug)]
pub struct Watched {
    /// The listener it belongs to.
    pub listener: Listener,
    /// A copy of the socket.
    pub socket: OwnedFd,
    /// Other generations take connections from the same queue: it never runs empty for this one.
    pub shared: bool,
}

impl Listeners {
    /// Binds every listener, with two slots each, so that what could fail at the first reload fails now.
    pub fn bind(asked: &[Listener]) -> Result<Self, ListenError> {
        let mut listeners = Self {
            all: Vec::new(),
            slots: vec![Slot::default()],
            steered: 0,
            held: None,
            groups: Vec::new(),
            probes: VecDeque::new(),
        };
        for listener in asked {
            let (socket, address) = make::first(listener)?;
            let listener = Listener { address, ..listener.clone() };
            let steering = Steering { serving: 0, probe: None };
            steer(socket.as_fd(), steering).map_err(|source| ListenError::steer(&listener, source))?;
            listeners.slots[0].sockets.push(socket);
            listeners.all.push(listener);
            listeners.groups.push(vec![0]);
        }
        listeners.add_slot()?;
        Ok(listeners)
    }

    /// The listeners, with the ports that the kernel chose.
    pub fn all(&self) -> &[Listener] {
        &self.all
    }

    /// How many slots there are.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// Lends a generation its slot: a free one, the steered one, or that of a generation that died.
    pub fn lend(&mut self, generation: Generation, place: Place) -> Result<Vec<Lent<'_>>, ListenError> {
        self.mend()?;
        let slot = match place {
            Place::Steered => self.steered,
            Place::Of(dead) => self.slot_of(dead).unwrap_or(self.steered),
            Place::Beside => self.free_slot()?,
        };
        self.slots[slot].users.push(generation);
        let slot = &self.slots[slot];
        for (listener, socket) in self.all.iter().zip(&slot.sockets) {
            // Both belong to the socket, so whoever had the slot before may have changed them (fcntl(2), listen(2)).
            set_nonblocking(socket.as_fd(), listener.options.nonblocking)
                .and_then(|()| make::listen_again(listener, socket))
                .map_err(|source| ListenError::steer(listener, source))?;
        }
        let lent = self.all.iter().zip(&slot.sockets);
        Ok(lent.map(|(listener, socket)| Lent { listener, socket: socket.as_fd() }).collect())
    }

    /// Takes the slot back. Whoever still waits in it, where nobody will look, is told so by a reset, at once.
    pub fn release(&mut self, generation: Generation) -> usize {
        let mut dropped = 0;
        for (position, slot) in self.slots.iter_mut().enumerate() {
            let before = slot.users.len();
            slot.users.retain(|user| *user != generation);
            if slot.users.len() < before && slot.users.is_empty() && position != self.steered {
                dropped += slot.sweep(&self.all, &self.probes);
            }
        }
        self.unaim();
        dropped
    }

    /// Gives what is new to this generation: one call for each listener, atomic in each.
    pub fn steer(&mut self, generation: Generation) -> io::Result<()> {
        if let Some(slot) = self.slot_of(generation) {
            self.steered = slot;
        }
        self.held = None;
        (0..self.all.len()).try_for_each(|listener| self.put_in_force(listener, None))
    }

    /// Leaves new connections to the clients' next try; what has begun is finished. They are steered to a slot whose
    /// queue is full, where the kernel drops the first packet of a connection (`tcp_conn_request` in
    /// net/ipv4/tcp_input.c). A filter that drops it would do as well, but some kernels want CAP_NET_ADMIN for one.
    pub fn hold(&mut self) -> io::Result<()> {
        let slot = self.free_slot().map_err(|error| io::Error::other(error.to_string()))?;
        let mut fillers = Vec::new();
        for listener in 0..self.all.len() {
            if self.is_tcp(listener) {
                fillers.extend(self.fill(slot, listener)?);
            }
        }
        self.held = Some(Held { slot, _fillers: fillers });
        (0..self.all.len()).try_for_each(|listener| self.put_in_force(listener, None))
    }

    /// A queue is full when more wait in it than its backlog says. A backlog of 0 would do with one, but the kernel takes
    /// that for an attack and logs it.
    fn fill(&mut self, slot: usize, listener: usize) -> io::Result<[TcpSocket; 2]> {
        nix::sys::socket::listen(&self.slots[slot].sockets[listener], Backlog::new(1)?)?;
        let mut filler = || {
            let Target::Tcp(socket, to) = self.aim_at(slot, listener)?.target else {
                return Err(io::ErrorKind::Unsupported.into());
            };
            match connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
                Ok(()) | Err(Errno::EINPROGRESS) => Ok(socket),
                Err(error) => Err(io::Error::from(error)),
            }
        };
        Ok([filler()?, filler()?])
    }

    fn is_tcp(&self, listener: usize) -> bool {
        matches!(self.all.get(listener).map(|listener| &listener.address), Some(Address::Tcp(_)))
    }

    /// A socket whose connection to this listener reaches the slot of this generation, and nobody else's does.
    pub fn aim(&mut self, generation: Generation, listener: usize) -> io::Result<Aimed> {
        let slot = self.slot_of(generation).ok_or_else(|| io::Error::other("it has no slot"))?;
        self.aim_at(slot, listener)
    }

    fn aim_at(&mut self, slot: usize, listener: usize) -> io::Result<Aimed> {
        let Some(Address::Tcp(address)) = self.all.get(listener).map(|listener| &listener.address) else {
            return Err(io::Error::other("there is no TCP listener to ask"));
        };
        let to = SocketAddr::new(reachable(address.ip(), self.all[listener].options.v6only), address.port());
        let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.bind(SocketAddr::new(to.ip(), 0))?;
        let client = socket.local_addr()?;
        self.mend().map_err(|error| io::Error::other(error.to_string()))?;
        self.put_in_force(listener, Some((client, slot)))?;
        self.probes.truncate(PROBES - 1);
        self.probes.push_front(client);
        Ok(Aimed { target: Target::Tcp(socket, to), shared: false })
    }

    /// The probe has its connection: whoever gets its source port next is a client like any other.
    pub fn unaim(&mut self) {
        for listener in 0..self.all.len() {
            // It was put in force before on the same socket, so this cannot fail where that did not.
            let _ = self.put_in_force(listener, None);
        }
    }

    /// Copies of the sockets of a generation, to look at their queues from elsewhere.
    pub fn watch(&self, generation: Generation) -> io::Result<Vec<Watched>> {
        let Some(slot) = self.slot_of(generation) else { return Ok(Vec::new()) };
        let sockets = self.all.iter().zip(&self.slots[slot].sockets);
        let watched = |(listener, socket): (&Listener, &OwnedFd)| {
            Ok(Watched { listener: listener.clone(), socket: socket.try_clone()?, shared: false })
        };
        sockets.map(watched).collect()
    }

    /// How this generation can be reached.
    pub fn reach(&self, generation: Generation) -> Reach {
        match self.slot_of(generation) {
            Some(_) => Reach { listeners: self.all.iter().cloned().enumerate().collect(), missing: Vec::new() },
            None => Reach::default(),
        }
    }

    fn slot_of(&self, generation: Generation) -> Option<usize> {
        self.slots.iter().position(|slot| slot.users.contains(&generation))
    }

    fn free_slot(&mut self) -> Result<usize, ListenError> {
        let free = |(position, slot): (usize, &Slot)| slot.users.is_empty() && position != self.steered;
        let slot = match self.slots.iter().enumerate().position(free) {
            Some(slot) => slot,
            None => self.add_slot()?,
        };
        self.slots[slot].sweep(&self.all, &self.probes);
        Ok(slot)
    }

    /// One more socket for every listener. Nothing is steered to it yet, and it stands last in its groups, so that it
    /// can go again if another one cannot be made (a socket that leaves a group is replaced by the last).
    fn add_slot(&mut self) -> Result<usize, ListenError> {
        let mut slot = Slot::default();
        for (position, listener) in self.all.iter().enumerate() {
            let ours: Vec<BorrowedFd<'_>> = self.slots.iter().map(|slot| slot.sockets[position].as_fd()).collect();
            slot.sockets.push(make::another(listener, &ours)?);
        }
        self.slots.push(slot);
        let newest = self.slots.len() - 1;
        self.groups.iter_mut().for_each(|group| group.push(newest));
        Ok(newest)
    }

    /// A server may shut its socket down (shutdown(2)), as WEBrick does, and that ends the socket for everybody who has
    /// it: the kernel takes it out of its group and puts the last one in its place (`__reuseport_detach_sock` in
    /// net/core/sock_reuseport.c). A new socket takes its part in the slot, and stands last.
    pub fn mend(&mut self) -> Result<(), ListenError> {
        for (position, listener) in self.all.iter().enumerate() {
            let is_dead = |slot: &usize| {
                let socket = &self.slots[*slot].sockets[position];
                is_shut_down(listener, socket.as_fd())
            };
            let dead: Vec<usize> = (0..self.slots.len()).filter(is_dead).collect();
            for slot in &dead {
                let group = &mut self.groups[position];
                if let Some(place) = group.iter().position(|other| other == slot) {
                    group.swap_remove(place);
                }
            }
            for slot in &dead {
                let ours: Vec<BorrowedFd<'_>> = self.slots.iter().map(|slot| slot.sockets[position].as_fd()).collect();
                self.slots[*slot].sockets[position] = make::another(listener, &ours)?;
                self.groups[position].push(*slot);
            }
            if !dead.is_empty() {
                self.put_in_force(position, None).map_err(|source| ListenError::steer(listener, source))?;
            }
        }
        Ok(())
    }

    fn put_in_force(&self, listener: usize, probe: Option<(SocketAddr, usize)>) -> io::Result<()> {
        let place = |slot: usize| self.groups[listener].iter().position(|other| *other == slot).map_or(0, index);
        let probe = probe.map(|(client, slot)| (client, place(slot)));
        let held = self.held.as_ref().filter(|_| self.is_tcp(listener)).map(|held| held.slot);
        let steering = Steering { serving: place(held.unwrap_or(self.steered)), probe };
        steer(self.slots[self.steered].sockets[listener].as_fd(), steering)
    }
}

impl Slot {
    fn sweep(&self, listeners: &[Listener], probes: &VecDeque<SocketAddr>) -> usize {
        listeners.iter().zip(&self.sockets).map(|(listener, socket)| sweep(listener, socket, probes)).sum()
    }
}

/// How many connections wait in this socket; datagrams that wait count as one.
pub fn waiting(listener: &Listener, socket: BorrowedFd<'_>) -> usize {
    match listener.address {
        Address::Tcp(_) => accept_queue(socket).unwrap_or(0),
        Address::Udp(_) => usize::from(receive_queue(socket).unwrap_or(0) > 0),
        Address::Unix(_) | Address::Abstract(_) => 0,
    }
}

/// Takes out and closes whatever waits in a socket, and counts what was a client's.
fn sweep(listener: &Listener, socket: &OwnedFd, probes: &VecDeque<SocketAddr>) -> usize {
    if waiting(listener, socket.as_fd()) == 0 || set_nonblocking(socket.as_fd(), true).is_err() {
        return 0;
    }
    match (&listener.address, socket.try_clone()) {
        (Address::Tcp(_), Ok(socket)) => {
            let socket = TcpListener::from(socket);
            let client = || socket.accept().ok().map(|(_, client)| client);
            std::iter::from_fn(client).filter(|client| !probes.contains(client)).count()
        }
        (Address::Udp(_), Ok(socket)) => {
            let socket = UdpSocket::from(socket);
            std::iter::from_fn(|| socket.recv(&mut []).ok()).count()
        }
        _ => 0,
    }
}

/// True where somebody has ended this socket for everybody who has it (shutdown(2)).
pub fn is_shut_down(listener: &Listener, socket: BorrowedFd<'_>) -> bool {
    matches!(listener.address, Address::Tcp(_)) && getsockopt(&socket, sockopt::AcceptConn) == Ok(false)
}

fn set_nonblocking(socket: BorrowedFd<'_>, nonblocking: bool) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(socket, FcntlArg::F_GETFL)?);
    let wanted = if nonblocking { flags | OFlag::O_NONBLOCK } else { flags - OFlag::O_NONBLOCK };
    fcntl(socket, FcntlArg::F_SETFL(wanted))?;
    Ok(())
}

/// An address of this machine by which a listener can be reached from it.
fn reachable(ip: IpAddr, v6only: bool) -> IpAddr {
    match ip {
        IpAddr::V6(ip) if ip.is_unspecified() && v6only => Ipv6Addr::LOCALHOST.into(),
        ip if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        ip => ip,
    }
}

/// There are as many slots as generations overlap, far below the limit of a group (65,535).
fn index(slot: usize) -> u32 {
    u32::try_from(slot).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;

    #[test]
    fn held_connections_wait_for_their_next_try_and_are_neither_refused_nor_accepted() {
        for address in ["127.0.0.1:0", "[::]:0"] {
            let mut listeners = Listeners::bind(&[Listener::parse(address, "web").unwrap()]).unwrap();
            let first = Generation(1);
            let lent = listeners.lend(first, Place::Steered).unwrap();
            let server = TcpListener::from(lent[0].socket.try_clone_to_owned().unwrap());
            let Target::Tcp(_, to) = listeners.aim(first, 0).unwrap().target else { unreachable!() };
            let before = TcpStream::connect(to).unwrap();
            listeners.hold().unwrap();
            for _ in 0..3 {
                let error = TcpStream::connect_timeout(&to, Duration::from_millis(50)).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{address}");
            }
            let watched = &listeners.watch(first).unwrap()[0];
            assert_eq!(waiting(&watched.listener, watched.socket.as_fd()), 1);
            assert_eq!(server.accept().unwrap().1.port(), before.local_addr().unwrap().port());
        }
    }
}
