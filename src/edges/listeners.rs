//! The listeners and their slots: bound once, steered in the kernel, lent to instances.
//!
//! A slot is one socket of every listener. Slots are never closed while their listener is there: a handshake that was begun
//! on one is finished there. Sockets leave zdr only through `lend` (`lending.rs`), or over a server's own when that binds
//! by itself (`captured.rs`). What a generation is, and who serves, is decided elsewhere.

mod captured;
mod changes;
mod error;
mod group;
mod inherited;
mod lane;
mod lending;
mod loans;
mod make;
mod options;
mod path;
mod queue;
mod steering;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;

pub use captured::{Answer, Binding};
use changes::Asked;
pub use error::ListenError;
pub use inherited::Inherited;
use lane::{Lane, Way};
pub use lending::Lent;
use loans::Loans;
use path::Named;
pub use path::OwnPath;
pub use queue::{Queue, is_shut_down, waiting};
use steering::Share;
use tokio::net::TcpSocket;
use tracing::warn;

use crate::address::Listener;
use crate::supervisor::{Generation, Instance};

/// How many probes are remembered: more than can wait in a queue while one generation starts.
const PROBES: usize = 1024;

/// Every listener with its slots.
#[derive(Debug, Default)]
pub struct Listeners {
    /// In the order of the front.
    lanes: Vec<Lane>,
    loans: Loans,
    /// What the generations that are not released were prepared with.
    asked: HashMap<Generation, Asked>,
    /// Who gets what is new, the front first. Empty before there is one.
    shares: Vec<Share>,
    /// Those that get nothing new any more, and whose queues may have been found empty.
    retired: BTreeSet<Generation>,
    /// The generation in whose slot what is new waits while it is paused.
    paused: Option<Generation>,
    /// What has been bound by itself and does not listen yet.
    bound: Vec<captured::Bound>,
    /// Where the last probes came from: they are nobody's loss.
    probes: VecDeque<SocketAddr>,
    /// The number of the next listener.
    next: usize,
    /// New connections are held.
    held: bool,
}

/// A connection to a listener that is not made yet, and will reach the slot of one instance.
#[derive(Debug)]
pub struct Aimed {
    /// What to connect.
    pub target: Target,
    /// Other generations, or other instances of its own, take connections from the same queue: whose answer it is must be
    /// found out.
    pub shared: bool,
}

/// The first stream listener, for whoever asks as any client does.
#[derive(Debug)]
pub struct Front {
    /// Which.
    pub listener: Listener,
    /// What to connect.
    pub target: Target,
    /// A copy of the socket that gets what is new.
    pub socket: OwnedFd,
    /// Nobody accepts there for a while.
    pub held: bool,
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
    /// Other instances of its generation take connections from the same queues by now.
    pub others: bool,
    /// Why what it binds by itself could not be taken over; known to whoever answers its system calls.
    pub trouble: Option<String>,
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
        let mut listeners = Self::default();
        for listener in asked {
            let mut lane = Lane::bind(listeners.next, listener, &listeners.inodes_on(lane::port(listener)))?;
            lane.kept = true;
            lane.begin_with(0).map_err(|source| ListenError::socket(listener, source))?;
            listeners.add(lane);
        }
        Ok(listeners)
    }

    fn add(&mut self, lane: Lane) {
        self.lanes.push(lane);
        self.next += 1;
    }

    /// The listeners, with the ports that the kernel chose.
    pub fn all(&self) -> impl Iterator<Item = &Listener> {
        self.lanes.iter().map(|lane| &lane.listener)
    }

    /// The files of Unix sockets, which lose a name when a server removes the path.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let named = self.lanes.iter().filter_map(|lane| match &lane.way {
            Way::Named(named) => Some(named),
            Way::Group(_) | Way::Shared(_) => None,
        });
        named.flat_map(Named::files)
    }

    /// What waits in each listener.
    pub fn queues(&self) -> Vec<Queue> {
        let queue = |lane: &Lane| Queue::of(&lane.listener, self.loans.slots(), &lane.steered(), &lane.open());
        self.lanes.iter().map(queue).collect()
    }

    /// A connection to this listener that reaches the slot of this instance, and nobody else's does.
    pub fn aim(&mut self, instance: Instance, number: usize) -> io::Result<Aimed> {
        let position = self.lanes.iter().position(|lane| lane.number == number);
        let position = position.ok_or_else(|| io::Error::other("the listener is gone"))?;
        self.mend_one(position).map_err(|error| io::Error::other(error.to_string()))?;
        let lane = &self.lanes[position];
        let slot = self.slot_in(lane, instance).ok_or_else(|| io::Error::other("it has no slot"))?;
        let others = self.is_in_use(lane, instance);
        let (aimed, client) = self.lanes[position].aim(instance, slot)?;
        let shared = aimed.shared || others;
        self.probes.truncate(PROBES - 1);
        self.probes.extend(client);
        self.probes.rotate_right(usize::from(client.is_some()));
        Ok(Aimed { shared, ..aimed })
    }

    /// The first stream listener that somebody may answer on.
    pub fn front(&self) -> io::Result<Option<Front>> {
        let mut its = self.lanes.iter().filter(|lane| lane.listener.address.is_stream() && self.is_of_front(lane));
        let Some((lane, socket)) = its.find_map(|lane| Some((lane, lane.steered().first()?.try_clone_to_owned())))
        else {
            return Ok(None);
        };
        let held = self.paused.is_some_and(|paused| lane.is_of(paused));
        Ok(Some(Front { target: lane.as_client()?, listener: lane.listener.clone(), socket: socket?, held }))
    }

    /// The probe has its connection: whoever gets its source port next is a client like any other.
    pub fn unaim(&mut self, instance: Instance) {
        self.lanes.iter_mut().for_each(|lane| lane.unaim(|by| by == instance));
    }

    /// Copies of the sockets of a generation, to look at their queues from elsewhere.
    pub fn watch(&self, generation: Generation) -> io::Result<Vec<Watched>> {
        let mut watched = Vec::new();
        for (lane, listener) in self.lanes_of(generation) {
            let shared = lane.is_shared();
            for socket in self.slots_in(lane, generation).into_iter().filter_map(|slot| lane.get(slot)) {
                watched.push(Watched { listener: listener.clone(), socket: socket.try_clone()?, shared });
            }
        }
        Ok(watched)
    }

    /// How this generation can be reached.
    pub fn reach(&self, generation: Generation) -> Reach {
        if self.loans.of(generation).is_empty() {
            return Reach::default();
        }
        let is_there = |lane: &Lane| self.slots_in(lane, generation).into_iter().any(|slot| lane.get(slot).is_some());
        let its = self.lanes_of(generation).into_iter().filter(|(lane, _)| is_there(lane));
        let serves = |lane: &&Lane| self.front_generation().is_some_and(|front| lane.is_of(front));
        let others = self.lanes.iter().filter(|lane| lane.captured && !lane.is_of(generation));
        Reach {
            listeners: its.map(|(lane, listener)| (lane.number, listener.clone())).collect(),
            missing: others.filter(serves).map(|lane| lane.listener.clone()).collect(),
            others: false,
            trouble: None,
        }
    }

    /// The slot of an instance in this listener. What cannot be split, its generation has once.
    fn slot_in(&self, lane: &Lane, instance: Instance) -> Option<usize> {
        match lane.way {
            Way::Group(_) => self.loans.slot_of(instance),
            Way::Named(_) | Way::Shared(_) => self.loans.home(instance.generation),
        }
    }

    /// Likewise of all instances of a generation.
    fn slots_in(&self, lane: &Lane, generation: Generation) -> Vec<usize> {
        match lane.way {
            Way::Group(_) => self.loans.of(generation),
            Way::Named(_) | Way::Shared(_) => self.loans.home(generation).into_iter().collect(),
        }
    }

    /// By which the kernel's tables name our sockets on this port: lanes may overlap, and then one is not in the other's way.
    fn inodes_on(&self, port: Option<u16>) -> Vec<u64> {
        self.lanes.iter().filter(|lane| lane.port() == port).flat_map(Lane::inodes).collect()
    }

    /// Puts right what servers have done to sockets and names that are not their own.
    pub fn mend(&mut self) -> Result<(), ListenError> {
        (0..self.lanes.len()).try_for_each(|position| self.mend_one(position))
    }

    fn mend_one(&mut self, position: usize) -> Result<(), ListenError> {
        let ours = self.inodes_on(self.lanes[position].port());
        let lane = &mut self.lanes[position];
        if lane.mend(&ours)? {
            warn!(address = %lane.listener.address, "another program has taken the path; new clients reach that one");
        }
        Ok(())
    }
}

/// An address of this machine by which a listener can be reached from it.
fn reachable(ip: IpAddr, v6only: bool) -> IpAddr {
    match ip {
        IpAddr::V6(ip) if ip.is_unspecified() && v6only => Ipv6Addr::LOCALHOST.into(),
        ip if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        ip => ip,
    }
}
