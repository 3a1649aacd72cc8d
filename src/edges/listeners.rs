//! The listeners and their slots: bound once, steered in the kernel, lent to generations.
//!
//! A slot is one socket of every listener. Slots are never closed while zdr runs: a handshake that was begun on one is
//! finished there. Sockets leave zdr only through `lend`, or over a server's own when that binds by itself
//! (`captured.rs`). What a generation is, and who serves, is decided elsewhere.

mod captured;
mod error;
mod group;
mod inherited;
mod lane;
mod make;
mod options;
mod path;
mod queue;

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

pub use captured::{Answer, Binding};
pub use error::ListenError;
pub use inherited::Inherited;
use lane::{Lane, Way};
use path::Named;
pub use path::OwnPath;
use queue::sweep;
pub use queue::{Queue, is_shut_down, waiting};
use tokio::net::TcpSocket;
use tracing::warn;

use crate::address::Listener;
use crate::supervisor::{Generation, Place};

/// How many probes are remembered: more than can wait in a queue while one generation starts.
const PROBES: usize = 64;

/// Every listener with its slots.
#[derive(Debug, Default)]
pub struct Listeners {
    lanes: Vec<Lane>,
    /// For every slot who has it: more than one only while a dead one is not yet reaped.
    slots: Vec<Vec<Generation>>,
    /// The slot that new connections go to.
    steered: usize,
    /// What has been bound by itself and does not listen yet.
    bound: Vec<captured::Bound>,
    /// Where the last probes came from: they are nobody's loss.
    probes: VecDeque<SocketAddr>,
    /// The number of the next listener.
    next: usize,
    /// The sockets of the first slot are open elsewhere as well, and stay when zdr ends: what waits there is not lost.
    outlived: bool,
    /// New connections are held.
    held: bool,
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

/// The first stream listener, for whoever asks as any client does.
#[derive(Debug)]
pub struct Front {
    /// Which.
    pub listener: Listener,
    /// What to connect.
    pub target: Target,
    /// A copy of the socket that gets what is new.
    pub socket: OwnedFd,
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
        let mut listeners = Self { slots: vec![Vec::new(), Vec::new()], ..Self::default() };
        for listener in asked {
            let lane = Lane::bind(listeners.next, listener)?;
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
        let queue = |lane: &Lane| Queue::of(&lane.listener, self.slots.len(), lane.get(self.steered), &lane.all());
        self.lanes.iter().map(queue).collect()
    }

    /// Lends a generation its slot: a free one, the steered one, or that of a generation that died.
    pub fn lend(&mut self, generation: Generation, place: Place) -> Result<Vec<Lent<'_>>, ListenError> {
        self.mend()?;
        let slot = match place {
            Place::Steered => self.steered,
            Place::Of(dead) => self.slot_of(dead).unwrap_or(self.steered),
            Place::Beside => self.free_slot()?,
        };
        self.slots[slot].push(generation);
        let lent = self.lanes.iter().filter(|lane| lane.claims.is_none());
        lent.map(|lane| {
            lane.prepare(slot).map_err(|source| ListenError::steer(&lane.listener, source))?;
            Ok(lane.get(slot).map(|socket| Lent { listener: &lane.listener, socket: socket.as_fd() }))
        })
        .filter_map(Result::transpose)
        .collect()
    }

    /// Takes the slot back. Whoever still waits in it, where nobody will look, is told so by a reset, at once.
    pub fn release(&mut self, generation: Generation) -> usize {
        let mut dropped = 0;
        for (slot, users) in self.slots.iter_mut().enumerate() {
            let before = users.len();
            users.retain(|user| *user != generation);
            if users.len() < before && users.is_empty() && slot != self.steered {
                dropped += sweep_slot(&self.lanes, slot, &self.probes);
            }
        }
        self.disclaim(generation);
        self.unaim();
        // Where that fails, they are held as before.
        let _ = self.leave_to_the_next();
        dropped
    }

    /// Gives what is new to this generation: one call for each listener, atomic in each.
    pub fn steer(&mut self, generation: Generation) -> io::Result<()> {
        let Some(slot) = self.slot_of(generation) else { return Ok(()) };
        (self.steered, self.held) = (slot, false);
        let its = self.lanes.iter_mut().filter(|lane| lane.is_of(generation));
        let steered = its.map(|lane| lane.steer(slot)).fold(Ok(()), Result::and);
        let superseded = self.hold_superseded(generation);
        self.close_unclaimed();
        steered.and(superseded)
    }

    /// Before zdr ends: leaves new connections to the next zdr, or to the clients' next try; what has begun is finished.
    pub fn hold(&mut self) -> io::Result<()> {
        self.held = true;
        let slot = self.free_slot().map_err(|error| io::Error::other(error.to_string()))?;
        let held = (0..self.lanes.len()).map(|position| self.hold_one(position, slot));
        held.fold(Ok(()), Result::and).and(self.leave_to_the_next())
    }

    fn hold_one(&mut self, position: usize, slot: usize) -> io::Result<()> {
        // Every time anew: lanes may overlap, and then what one has just made is in the way of the next.
        let ours = self.inodes();
        self.lanes[position].hold(slot, &ours)
    }

    /// What is new waits in the sockets that zdr was started with, once nobody accepts there any more.
    fn leave_to_the_next(&mut self) -> io::Result<()> {
        if !self.held || !self.outlived || !self.slots[0].is_empty() {
            return Ok(());
        }
        self.steered = 0;
        let lent = self.lanes.iter_mut().filter(|lane| lane.claims.is_none());
        lent.map(|lane| lane.steer(0)).fold(Ok(()), Result::and)
    }

    /// A connection to this listener that reaches the slot of this generation, and nobody else's does.
    pub fn aim(&mut self, generation: Generation, number: usize) -> io::Result<Aimed> {
        let slot = self.slot_of(generation).ok_or_else(|| io::Error::other("it has no slot"))?;
        self.mend().map_err(|error| io::Error::other(error.to_string()))?;
        let lane = self.lanes.iter().find(|lane| lane.number == number);
        let (aimed, client) = lane.ok_or_else(|| io::Error::other("the listener is gone"))?.aim(slot)?;
        self.probes.truncate(PROBES - 1);
        self.probes.extend(client);
        self.probes.rotate_right(usize::from(client.is_some()));
        Ok(aimed)
    }

    /// The first stream listener that somebody may answer on.
    pub fn front(&self) -> io::Result<Option<Front>> {
        let mut streams = self.lanes.iter().filter(|lane| lane.listener.address.is_stream());
        let Some((lane, socket)) = streams.find_map(|lane| Some((lane, lane.get(self.steered)?))) else {
            return Ok(None);
        };
        let (listener, socket) = (lane.listener.clone(), socket.try_clone()?);
        Ok(Some(Front { target: lane.as_client()?, listener, socket }))
    }

    /// The probe has its connection: whoever gets its source port next is a client like any other.
    pub fn unaim(&mut self) {
        self.lanes.iter().for_each(Lane::unaim);
    }

    /// Copies of the sockets of a generation, to look at their queues from elsewhere.
    pub fn watch(&self, generation: Generation) -> io::Result<Vec<Watched>> {
        let Some(slot) = self.slot_of(generation) else { return Ok(Vec::new()) };
        let its = self.lanes.iter().filter(|lane| lane.is_of(generation));
        let watched = |lane: &Lane| {
            let socket = lane.get(slot)?.try_clone();
            let (listener, shared) = (lane.listener.clone(), lane.is_shared());
            Some(socket.map(|socket| Watched { listener, socket, shared }))
        };
        its.filter_map(watched).collect()
    }

    /// How this generation can be reached.
    pub fn reach(&self, generation: Generation) -> Reach {
        let Some(slot) = self.slot_of(generation) else { return Reach::default() };
        let (its, others): (Vec<&Lane>, Vec<&Lane>) = self.lanes.iter().partition(|lane| lane.is_of(generation));
        let serves = |lane: &&Lane| self.slots[self.steered].iter().any(|user| lane.is_of(*user));
        Reach {
            listeners: its
                .iter()
                .filter(|lane| lane.get(slot).is_some())
                .map(|lane| (lane.number, lane.listener.clone()))
                .collect(),
            missing: others.into_iter().filter(serves).map(|lane| lane.listener.clone()).collect(),
            trouble: None,
        }
    }

    /// By which the kernel's tables name every socket of ours.
    fn inodes(&self) -> Vec<u64> {
        self.lanes.iter().flat_map(Lane::all).map(make::inode).collect()
    }

    fn slot_of(&self, generation: Generation) -> Option<usize> {
        self.slots.iter().position(|users| users.contains(&generation))
    }

    fn free_slot(&mut self) -> Result<usize, ListenError> {
        // The first slot is left alone, so that what comes when zdr ends can wait there.
        let kept = self.outlived.then_some(0);
        let free =
            |(slot, users): (usize, &Vec<Generation>)| users.is_empty() && slot != self.steered && Some(slot) != kept;
        let slot = self.slots.iter().enumerate().position(free).unwrap_or(self.slots.len());
        if slot == self.slots.len() {
            self.slots.push(Vec::new());
        }
        let ours = self.inodes();
        for lane in self.lanes.iter_mut().filter(|lane| lane.claims.is_none()) {
            lane.socket(slot, &ours)?;
        }
        sweep_slot(&self.lanes, slot, &self.probes);
        Ok(slot)
    }

    /// Puts right what servers have done to sockets and names that are not their own.
    pub fn mend(&mut self) -> Result<(), ListenError> {
        let ours = self.inodes();
        for lane in &mut self.lanes {
            if lane.mend(&ours)? {
                warn!(address = %lane.listener.address, "another program has taken the path; new clients reach that one");
            }
        }
        Ok(())
    }
}

fn sweep_slot(lanes: &[Lane], slot: usize, probes: &VecDeque<SocketAddr>) -> usize {
    let own = lanes.iter().filter(|lane| !lane.is_shared());
    own.filter_map(|lane| Some(sweep(&lane.listener, lane.get(slot)?, probes))).sum()
}

/// An address of this machine by which a listener can be reached from it.
fn reachable(ip: IpAddr, v6only: bool) -> IpAddr {
    match ip {
        IpAddr::V6(ip) if ip.is_unspecified() && v6only => Ipv6Addr::LOCALHOST.into(),
        ip if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        ip => ip,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
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
