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
use crate::supervisor::Generation;

/// A listener and its sockets.
#[derive(Debug)]
pub(super) struct Lane {
    /// By which it is asked for; never used twice.
    pub(super) number: usize,
    pub(super) listener: Listener,
    pub(super) way: Way,
    /// For a captured one, the generations that listen there; None for one that every generation is lent.
    pub(super) claims: Option<Vec<Generation>>,
}

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

impl Lane {
    /// Binds a listener that was asked for.
    pub(super) fn bind(number: usize, asked: &Listener) -> Result<Self, ListenError> {
        let mut listener = asked.clone();
        let way = match &asked.address {
            Address::Tcp(_) | Address::Udp(_) => Way::Group(Group::bind(&mut listener)?),
            Address::Unix(path) => Way::Named(Named::bind(path, asked)?),
            Address::Abstract(name) => Way::Shared(bind_abstract(name, asked)?),
        };
        Ok(Self { number, listener, way, claims: None })
    }

    /// True where this generation has it.
    pub(super) fn is_of(&self, generation: Generation) -> bool {
        self.claims.as_ref().is_none_or(|claims| claims.contains(&generation))
    }

    /// A captured one has a new user.
    pub(super) fn claim(&mut self, generation: Generation) {
        if let Some(claims) = self.claims.as_mut().filter(|claims| !claims.contains(&generation)) {
            claims.push(generation);
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
        match &self.way {
            Way::Group(group) => group.all().collect(),
            Way::Named(named) => named.all().collect(),
            Way::Shared(socket) => vec![socket.as_fd()],
        }
    }

    /// Before it is lent: blocking mode and backlog belong to the socket, so whoever had it before may have changed them
    /// (fcntl(2), listen(2)). A shared one is in use, and is only ever made non-blocking.
    pub(super) fn prepare(&self, slot: usize) -> io::Result<()> {
        let Some(socket) = self.get(slot) else { return Ok(()) };
        let nonblocking = self.listener.options.nonblocking;
        if nonblocking || !self.is_shared() {
            set_nonblocking(socket.as_fd(), nonblocking)?;
        }
        make::listen_again(&self.listener, socket)
    }

    /// Gives what is new to this slot.
    pub(super) fn steer(&mut self, slot: usize) -> io::Result<()> {
        match &mut self.way {
            Way::Group(group) => group.steer(slot),
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
    pub(super) fn aim(&self, slot: usize) -> io::Result<(Aimed, Option<SocketAddr>)> {
        let aimed = |target, shared| Aimed { target, shared };
        match &self.way {
            Way::Group(group) => {
                let (socket, to) = group.aim(slot, &self.listener)?;
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
    pub(super) fn unaim(&self) {
        if let Way::Group(group) = &self.way {
            group.unaim();
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
