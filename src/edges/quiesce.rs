//! Waiting until a generation that gets nothing new is quiet: its queue empty, its handshakes done, its requests finished.
//!
//! Looks, never touches. Says so once, and goes on telling how many connections are left until it is ended.

use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::connections::{Count, Doors, Holder, count};
use super::counting::count_aside;
use super::kernel::membarrier::wait_for_packets_under_way;
use super::kernel::sock_diag::SockDiag;
use super::listeners::{Watched, is_shut_down, waiting};
use super::notice::{Notice, Owner, tell};
use crate::address::Address;
use crate::supervisor::{Event, Generation};

/// What is watched.
#[derive(Debug)]
pub struct Quiesce {
    /// The generation that gets nothing new.
    pub generation: Generation,
    /// Its instances, by their processes.
    pub holders: Vec<Holder>,
    /// Processes that are nobody's orphans.
    pub known: Vec<i32>,
    /// Copies of its sockets.
    pub sockets: Vec<Watched>,
    /// How long to wait until no request is in flight.
    pub idle: Duration,
    /// Who is told.
    pub owner: Owner,
}

/// A client that has not finished its handshake by then has lost packets or is gone: two retransmissions, RFC 6298.
const HALF_OPEN_LIMIT: Duration = Duration::from_secs(3);

/// How long a server may have a datagram in its hands: the kernel does not tell which of them were answered.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// The queue is looked at this often: an accept takes microseconds.
const QUEUE_INTERVAL: Duration = Duration::from_millis(1);

/// Connections are looked at this often: the ages that the kernel keeps have a resolution of one jiffy, 4 ms at 250 Hz.
const BUSY_INTERVAL: Duration = Duration::from_millis(5);

/// How often it is looked whether a server that ends has shut its socket down, which moves the places of the others.
const LISTENING_INTERVAL: Duration = Duration::from_millis(20);

/// How often the connections left are told.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

impl Quiesce {
    /// Runs until it is ended.
    pub async fn run(self) {
        let _ = spawn_blocking(wait_for_packets_under_way).await;
        self.until_the_queue_is_empty().await;
        let mut told = None;
        tokio::join!(self.until_idle(&mut told), self.until_datagrams_are_answered());
        tell(&self.owner, Event::Quiet { generation: self.generation });
        let mut counted = Instant::now();
        loop {
            sleep(LISTENING_INTERVAL).await;
            if self.own().any(|at| is_shut_down(&at.listener, at.socket.as_fd())) {
                let _ = self.owner.send(Notice::Mend);
                return;
            }
            if counted.elapsed() >= TELL_INTERVAL {
                counted = Instant::now();
                let Some(count) = self.count().await else { return };
                self.tell_count(count, &mut told);
            }
        }
    }

    /// For a generation that died: waits until what had begun to come to it is there, and tells how much waits.
    pub async fn look_behind(self) {
        let _ = spawn_blocking(wait_for_packets_under_way).await;
        let begun = Instant::now();
        let mut unfinished = self.half_open().await;
        while !unfinished.is_empty() && begun.elapsed() < HALF_OPEN_LIMIT {
            sleep(QUEUE_INTERVAL).await;
            let still = self.half_open().await;
            unfinished.retain(|cookie| still.contains(cookie));
        }
        let waiting = self.own().map(|at| waiting(&at.listener, at.socket.as_fd())).sum();
        tell(&self.owner, Event::Left { generation: self.generation, waiting });
    }

    /// What waits in the others is taken by other generations as well, and what is new still comes there.
    fn own(&self) -> impl Iterator<Item = &Watched> {
        self.sockets.iter().filter(|at| !at.shared)
    }

    async fn until_the_queue_is_empty(&self) {
        let begun = Instant::now();
        let mut unfinished = self.half_open().await;
        loop {
            if self.own().all(|at| waiting(&at.listener, at.socket.as_fd()) == 0) {
                if unfinished.is_empty() || begun.elapsed() > HALF_OPEN_LIMIT {
                    return;
                }
                let still = self.half_open().await;
                unfinished.retain(|cookie| still.contains(cookie));
            }
            sleep(QUEUE_INTERVAL).await;
        }
    }

    /// Two looks in a row, because a request may be on its way between two of them. Clients that ask in quick succession
    /// are never out of doubt: for them the second half of the time is for a moment in which nothing is surely in flight.
    async fn until_idle(&self, told: &mut Option<Count>) {
        let begun = Instant::now();
        let (mut idle_looks, mut told_at) = (0, None);
        while idle_looks < 2 && begun.elapsed() < self.idle {
            let looked = Instant::now();
            let Some(count) = self.count().await else { return };
            let cost = looked.elapsed();
            idle_looks = if count.busy == 0 { idle_looks + 1 } else { 0 };
            let any_moment_will_do = begun.elapsed() >= self.idle / 2;
            if any_moment_will_do && count.surely_busy == 0 {
                return;
            }
            if count.busy > 0 && told_at.is_none_or(|at: Instant| at.elapsed() >= TELL_INTERVAL) {
                told_at = Some(looked);
                self.tell_count(count, told);
            }
            if idle_looks < 2 {
                let pause = if any_moment_will_do { cost.max(QUEUE_INTERVAL) } else { BUSY_INTERVAL.max(cost * 4) };
                sleep(pause).await;
            }
        }
    }

    async fn until_datagrams_are_answered(&self) {
        if self.sockets.iter().any(|at| matches!(at.listener.address, Address::Udp(_))) {
            sleep(self.idle.min(ANSWER_LIMIT)).await;
        }
    }

    fn tell_count(&self, count: Count, told: &mut Option<Count>) {
        if *told != Some(count) {
            *told = Some(count);
            let Count { open, busy, .. } = count;
            tell(&self.owner, Event::Connections { generation: self.generation, open, busy });
        }
    }

    /// The kernel looks through its whole table of connections for them, which takes milliseconds. None where it does not tell.
    async fn half_open(&self) -> HashSet<u64> {
        let ports = Doors::of(self.own()).ports;
        let look = move || -> io::Result<HashSet<u64>> {
            let mut diag = SockDiag::open()?;
            let mut cookies = HashSet::new();
            for port in ports {
                cookies.extend(diag.half_open(port.port())?);
            }
            Ok(cookies)
        };
        count_aside(look).await.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// None where the system does not tell.
    async fn count(&self) -> Option<Count> {
        let (holders, known) = (self.holders.clone(), self.known.clone());
        let doors = Doors::of(self.sockets.iter());
        let its = move || holders.iter().flat_map(|holder| holder.processes(&known)).collect();
        let counts = count_aside(move || count(&[its()], &doors)).await.ok()?.ok()?;
        counts.first().copied()
    }
}

#[cfg(test)]
mod tests;
