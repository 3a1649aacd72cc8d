//! A TCP or UDP listener with slots: a group of SO_REUSEPORT sockets, and the program that decides which of them gets
//! what is new.
//!
//! Never closes a socket while others of the group live: a socket that leaves it resets what it has not handed over, and
//! the last of the group takes its place (kernel: `__reuseport_detach_sock` in net/core/sock_reuseport.c).

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{Backlog, SockType, SockaddrStorage, connect, getsockopt, listen, sockopt};
use nix::sys::stat::fstat;
use tokio::net::TcpSocket;

use super::make;
use super::queue::is_shut_down;
use super::{ListenError, reachable};
use crate::address::{Address, Listener};
use crate::edges::kernel::reuseport::{Draw, Steering, steer};
use crate::supervisor::{Generation, Instance};

/// The sockets of one listener.
#[derive(Debug)]
pub(super) struct Group {
    sockets: BTreeMap<usize, Member>,
    /// The slots as their sockets stand in the kernel's group, whose places steering speaks of.
    places: Vec<usize>,
    /// The user of all its sockets: the kernel lets no other one share the address (`inet_csk_bind_conflict`).
    uid: u32,
    /// Which of several slots gets what is new.
    draw: Draw,
    /// The slots that get what is new, with their weights.
    targets: Vec<(usize, u64)>,
    /// The slot that gets what is new instead, while what is new is paused.
    paused: Option<usize>,
    /// Whose connections are sent to other slots than that.
    aims: Vec<Aim>,
    /// The slot with the full queue that holds new connections back instead of both.
    held: Option<Held>,
}

/// A connection that is about to be made, and the slot that it is to reach.
#[derive(Debug)]
struct Aim {
    /// The instance that is probed.
    by: Instance,
    client: SocketAddr,
    slot: usize,
}

/// How many of them are in force at a time: each costs statements of the program, of which there are at most 4,096
/// (BPF_MAXINSNS). What was aimed earlier has long been connected.
const AIMS: usize = 128;

/// Whoever is no instance of a server.
const NOBODY: Instance = Instance { generation: Generation(0), number: 0 };

/// A socket, and what the kernel's tables call it, which is asked for often.
#[derive(Debug)]
struct Member {
    socket: OwnedFd,
    inode: u64,
}

/// A slot that nobody can connect to.
#[derive(Debug)]
struct Held {
    slot: usize,
    /// Connections of our own that keep its queue full.
    _fillers: [TcpSocket; 2],
}

impl Member {
    fn of(socket: OwnedFd) -> Self {
        Self { inode: make::inode(&socket), socket }
    }
}

impl Group {
    /// Binds the first slot, and a second, so that what could fail at the first reload fails now.
    pub(super) fn bind(listener: &mut Listener, ours: &[u64]) -> Result<Self, ListenError> {
        let (socket, address) = make::first(listener, ours)?;
        listener.address = address;
        let mut group = Self::of(0, socket).map_err(|source| ListenError::socket(listener, source))?;
        let ours = [ours, &group.inodes()].concat();
        group.socket(1, listener, &ours)?;
        Ok(group)
    }

    /// A group that has this socket as its only one so far. It listens, or is bound for datagrams.
    pub(super) fn of(slot: usize, socket: OwnedFd) -> io::Result<Self> {
        let uid = fstat(&socket)?.st_uid;
        // What belongs to one connection comes to one socket anyway; datagrams of one client belong together.
        let is_stream = getsockopt(&socket, sockopt::SockType)? == SockType::Stream;
        let draw = if is_stream { Draw::Chance } else { Draw::Sender };
        let (sockets, places) = (BTreeMap::from([(slot, Member::of(socket))]), vec![slot]);
        Ok(Self { sockets, places, uid, draw, targets: vec![(slot, 1)], paused: None, aims: Vec::new(), held: None })
    }

    /// The socket of a slot, where it has one.
    pub(super) fn get(&self, slot: usize) -> Option<&OwnedFd> {
        self.sockets.get(&slot).map(|member| &member.socket)
    }

    /// The socket of a slot, made where there is none. Nothing is steered to it yet. All of zdr's sockets are known by
    /// their inodes: other listeners may have the address as well.
    pub(super) fn socket(&mut self, slot: usize, listener: &Listener, ours: &[u64]) -> Result<&OwnedFd, ListenError> {
        if !self.sockets.contains_key(&slot) {
            // In force before there is a second one, which the kernel would choose at times. For one that listened
            // before it was to be shared there is no group yet, and the second one takes nothing until there is.
            let serving = Steering { serving: self.serving(), draw: self.draw, probes: Vec::new() };
            let deaf = self.places.len() < 2 && steer(self.any(), &serving).is_err();
            let socket = make::another(listener, ours, self.uid, deaf)?;
            self.sockets.insert(slot, Member::of(socket));
            self.places.push(slot);
            self.put_in_force().map_err(|source| ListenError::steer(listener, source))?;
            if deaf {
                let hears = make::set_least_hops(&self.sockets[&slot].socket, listener, 0);
                hears.map_err(|source| ListenError::socket(listener, source))?;
            }
        }
        Ok(&self.sockets[&slot].socket)
    }

    /// Every socket with its slot.
    pub(super) fn all(&self) -> impl Iterator<Item = (usize, BorrowedFd<'_>)> {
        self.sockets.iter().map(|(slot, member)| (*slot, member.socket.as_fd()))
    }

    /// The slots that get what is new, where it is not held back.
    pub(super) fn targets(&self) -> Vec<usize> {
        self.paused.map_or_else(|| self.targets_behind(), |slot| vec![slot])
    }

    /// The slots that get it again when a pause ends.
    pub(super) fn targets_behind(&self) -> Vec<usize> {
        self.targets.iter().map(|(slot, _)| *slot).collect()
    }

    /// What the kernel's tables call them.
    pub(super) fn inodes(&self) -> Vec<u64> {
        self.sockets.values().map(|member| member.inode).collect()
    }

    /// Gives what is new to these slots, as their weights are to each other: one call, atomic. While it is paused, later.
    pub(super) fn steer(&mut self, targets: Vec<(usize, u64)>) -> io::Result<()> {
        self.held = None;
        if !targets.is_empty() {
            self.targets = targets;
        }
        self.put_in_force()
    }

    /// Gives what is new to this slot for a time; None ends it.
    pub(super) fn pause(&mut self, slot: Option<usize>) -> io::Result<()> {
        self.paused = slot;
        self.put_in_force()
    }

    /// The socket that gets what is new becomes that of this slot, with all that waits in it already.
    pub(super) fn begin_with(&mut self, slot: usize) {
        let [(first, _)] = self.targets[..] else { return };
        if first == slot || !self.sockets.contains_key(&slot) {
            return;
        }
        let swapped = |other: usize| match other {
            other if other == first => slot,
            other if other == slot => first,
            other => other,
        };
        self.sockets =
            std::mem::take(&mut self.sockets).into_iter().map(|(slot, member)| (swapped(slot), member)).collect();
        self.places.iter_mut().for_each(|place| *place = swapped(*place));
        self.targets = vec![(slot, 1)];
    }

    /// A socket whose connection reaches this slot, and nobody else's does.
    pub(super) fn aim(
        &mut self,
        by: Instance,
        slot: usize,
        listener: &Listener,
    ) -> io::Result<(TcpSocket, SocketAddr)> {
        let Address::Tcp(address) = listener.address else {
            return Err(io::Error::other("there is no TCP listener to ask"));
        };
        let to = SocketAddr::new(reachable(address.ip(), listener.options.v6only), address.port());
        let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.bind(SocketAddr::new(to.ip(), 0))?;
        let too_many = self.aims.len().saturating_sub(AIMS - 1);
        self.aims.drain(..too_many);
        self.aims.push(Aim { by, client: socket.local_addr()?, slot });
        self.put_in_force()?;
        Ok((socket, to))
    }

    /// The probe has its connection: whoever gets its source port next is a client like any other.
    pub(super) fn unaim(&mut self, is_over: impl Fn(Instance) -> bool) {
        let before = self.aims.len();
        self.aims.retain(|aim| !is_over(aim.by));
        if self.aims.len() < before {
            // It was put in force before on the same socket, so this cannot fail where that did not.
            let _ = self.put_in_force();
        }
    }

    /// Leaves new connections to the clients' next try; what has begun is finished. They are steered to a slot whose
    /// queue is full, where the kernel drops the first packet of a connection (`tcp_conn_request` in
    /// net/ipv4/tcp_input.c). A filter that drops it would do as well, but some kernels want CAP_NET_ADMIN for one.
    /// Datagrams cannot be held.
    pub(super) fn hold(&mut self, slot: usize, listener: &Listener, ours: &[u64]) -> io::Result<()> {
        if !matches!(listener.address, Address::Tcp(_)) {
            return Ok(());
        }
        let socket = self.socket(slot, listener, ours).map_err(|error| io::Error::other(error.to_string()))?;
        // A queue is full when more wait in it than its backlog says. A backlog of 0 would do with one, but the kernel
        // takes that for an attack and logs it.
        listen(socket, Backlog::new(1)?)?;
        let mut filler = || {
            let (socket, to) = self.aim(NOBODY, slot, listener)?;
            match connect(socket.as_raw_fd(), &SockaddrStorage::from(to)) {
                Ok(()) | Err(Errno::EINPROGRESS) => Ok(socket),
                Err(error) => Err(io::Error::from(error)),
            }
        };
        let fillers = [filler()?, filler()?];
        self.aims.retain(|aim| aim.by != NOBODY);
        self.held = Some(Held { slot, _fillers: fillers });
        self.put_in_force()
    }

    /// A server may shut its socket down (shutdown(2)), as WEBrick does, and that ends the socket for everybody who has
    /// it. A new socket takes its part in the slot, and stands last.
    pub(super) fn mend(&mut self, listener: &Listener, ours: &[u64]) -> Result<(), ListenError> {
        let dead: Vec<usize> = self
            .sockets
            .iter()
            .filter(|(_, member)| is_shut_down(listener, member.socket.as_fd()))
            .map(|(slot, _)| *slot)
            .collect();
        for slot in &dead {
            if let Some(place) = self.places.iter().position(|other| other == slot) {
                self.places.swap_remove(place);
            }
        }
        for slot in &dead {
            let socket = make::another(listener, ours, self.uid, false)?;
            self.sockets.insert(*slot, Member::of(socket));
            self.places.push(*slot);
        }
        if !dead.is_empty() {
            self.put_in_force().map_err(|source| ListenError::steer(listener, source))?;
        }
        Ok(())
    }

    fn put_in_force(&self) -> io::Result<()> {
        // The kernel makes no group of one that was bound before it was to be shared; it has nothing to choose there.
        if self.places.len() < 2 && self.aims.is_empty() {
            return Ok(());
        }
        let probes = self.aims.iter().map(|aim| (aim.client, self.place(aim.slot))).collect();
        match steer(self.any(), &Steering { serving: self.serving(), draw: self.draw, probes }) {
            Err(_) if self.places.len() < 2 => Ok(()),
            result => result,
        }
    }

    fn serving(&self) -> Vec<(u32, u64)> {
        match self.held.as_ref().map(|held| held.slot).or(self.paused) {
            Some(slot) => vec![(self.place(slot), 1)],
            None => self.targets.iter().map(|(slot, weight)| (self.place(*slot), *weight)).collect(),
        }
    }

    /// There are as many slots as instances overlap, far below the limit of a group (65,535).
    fn place(&self, slot: usize) -> u32 {
        let place = self.places.iter().position(|other| *other == slot).unwrap_or(0);
        u32::try_from(place).unwrap_or(u32::MAX)
    }

    fn any(&self) -> BorrowedFd<'_> {
        self.sockets
            .values()
            .next()
            .map(|member| member.socket.as_fd())
            .expect("a group begins with a socket and loses none")
    }
}
