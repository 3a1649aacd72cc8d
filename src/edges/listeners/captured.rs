//! Listeners that servers make by themselves: what they bind becomes a slot, and what the next generation binds to the
//! same address is answered with that generation's slot.
//!
//! Only answers; the system calls of servers are read and their answers carried out elsewhere.

use std::fs::Metadata;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sys::socket::{SockType, SockaddrStorage, bind, getsockopt, setsockopt, sockopt};
use tracing::{info, warn};

use super::group::Group;
use super::inherited::unix_address;
use super::lane::{Lane, Way, port};
use super::make::{self, inode, nobody_else};
use super::path::Named;
use super::queue::set_nonblocking;
use super::{ListenError, Listeners, options};
use crate::address::{Address, Listener, Options};
use crate::supervisor::{Generation, Instance};

/// A server binds a socket of its own.
#[derive(Debug)]
pub struct Binding {
    /// To this address. What is TCP and what is UDP is only known with `socket`.
    pub address: Address,
    /// A copy of the socket, where the kernel lets zdr have one.
    pub socket: Option<OwnedFd>,
    /// O_NONBLOCK is set on it.
    pub nonblocking: bool,
    /// FD_CLOEXEC is set on its descriptor.
    pub close_on_exec: bool,
    /// Its process may not bind ports below 1024.
    pub unprivileged: bool,
}

/// What the server's system call comes to.
#[derive(Debug)]
pub enum Answer<'a> {
    /// It goes on as if nobody had looked.
    GoOn,
    /// It was done for the server, or failed with this error number.
    Done(Result<(), i32>),
    /// This socket takes the place of the server's own.
    Place(BorrowedFd<'a>),
}

/// A socket that was bound for a server, or in whose place it got one, and that does not listen yet. Nothing of it is kept
/// open: what never listens is the server's own affair.
#[derive(Debug)]
pub(super) struct Bound {
    instance: Instance,
    inode: u64,
    listener: Listener,
}

/// How many of those are remembered: a client that binds its own ports never listens on them.
const BOUND: usize = 1024;

impl Listeners {
    /// A server binds. `held` tells whether a process of the instance still has the socket with this inode.
    pub fn bind_for(
        &mut self,
        instance: Instance,
        binding: &Binding,
        held: impl Fn(u64) -> bool,
    ) -> Result<Answer<'_>, ListenError> {
        if self.loans.slot_of(instance).is_none() {
            return Ok(Answer::GoOn);
        }
        // One that binds again may have shut the socket down before that it gets once more.
        self.mend()?;
        let known = self.lanes.iter().position(|lane| lane.answers(binding));
        match known {
            Some(position) => self.place(position, instance, binding, held),
            None => self.bind_anew(instance, binding),
        }
    }

    /// The address is known: the instance gets its slot's socket for it.
    fn place(
        &mut self,
        position: usize,
        instance: Instance,
        binding: &Binding,
        held: impl Fn(u64) -> bool,
    ) -> Result<Answer<'_>, ListenError> {
        let generation = instance.generation;
        let lane = &self.lanes[position];
        let Some(slot) = self.slot_in(lane, instance) else { return Ok(Answer::GoOn) };
        let own = binding.socket.as_ref();
        let here = lane.get(slot).map(inode);
        if own.is_some() && own.map(inode) == here {
            return Ok(Answer::Done(Ok(())));
        }
        let shares = own.is_none_or(|own| getsockopt(own, sockopt::ReusePort).unwrap_or(true));
        let lent = self.is_asked(generation, lane.number);
        let twice = lane.is_of(generation) && !lent;
        if twice && !shares && !lane.is_shared() && here.is_some_and(held) {
            return Ok(Answer::Done(Err(libc::EADDRINUSE)));
        }
        // It listens already, and servers that find it so (SO_ACCEPTCONN), as gunicorn and HAProxy do, never call listen(2).
        let backlog = i32::try_from(lane.listener.options.backlog).unwrap_or(i32::MAX);
        self.listens(position, slot, generation, backlog)?;
        // Only one descriptor is replaced. Where a helper has bound the socket for somebody, that one listens on it.
        if let Some(inode) = own.map(inode).filter(|_| self.lanes[position].listener.address.is_stream()) {
            let listener = self.lanes[position].listener.clone();
            self.remember(Bound { instance, inode, listener });
        }
        let lane = &self.lanes[position];
        let Some(socket) = lane.get(slot) else { return Ok(Answer::GoOn) };
        if let Some(own) = own {
            options::copy(own.as_fd(), socket.as_fd(), lent);
        }
        if binding.nonblocking || !self.is_in_use(lane, instance) {
            set_nonblocking(socket.as_fd(), binding.nonblocking)
                .map_err(|source| ListenError::socket(&lane.listener, source))?;
        }
        Ok(Answer::Place(socket.as_fd()))
    }

    /// Nobody has bound this address before: it is bound on the server's own socket, as the server would have done.
    fn bind_anew(&mut self, instance: Instance, binding: &Binding) -> Result<Answer<'_>, ListenError> {
        let (Some(socket), Some(address)) = (&binding.socket, binding.address.socket()) else {
            return Ok(Answer::GoOn);
        };
        let listener = self.listener_of(socket, &binding.address);
        // The kernel knows best whether these two may share it, so the call goes on all the same.
        nobody_else(&listener, &self.inodes_on(port(&listener)))?;
        let datagrams = !listener.address.is_stream();
        if datagrams && address.ip().is_multicast() {
            return Ok(Answer::GoOn);
        }
        let free_from = first_free_port();
        if binding.unprivileged && address.port() < free_from {
            return Err(ListenError::Privileged { address: address.to_string(), free_from });
        }
        let to = SockaddrStorage::from(address);
        let share = || setsockopt(socket, sockopt::ReusePort, &true);
        // Datagram sockets join their group here, streams when they listen. A stream is bound as it is first, so that
        // a server which binds an address twice is told so.
        let result = match datagrams {
            true => share().and_then(|()| bind(socket.as_raw_fd(), &to)),
            false => match bind(socket.as_raw_fd(), &to) {
                Err(nix::errno::Errno::EADDRINUSE) if !self.has_bound(instance, address.port()) => {
                    share().and_then(|()| bind(socket.as_raw_fd(), &to))
                }
                result => result.and_then(|()| share()),
            },
        };
        if let Err(error) = result {
            return Ok(Answer::Done(Err(error as i32)));
        }
        if datagrams {
            self.capture(instance, socket, listener)?;
        } else {
            self.remember(Bound { instance, inode: inode(socket), listener });
        }
        Ok(Answer::Done(Ok(())))
    }

    fn remember(&mut self, bound: Bound) {
        let old = self.bound.len().saturating_sub(BOUND - 1);
        self.bound.drain(..old);
        self.bound.push(bound);
    }

    /// What was bound there and never listened goes with whoever bound it.
    pub(super) fn forget_bound(&mut self, gone: impl Fn(Instance) -> bool) {
        self.bound.retain(|bound| !gone(bound.instance));
    }

    /// True where this instance has bound that port already, or its generation listens there.
    fn has_bound(&self, instance: Instance, port: u16) -> bool {
        let same_port = |listener: &Listener| listener.address.socket().is_some_and(|address| address.port() == port);
        let generation = instance.generation;
        let listens = |lane: &Lane| lane.is_of(generation) && !self.is_asked(generation, lane.number);
        self.lanes.iter().any(|lane| listens(lane) && same_port(&lane.listener))
            || self.bound.iter().any(|bound| bound.instance == instance && same_port(&bound.listener))
    }

    /// A server listens: only now a stream is a listener. `path` finds the file of a Unix path as the server sees it.
    pub fn listen_for(
        &mut self,
        instance: Instance,
        socket: &OwnedFd,
        backlog: i32,
        path: impl Fn(&Path) -> Option<PathBuf>,
    ) -> Result<Answer<'_>, ListenError> {
        let generation = instance.generation;
        if self.loans.slot_of(instance).is_none() {
            return Ok(Answer::GoOn);
        }
        let inode = inode(socket);
        let there = self.lanes.iter().enumerate().find_map(|(position, lane)| {
            let slot = self.slot_in(lane, instance)?;
            (make::inode(lane.get(slot)?) == inode).then_some((position, slot))
        });
        if let Some((position, slot)) = there {
            self.listens(position, slot, generation, backlog)?;
            let listener = &self.lanes[position].listener;
            if listener.address.socket().is_none() {
                // Clients of a Unix socket are told who has called listen(2) (SO_PEERCRED, unix(7)).
                return Ok(Answer::GoOn);
            }
            make::listen_again(listener, socket).map_err(|source| ListenError::socket(listener, source))?;
            return Ok(Answer::Done(Ok(())));
        }
        let Some(at) = self.bound.iter().position(|bound| bound.inode == inode && bound.instance == instance) else {
            self.listen_on_unix(instance, socket, backlog, path)?;
            return Ok(Answer::GoOn);
        };
        let Bound { mut listener, .. } = self.bound.remove(at);
        // Workers with SO_REUSEPORT each bind the address and then listen: the instance has one queue for all of them. So do
        // the instances of a generation.
        let same = |lane: &Lane| lane.listener.address == listener.address && lane.is_of(generation);
        if let Some(position) = self.lanes.iter().position(same) {
            let Some(slot) = self.slot_in(&self.lanes[position], instance) else { return Ok(Answer::GoOn) };
            self.listens(position, slot, generation, backlog)?;
            return Ok(self.lanes[position].get(slot).map_or(Answer::GoOn, |socket| Answer::Place(socket.as_fd())));
        }
        listener.options.backlog = roomy(backlog);
        if let Err(error) = make::listen_again(&listener, socket) {
            return Ok(Answer::Done(Err(error.raw_os_error().unwrap_or(libc::EADDRINUSE))));
        }
        self.capture(instance, socket, listener)?;
        Ok(Answer::Done(Ok(())))
    }

    /// An instance listens on its slot of this listener, which is made where there is none. One that is steered to already
    /// gets at once what is new.
    fn listens(
        &mut self,
        position: usize,
        slot: usize,
        generation: Generation,
        backlog: i32,
    ) -> Result<(), ListenError> {
        let ours = self.inodes_on(self.lanes[position].port());
        let lent = self.is_asked(generation, self.lanes[position].number);
        let lane = &mut self.lanes[position];
        let was_there = lane.is_of(generation) && lane.get(slot).is_some();
        if let Err(error) = lane.socket(slot, &ours) {
            lane.share(error)?;
        }
        if lent {
            return Ok(());
        }
        if lane.captured {
            lane.listener.options.backlog = roomy(backlog);
        }
        lane.claim(generation);
        let is_steered = self.shares.iter().any(|share| share.generation == generation);
        if was_there || !is_steered || self.held {
            return Ok(());
        }
        self.steer_one(position).map_err(|source| ListenError::steer(&self.lanes[position].listener, source))
    }

    /// A Unix path, which the server has bound by itself, or an abstract name, which is shared because it has one socket.
    fn listen_on_unix(
        &mut self,
        instance: Instance,
        socket: &OwnedFd,
        backlog: i32,
        path: impl Fn(&Path) -> Option<PathBuf>,
    ) -> Result<(), ListenError> {
        if getsockopt(socket, sockopt::SockType) != Ok(SockType::Stream) {
            return Ok(());
        }
        let address = match unix_address(socket) {
            Ok(Address::Unix(bound)) => match path(&bound) {
                Some(path) => Address::Unix(path),
                None => return Ok(()),
            },
            Ok(address) => address,
            Err(_) => return Ok(()),
        };
        let mut listener = self.named(address);
        listener.options.backlog = roomy(backlog);
        let said = |source| ListenError::socket(&listener, source);
        let copy = socket.try_clone().map_err(said)?;
        let way = match (&listener.address, self.loans.home(instance.generation)) {
            (Address::Unix(path), Some(slot)) => Way::Named(Named::of(slot, path, copy).map_err(said)?),
            _ => Way::Shared(copy),
        };
        self.add_captured(instance, listener, way);
        Ok(())
    }

    fn capture(&mut self, instance: Instance, socket: &OwnedFd, listener: Listener) -> Result<(), ListenError> {
        let Some(slot) = self.loans.slot_of(instance) else { return Ok(()) };
        let group = socket.try_clone().and_then(|socket| Group::of(slot, socket));
        let group = group.map_err(|source| ListenError::socket(&listener, source))?;
        self.add_captured(instance, listener, Way::Group(group));
        Ok(())
    }

    fn add_captured(&mut self, Instance { generation, .. }: Instance, listener: Listener, way: Way) {
        info!(%generation, address = %listener.address, "captured");
        // Until something has served, what was there first stays.
        let kept = self.front_generation().is_none();
        let lane = Lane::of(self.next, listener, way);
        self.add(Lane { claims: vec![generation], captured: true, kept, ..lane });
    }

    /// True for a file that is one of our sockets under a path that clients know.
    pub fn keeps(&self, file: &Metadata) -> bool {
        self.lanes.iter().any(|lane| matches!(&lane.way, Way::Named(named) if named.is_this(file)))
    }

    fn named(&self, address: Address) -> Listener {
        let first = self.lanes.is_empty();
        let name = if first { "main".to_owned() } else { format!("listener{}", self.next + 1) };
        Listener { name, address, options: Options::default() }
    }

    fn listener_of(&self, socket: &OwnedFd, address: &Address) -> Listener {
        let mut listener = self.named(kind(address, socket));
        listener.options.v6only = v6only(socket);
        listener.options.nodelay = getsockopt(socket, sockopt::TcpNoDelay).unwrap_or_default();
        listener
    }
}

impl Lane {
    /// True where this binding means this listener.
    fn answers(&self, binding: &Binding) -> bool {
        match &binding.socket {
            Some(socket) => {
                let v6only = binding.address.socket().is_some_and(|address| address.is_ipv6()) && v6only(socket);
                self.listener.address == kind(&binding.address, socket) && self.listener.options.v6only == v6only
            }
            // What kind of socket it is cannot be known then; a stream is likelier.
            None => self.listener.address == binding.address,
        }
    }

    /// No second socket can be had: all generations get the one there is.
    pub(super) fn share(&mut self, error: ListenError) -> Result<(), ListenError> {
        let ours = self.all();
        let [only] = ours.as_slice() else { return Err(error) };
        let only = only.try_clone_to_owned().map_err(|source| ListenError::socket(&self.listener, source))?;
        warn!(address = %self.listener.address, "{error}; generations share one socket there");
        self.way = Way::Shared(only);
        Ok(())
    }
}

/// The address with the protocol that the socket speaks.
fn kind(address: &Address, socket: &OwnedFd) -> Address {
    match (address, getsockopt(socket, sockopt::SockType)) {
        (Address::Tcp(at), Ok(SockType::Datagram)) => Address::Udp(*at),
        _ => address.clone(),
    }
}

fn v6only(socket: &OwnedFd) -> bool {
    getsockopt(socket, sockopt::Ipv6V6Only).unwrap_or_default()
}

/// At least the usual one of zdr: the queue holds what comes while generations change, and servers ask for as little as 5
/// (`socketserver` of Python). Where it is full, clients wait a second for their next try.
fn roomy(backlog: i32) -> u32 {
    u32::try_from(backlog).unwrap_or(u32::MAX).max(Options::default().backlog)
}

/// Ports below this need a right (`net.ipv4.ip_unprivileged_port_start`, ip(7)).
fn first_free_port() -> u16 {
    const USUAL: u16 = 1024;
    let setting = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    setting.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(USUAL)
}
