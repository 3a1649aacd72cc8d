//! One listener with its sockets, one for each slot where that can be had.
//!
//! Knows slots by their numbers; who sits in them is known to `Listeners` alone.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use tokio::net::TcpSocket;

use super::group::Group;
use super::path::{Named, bind_abstract};
use super::queue::set_nonblocking;
use super::{Aimed, ListenError, Target, make, reachable};
use crate::address::{Address, Listener};
use crate::supervisor::{Generation, Instance};

/// A listener and its sockets.
#[derive(Debug)]
pub(super) struct Lane {
    /// By which it is asked for; never used twice.
    pub(super) number: usize,
    /// As the generation that gets what is new calls it, with the port that the kernel chose.
    pub(super) listener: Listener,
    /// The address as it was asked for.
    pub(super) asked: Address,
    pub(super) way: Way,
    /// The generations that have it.
    pub(super) claims: Vec<Generation>,
    /// A server made it by itself, and nobody has asked for it.
    pub(super) captured: bool,
    /// It stays when nobody has it, so that connections wait for the next.
    pub(super) kept: bool,
    /// Its first socket is open elsewhere as well, and stays when zdr ends: what waits there is not lost.
    pub(super) outlives: bool,
}

/// The slot that holds new connections back for a while; no instance is ever lent it.
pub(super) const NOBODYS: usize = usize::MAX;

/// How its sockets come to their generations.
#[derive(Debug)]
pub(super) enum Way {
    /// TCP or UDP: one for each slot, steered in the kernel.
    Group(Group),
    /// A Unix path: one for each slot, steered by its name.
    Named(Named),
    /// One for all: an abstract name, or a socket of another user.
    Shared(OwnedFd),
}

/// The port of a listener, if it has one.
pub(super) fn port(listener: &Listener) -> Option<u16> {
    listener.address.socket().map(|socket| socket.port())
}

impl Lane {
    /// Binds a listener that was asked for. Nobody is meant to find it yet.
    pub(super) fn bind(number: usize, asked: &Listener, ours: &[u64]) -> Result<Self, ListenError> {
        let mut listener = asked.clone();
        let way = match &asked.address {
            Address::Tcp(_) | Address::Udp(_) => Way::Group(Group::bind(&mut listener, ours)?),
            Address::Unix(path) => Way::Named(Named::bind(path, asked)?),
            Address::Abstract(name) => Way::Shared(bind_abstract(name, asked)?),
        };
        Ok(Self { asked: asked.address.clone(), ..Self::of(number, listener, way) })
    }

    /// One that is there already, and that nobody has.
    pub(super) fn of(number: usize, listener: Listener, way: Way) -> Self {
        let asked = listener.address.clone();
        Self { number, listener, asked, way, claims: Vec::new(), captured: false, kept: false, outlives: false }
    }

    /// True where this generation has it.
    pub(super) fn is_of(&self, generation: Generation) -> bool {
        self.claims.contains(&generation)
    }

    /// It has a new user.
    pub(super) fn claim(&mut self, generation: Generation) {
        if !self.is_of(generation) {
            self.claims.push(generation);
        }
    }

    /// True where generations take what is new from one queue.
    pub(super) fn is_shared(&self) -> bool {
        matches!(self.way, Way::Shared(_))
    }

    /// The socket of a slot, where it has one.
    pub(super) fn get(&self, slot: usize) -> Option<&OwnedFd> {
        match &self.way {
            Way::Group(group) => group.get(slot),
            Way::Named(named) => named.get(slot),
            Way::Shared(socket) => Some(socket),
        }
    }

    /// The socket of a slot, made where there is none.
    pub(super) fn socket(&mut self, slot: usize, ours: &[u64]) -> Result<&OwnedFd, ListenError> {
        match &mut self.way {
            Way::Group(group) => group.socket(slot, &self.listener, ours),
            Way::Named(named) => named.socket(slot, &self.listener),
            Way::Shared(socket) => Ok(socket),
        }
    }

    /// Every socket.
    pub(super) fn all(&self) -> Vec<BorrowedFd<'_>> {
        self.slots().into_iter().map(|(_, socket)| socket).collect()
    }

    /// The port that it has, if it has one.
    pub(super) fn port(&self) -> Option<u16> {
        port(&self.listener)
    }

    /// By which the kernel's tables of addresses name its sockets; those of Unix sockets are in none.
    pub(super) fn inodes(&self) -> Vec<u64> {
        match &self.way {
            Way::Group(group) => group.inodes(),
            Way::Named(_) => Vec::new(),
            Way::Shared(socket) => vec![make::inode(socket)],
        }
    }

    /// Every socket in which clients may wait.
    pub(super) fn open(&self) -> Vec<BorrowedFd<'_>> {
        self.slots().into_iter().filter(|(slot, _)| *slot != NOBODYS).map(|(_, socket)| socket).collect()
    }

    fn slots(&self) -> Vec<(usize, BorrowedFd<'_>)> {
        match &self.way {
            Way::Group(group) => group.all().collect(),
            Way::Named(named) => named.all().collect(),
            Way::Shared(socket) => vec![(0, socket.as_fd())],
        }
    }

    /// The slots that get what is new; empty where it has none.
    pub(super) fn targets(&self) -> Vec<usize> {
        match &self.way {
            Way::Group(group) => group.targets(),
            Way::Named(named) => vec![named.target()],
            Way::Shared(_) => Vec::new(),
        }
    }

    /// The slots that get it again when a pause ends.
    pub(super) fn targets_behind(&self) -> Vec<usize> {
        match &self.way {
            Way::Group(group) => group.targets_behind(),
            Way::Named(named) => vec![named.target_behind()],
            Way::Shared(_) => Vec::new(),
        }
    }

    /// The sockets that get what is new.
    pub(super) fn steered(&self) -> Vec<BorrowedFd<'_>> {
        match &self.way {
            Way::Shared(socket) => vec![socket.as_fd()],
            _ => self.targets().into_iter().filter_map(|slot| self.get(slot)).map(AsFd::as_fd).collect(),
        }
    }

    /// Before it is lent: blocking mode and backlog belong to the socket, so whoever had it before may have changed them
    /// (fcntl(2), listen(2)). One that is in use is only ever made non-blocking.
    pub(super) fn prepare(&self, slot: usize, asked: &Listener, in_use: bool) -> io::Result<()> {
        let Some(socket) = self.get(slot) else { return Ok(()) };
        let nonblocking = asked.options.nonblocking;
        if nonblocking || !in_use && !self.is_shared() {
            set_nonblocking(socket.as_fd(), nonblocking)?;
        }
        make::listen_again(asked, socket)
    }

    /// Gives what is new to these slots, with their weights; a path to one alone.
    pub(super) fn steer(&mut self, one: usize, targets: Vec<(usize, u64)>) -> io::Result<()> {
        match &mut self.way {
            Way::Group(group) => group.steer(targets),
            Way::Named(named) => named.steer(one),
            Way::Shared(_) => Ok(()),
        }
    }

    /// Lets what is new wait in this slot; None ends it. A shared one cannot be paused.
    pub(super) fn pause(&mut self, slot: Option<usize>) -> io::Result<()> {
        match &mut self.way {
            Way::Group(group) => group.pause(slot),
            Way::Named(named) => named.pause(slot),
            Way::Shared(_) => Ok(()),
        }
    }

    /// It is new, and its first user has this slot: so does what waits there already.
    pub(super) fn begin_with(&mut self, slot: usize) -> io::Result<()> {
        match &mut self.way {
            Way::Group(group) => {
                group.begin_with(slot);
                Ok(())
            }
            Way::Named(named) => named.steer(slot),
            Way::Shared(_) => Ok(()),
        }
    }

    /// Gives what is new to nobody, with this free slot's help.
    pub(super) fn hold(&mut self, slot: usize, ours: &[u64]) -> io::Result<()> {
        match &mut self.way {
            Way::Group(group) => group.hold(slot, &self.listener, ours),
            Way::Named(named) => named.hide(),
            Way::Shared(_) => Ok(()),
        }
    }

    /// A connection that will reach this slot, and where it comes from.
    pub(super) fn aim(&mut self, by: Instance, slot: usize) -> io::Result<(Aimed, Option<SocketAddr>)> {
        let aimed = |target, shared| Aimed { target, shared };
        match &mut self.way {
            Way::Group(group) => {
                let (socket, to) = group.aim(by, slot, &self.listener)?;
                let client = socket.local_addr()?;
                Ok((aimed(Target::Tcp(socket, to), false), Some(client)))
            }
            Way::Named(named) => Ok((aimed(Target::Unix(named.aim(slot)?), false), None)),
            Way::Shared(_) => Ok((aimed(self.as_client()?, true), None)),
        }
    }

    /// A connection as any client would make it.
    pub(super) fn as_client(&self) -> io::Result<Target> {
        match &self.listener.address {
            Address::Tcp(address) => {
                let to = SocketAddr::new(reachable(address.ip(), self.listener.options.v6only), address.port());
                let socket = if to.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
                Ok(Target::Tcp(socket, to))
            }
            Address::Unix(path) => Ok(Target::Unix(std::os::unix::net::SocketAddr::from_pathname(path)?)),
            Address::Abstract(name) => {
                use std::os::linux::net::SocketAddrExt;
                Ok(Target::Unix(std::os::unix::net::SocketAddr::from_abstract_name(name)?))
            }
            Address::Udp(_) => Err(io::Error::other("datagrams are not answered by connecting")),
        }
    }

    /// The probe has its connection.
    pub(super) fn unaim(&mut self, is_over: impl Fn(Instance) -> bool) {
        if let Way::Group(group) = &mut self.way {
            group.unaim(is_over);
        }
    }

    /// Puts right what a server has done to a socket or a name that is not its own. True where somebody else has taken
    /// the path, told once.
    pub(super) fn mend(&mut self, ours: &[u64]) -> Result<bool, ListenError> {
        match &mut self.way {
            Way::Group(group) => group.mend(&self.listener, ours).map(|()| false),
            Way::Named(named) => named.restore().map_err(|source| ListenError::socket(&self.listener, source)),
            Way::Shared(_) => Ok(false),
        }
    }
}
