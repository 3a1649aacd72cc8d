//! Lending slots to instances, and taking them back.
//!
//! The only way by which sockets leave zdr, but for those that take the place of a server's own (`captured.rs`).

use std::os::fd::{AsFd, BorrowedFd};

use super::lane::Lane;
use super::queue::sweep;
use super::{ListenError, Listeners};
use crate::address::Listener;
use crate::supervisor::{Generation, Instance, Place, QueueMode};

/// A slot's socket on its way to an instance.
#[derive(Debug)]
pub struct Lent<'a> {
    /// The listener it belongs to, as the instance's generation calls it.
    pub listener: &'a Listener,
    /// The socket.
    pub socket: BorrowedFd<'a>,
}

impl Listeners {
    /// Lends an instance its slot: the one that it had, the one of its generation, or else one at this place. A generation
    /// that was not prepared finishes what waits for a dead one, and has the listeners of that.
    pub fn lend(&mut self, instance: Instance, place: Place, queue: QueueMode) -> Result<Vec<Lent<'_>>, ListenError> {
        let generation = instance.generation;
        // Later on it is done whenever a process has ended.
        if self.loans.of(generation).is_empty() {
            self.mend()?;
        }
        if !self.asked.contains_key(&generation) {
            match place {
                Place::Of(dead) => self.prepare_like(generation, dead),
                Place::Beside | Place::Steered => self.prepare(generation, None).map(drop)?,
            }
        }
        let slot = self.choose(instance, place, queue);
        self.loans.lend(instance, slot);
        if let Place::Of(dead) = place {
            // What it will bind by itself is its own already, so that it is not taken for done before it has come to that.
            self.lanes
                .iter_mut()
                .filter(|lane| lane.captured && lane.is_of(dead))
                .for_each(|lane| lane.claim(generation));
        }
        for position in 0..self.lanes.len() {
            self.make_ready(position, instance)?;
        }
        let its = self.lanes_of(generation).into_iter().filter(|(lane, _)| self.is_asked(generation, lane.number));
        let mut lent = Vec::new();
        for (lane, listener) in its {
            if let Some(socket) = self.slot_in(lane, instance).and_then(|slot| lane.get(slot)) {
                lent.push(Lent { listener, socket: socket.as_fd() });
            }
        }
        Ok(lent)
    }

    /// The socket of a listener for an instance that asked for it.
    fn make_ready(&mut self, position: usize, instance: Instance) -> Result<(), ListenError> {
        let generation = instance.generation;
        let Some(asked) = self.asked.get(&generation).and_then(|asked| asked.get(self.lanes[position].number)) else {
            return Ok(());
        };
        let Some(slot) = self.slot_in(&self.lanes[position], instance) else { return Ok(()) };
        // Every time anew: lanes may overlap, and then what one has just made is in the way of the next.
        let ours = self.inodes_on(self.lanes[position].port());
        let in_use = self.is_in_use(&self.lanes[position], instance);
        let lane = &mut self.lanes[position];
        lane.socket(slot, &ours)?;
        let is_new = lane.claims.is_empty() && !lane.kept;
        lane.claim(generation);
        let ready =
            lane.prepare(slot, asked, in_use).and_then(|()| if is_new { lane.begin_with(slot) } else { Ok(()) });
        ready.map_err(|source| ListenError::steer(&lane.listener, source))
    }

    /// True where other instances of its generation have the same socket.
    pub(super) fn is_in_use(&self, lane: &Lane, instance: Instance) -> bool {
        let slot = self.slot_in(lane, instance);
        let mut others = self.loans.running(instance.generation).filter(|other| *other != instance);
        others.any(|other| self.slot_in(lane, other) == slot)
    }

    /// Where an instance is to take its connections from.
    fn choose(&mut self, instance: Instance, place: Place, queue: QueueMode) -> usize {
        let its = self.loans.of(instance.generation);
        let had = self.loans.slot_of(instance);
        if let Some(slot) = had.or_else(|| its.first().copied().filter(|_| queue == QueueMode::Shared)) {
            return slot;
        }
        let there = match place {
            Place::Steered => self.front_slots(),
            Place::Of(dead) => {
                Some(self.loans.of(dead)).filter(|slots| !slots.is_empty()).unwrap_or(self.front_slots())
            }
            Place::Beside => Vec::new(),
        };
        let position = match queue {
            QueueMode::Shared => 0,
            QueueMode::PerInstance => usize::try_from(instance.number).map_or(usize::MAX, |number| number.max(1) - 1),
        };
        let slot = there.get(position).copied().filter(|slot| !its.contains(slot));
        slot.unwrap_or_else(|| self.free_slot())
    }

    /// An instance is gone, and its generation lives on: what waits in its slot waits for the next of its number.
    pub fn leave(&mut self, instance: Instance) {
        self.loans.leave(instance);
        self.unaim(instance);
        self.forget_bound(|bound| bound == instance);
    }

    /// Takes the slots of a generation back, and closes what nobody has any more. Whoever still waits where nobody will
    /// look is told so by a reset, at once.
    pub fn release(&mut self, generation: Generation) -> usize {
        if self.paused == Some(generation) {
            // Its slot is nobody's from here on. Where that fails, they wait there as before.
            let _ = self.resume();
        }
        self.keep();
        let freed = self.loans.release(generation);
        self.lanes.iter_mut().for_each(|lane| lane.claims.retain(|other| *other != generation));
        self.asked.remove(&generation);
        self.retired.remove(&generation);
        self.forget_bound(|bound| bound.generation == generation);
        self.lanes.iter_mut().for_each(|lane| lane.unaim(|by| by.generation == generation));
        // Nobody is sent there any more before it is looked at for the last time. Where these fail, what is new goes where
        // it went before.
        let _ = self.steer_past(generation);
        let front = self.front_slots();
        let left = freed.into_iter().filter(|slot| !front.contains(slot));
        let dropped = left.map(|slot| self.sweep_slot(slot)).sum();
        self.close_unclaimed();
        let _ = self.leave_to_the_next();
        dropped
    }

    /// A slot that nobody has and nothing new goes to, empty.
    pub(super) fn free_slot(&mut self) -> usize {
        // The first slot is left alone, so that what comes when zdr ends can wait there.
        let kept = self.lanes.iter().any(|lane| lane.outlives).then_some(0);
        let steered = self.steered_slots();
        let slot = self.loans.free(|slot| Some(slot) == kept || steered.contains(&slot));
        self.sweep_slot(slot);
        slot
    }

    /// Closes what waits in a slot, and counts it. What waits at a listener that was bound for a generation which has not
    /// been lent it yet is that one's, whatever slot it will have.
    fn sweep_slot(&self, slot: usize) -> usize {
        let is_to_come = |lane: &Lane| lane.claims.is_empty() && !lane.kept && self.is_wanted(lane);
        let own = self.lanes.iter().filter(|lane| !lane.is_shared() && !is_to_come(lane));
        own.filter_map(|lane| Some(sweep(&lane.listener, lane.get(slot)?, &self.probes))).sum()
    }
}
