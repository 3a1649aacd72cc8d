//! Where what is new goes: to one generation or to several by their shares, to nobody for a while, or held back.
//!
//! Never accepts anything: all of it is told to the kernel, one atomic call for each listener.

use std::io;

use super::lane::{Lane, NOBODYS};
use super::{Listeners, make};
use crate::address::Address;
use crate::supervisor::{Generation, Instance, Portion};

/// What a generation gets of what is new. It may be dead meanwhile, and what is new waits in its slots.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) generation: Generation,
    pub(super) slots: Vec<usize>,
    /// The slot that it has of listeners that cannot be split.
    home: usize,
    weight: u32,
}

impl Share {
    /// Its slots with what each gets of this weight, as far as a listener has them.
    fn targets(&self, lane: &Lane, weight: u32) -> Vec<(usize, u64)> {
        let slots: Vec<usize> = self.slots.iter().copied().filter(|slot| lane.get(*slot).is_some()).collect();
        let each = (u64::from(weight) << u32::BITS).checked_div(slots.len() as u64).unwrap_or(0);
        slots.into_iter().map(|slot| (slot, each)).filter(|(_, weight)| *weight > 0).collect()
    }
}

impl Listeners {
    /// Gives what is new to the first portion, the front, and to each further one its share of the listeners that both
    /// have. A Unix path, and a listener with one socket for all, cannot be split: it follows the first that has it.
    /// While all is paused, it is where what is new will go.
    pub fn steer(&mut self, portions: &[Portion]) -> io::Result<()> {
        let shares: Vec<Share> = portions.iter().filter_map(|portion| self.share(portion)).collect();
        if shares.first().map(|share| share.generation) != portions.first().map(|portion| portion.generation) {
            return Ok(());
        }
        (self.shares, self.held) = (shares, false);
        self.retired.retain(|retired| self.shares.iter().all(|share| share.generation != *retired));
        let changed = self.take_on();
        self.keep();
        let paused = self.pause_front().map(drop);
        let steered = (0..self.lanes.len()).map(|position| self.steer_one(position)).fold(Ok(()), Result::and);
        let superseded = self.hold_superseded();
        self.close_unclaimed();
        steered.and(superseded).and(paused).and(changed)
    }

    fn share(&self, portion: &Portion) -> Option<Share> {
        let Portion { generation, ref instances, weight } = *portion;
        let slots = self.loans.of_some(generation, |number| instances.contains(&number));
        let home = self.loans.home(generation)?;
        (!slots.is_empty()).then_some(Share { generation, slots, home, weight })
    }

    /// One listener, as it was asked for last.
    pub(super) fn steer_one(&mut self, position: usize) -> io::Result<()> {
        let lane = &mut self.lanes[position];
        let its: Vec<&Share> = self.shares.iter().filter(|share| lane.is_of(share.generation)).collect();
        let Some(first) = its.first() else { return Ok(()) };
        let mut targets: Vec<(usize, u64)> = its.iter().flat_map(|share| share.targets(lane, share.weight)).collect();
        if targets.is_empty() {
            // Somebody must get it.
            targets = first.targets(lane, 1);
        }
        let home = first.home;
        lane.steer(home, targets)
    }

    /// The generation that gets what is new, or got it last.
    pub(super) fn front_generation(&self) -> Option<Generation> {
        self.shares.first().map(|share| share.generation)
    }

    /// Its slots; before there is one, the first slot.
    pub(super) fn front_slots(&self) -> Vec<usize> {
        self.shares.first().map_or_else(|| vec![0], |share| share.slots.clone())
    }

    /// Every slot that gets a share.
    pub(super) fn steered_slots(&self) -> Vec<usize> {
        let shares = self.shares.iter().skip(1).flat_map(|share| share.slots.iter().copied());
        self.front_slots().into_iter().chain(shares).collect()
    }

    /// True for a listener of somebody who gets what is new.
    fn is_steered(&self, lane: &Lane) -> bool {
        self.shares.iter().any(|share| lane.is_of(share.generation))
    }

    /// True for a listener of the front, or one that waits for the next.
    pub(super) fn is_of_front(&self, lane: &Lane) -> bool {
        lane.kept || self.front_generation().is_some_and(|front| lane.is_of(front))
    }

    /// A generation is gone: its share goes to the others, and a listener that only it served to the next that has it.
    pub(super) fn steer_past(&mut self, gone: Generation) -> io::Result<()> {
        let (all, front) = (self.shares.len(), self.front_generation());
        self.shares.retain(|share| share.generation != gone || Some(gone) == front);
        if self.held {
            return Ok(());
        }
        let mut steered = Ok(());
        for position in 0..self.lanes.len() {
            let lane = &self.lanes[position];
            let has_share = self.is_steered(lane);
            let is_left = || !lane.kept && lane.targets().iter().all(|slot| self.loans.is_free(*slot));
            let is_to_serve =
                |claim: &&Generation| !self.retired.contains(claim) && front.is_none_or(|front| **claim > front);
            let starting = lane.claims.iter().filter(is_to_serve).max();
            let result = match starting.and_then(|starting| self.loans.home(*starting)) {
                _ if has_share && self.shares.len() < all => self.steer_one(position),
                _ if has_share || lane.claims.is_empty() || !is_left() => continue,
                Some(slot) => self.lanes[position].steer(slot, vec![(slot, 1)]),
                None => self.hold_one(position, NOBODYS),
            };
            steered = steered.and(result);
        }
        steered
    }

    /// Lets what is new wait in a slot of this generation, which nobody serves. What cannot be paused is told.
    pub fn pause(&mut self, generation: Generation) -> io::Result<Vec<String>> {
        let slot = self.free_slot();
        self.loans.lend(Instance { generation, number: 1 }, slot);
        self.paused = Some(generation);
        let told = self.pause_front();
        if told.is_err() {
            self.release(generation);
        }
        told
    }

    /// Those of the front that do not wait yet.
    fn pause_front(&mut self) -> io::Result<Vec<String>> {
        let Some((generation, slot)) = self.paused.and_then(|paused| Some((paused, self.loans.home(paused)?))) else {
            return Ok(Vec::new());
        };
        let is_meant = |lane: &Lane| self.is_of_front(lane) && !lane.is_of(generation);
        let positions: Vec<usize> = (0..self.lanes.len()).filter(|at| is_meant(&self.lanes[*at])).collect();
        for position in &positions {
            let ours = self.inodes_on(self.lanes[*position].port());
            let lane = &mut self.lanes[*position];
            let made = lane.socket(slot, &ours).map(drop);
            made.or_else(|error| lane.share(error)).map_err(|error| io::Error::other(error.to_string()))?;
            // One that held connections back before has hardly any room.
            lane.prepare(slot, &lane.listener, false)?;
        }
        let mut told = Vec::new();
        for position in positions {
            let lane = &mut self.lanes[position];
            if lane.is_shared() {
                let name = &lane.listener.name;
                told.push(format!("listener `{name}` cannot be paused, because all generations share its one socket"));
                continue;
            }
            lane.pause(Some(slot))?;
            lane.claim(generation);
        }
        Ok(told)
    }

    /// Gives what is new to whom it was steered last. What waits already, waits on in the slot that it is in. Listeners that
    /// were removed meanwhile are held back, unless who had them is kept warm: a queue that was found empty stays so.
    pub fn resume(&mut self) -> io::Result<()> {
        let Some(paused) = self.paused.take() else { return Ok(()) };
        let nobodys = |slot: &usize| self.loans.is_only_of(*slot, |generation| self.retired.contains(&generation));
        let is_removed =
            |lane: &Lane| lane.is_of(paused) && !self.is_steered(lane) && lane.targets_behind().iter().all(nobodys);
        let removed: Vec<usize> = (0..self.lanes.len()).filter(|at| is_removed(&self.lanes[*at])).collect();
        let held = removed.into_iter().map(|at| self.hold_one(at, NOBODYS)).fold(Ok(()), Result::and);
        self.lanes.iter_mut().map(|lane| lane.pause(None)).fold(held, Result::and)
    }

    /// Before zdr ends: leaves new connections to the next zdr, or to the clients' next try; what has begun is finished.
    pub fn hold(&mut self) -> io::Result<()> {
        self.held = true;
        let slot = self.free_slot();
        let held = (0..self.lanes.len()).map(|position| self.hold_one(position, slot));
        held.fold(Ok(()), Result::and).and(self.leave_to_the_next())
    }

    fn hold_one(&mut self, position: usize, slot: usize) -> io::Result<()> {
        // Every time anew: lanes may overlap, and then what one has just made is in the way of the next.
        let ours = self.inodes_on(self.lanes[position].port());
        self.lanes[position].hold(slot, &ours)
    }

    /// What is new waits in the sockets that zdr was started with, once nobody accepts there any more.
    pub(super) fn leave_to_the_next(&mut self) -> io::Result<()> {
        if !self.held || !self.loans.is_free(0) || !self.lanes.iter().any(|lane| lane.outlives) {
            return Ok(());
        }
        self.shares.clear();
        let outliving = self.lanes.iter_mut().filter(|lane| lane.outlives);
        let left = outliving.map(|lane| lane.pause(None).and(lane.steer(0, vec![(0, 1)])));
        left.fold(Ok(()), Result::and)
    }

    /// A generation that gets nothing new is to be quiet, or is dead: what comes to listeners that nobody else is steered to
    /// is held back, until it was finished there and they are closed. To steer to it again ends that.
    pub fn retire(&mut self, generation: Generation) -> io::Result<()> {
        self.retired.insert(generation);
        let slots = self.loans.of(generation);
        let is_last = |lane: &Lane| {
            lane.is_of(generation) && !self.is_steered(lane) && lane.targets().iter().all(|slot| slots.contains(slot))
        };
        let positions: Vec<usize> = (0..self.lanes.len()).filter(|at| is_last(&self.lanes[*at])).collect();
        positions.into_iter().map(|at| self.hold_one(at, NOBODYS)).fold(Ok(()), Result::and)
    }

    /// Where the front listens on a wider address, the kernel still prefers the old one's. What is new there is left to the
    /// clients' next try, which comes after the old one's queue was finished and its socket closed.
    fn hold_superseded(&mut self) -> io::Result<()> {
        let Some(front) = self.front_generation() else { return Ok(()) };
        let wider = |old: &Lane, new: &Lane| match (&old.listener.address, &new.listener.address) {
            (Address::Tcp(old), Address::Tcp(address)) => {
                let v6only = new.listener.options.v6only;
                old.port() == address.port() && make::takes(*address, v6only, old.ip())
            }
            _ => false,
        };
        let superseded =
            |old: &Lane| !self.is_steered(old) && self.lanes.iter().any(|new| new.is_of(front) && wider(old, new));
        let positions: Vec<usize> = (0..self.lanes.len()).filter(|at| superseded(&self.lanes[*at])).collect();
        positions.into_iter().map(|at| self.hold_one(at, NOBODYS)).fold(Ok(()), Result::and)
    }
}
