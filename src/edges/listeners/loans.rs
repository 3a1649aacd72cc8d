//! Who has which slot.
//!
//! Knows numbers alone, and no socket. What a slot is for, and what becomes of what waits there, is decided elsewhere.

use crate::supervisor::{Generation, Instance};

/// The slots, and who has them: more than one only where instances share a queue, or while a dead one is not yet reaped.
#[derive(Debug)]
pub(super) struct Loans {
    loans: Vec<Loan>,
    /// How many slots there are.
    slots: usize,
}

/// A slot that an instance has, or will have again when it is started anew.
#[derive(Debug)]
struct Loan {
    instance: Instance,
    slot: usize,
    /// The instance is there.
    runs: bool,
}

impl Loans {
    /// How many slots there are.
    pub(super) fn slots(&self) -> usize {
        self.slots
    }

    /// The slot of an instance.
    pub(super) fn slot_of(&self, instance: Instance) -> Option<usize> {
        self.loans.iter().find(|loan| loan.instance == instance).map(|loan| loan.slot)
    }

    /// The slots of a generation, each once, in the order of its instances.
    pub(super) fn of(&self, generation: Generation) -> Vec<usize> {
        self.of_some(generation, |_| true)
    }

    /// Likewise of some of its instances.
    pub(super) fn of_some(&self, generation: Generation, wanted: impl Fn(u32) -> bool) -> Vec<usize> {
        let its = |loan: &&Loan| loan.instance.generation == generation && wanted(loan.instance.number);
        let mut loans: Vec<&Loan> = self.loans.iter().filter(its).collect();
        loans.sort_by_key(|loan| loan.instance);
        let mut slots: Vec<usize> = Vec::new();
        for loan in loans {
            if !slots.contains(&loan.slot) {
                slots.push(loan.slot);
            }
        }
        slots
    }

    /// The slot of a generation where it can have only one: that of its first instance.
    pub(super) fn home(&self, generation: Generation) -> Option<usize> {
        self.of(generation).first().copied()
    }

    /// The instances of a generation that are there.
    pub(super) fn running(&self, generation: Generation) -> impl Iterator<Item = Instance> {
        let its = self.loans.iter().filter(move |loan| loan.runs && loan.instance.generation == generation);
        its.map(|loan| loan.instance)
    }

    /// True where nobody has this slot.
    pub(super) fn is_free(&self, slot: usize) -> bool {
        self.loans.iter().all(|loan| loan.slot != slot)
    }

    /// True where nobody but these has this slot.
    pub(super) fn is_only_of(&self, slot: usize, these: impl Fn(Generation) -> bool) -> bool {
        self.loans.iter().filter(|loan| loan.slot == slot).all(|loan| these(loan.instance.generation))
    }

    /// The first that nobody has and that is not spared, made where there is none.
    pub(super) fn free(&mut self, spared: impl Fn(usize) -> bool) -> usize {
        let is_free = |slot: &usize| self.is_free(*slot) && !spared(*slot);
        let slot = (0..self.slots).find(is_free).unwrap_or(self.slots);
        self.slots = self.slots.max(slot + 1);
        slot
    }

    /// An instance has this slot from now on.
    pub(super) fn lend(&mut self, instance: Instance, slot: usize) {
        self.loans.retain(|loan| loan.instance != instance);
        self.loans.push(Loan { instance, slot, runs: true });
    }

    /// An instance is gone, and its slot waits for the next of its number.
    pub(super) fn leave(&mut self, instance: Instance) {
        for loan in self.loans.iter_mut().filter(|loan| loan.instance == instance) {
            loan.runs = false;
        }
    }

    /// A generation is gone. The slots that nobody has now.
    pub(super) fn release(&mut self, generation: Generation) -> Vec<usize> {
        let mut slots = self.of(generation);
        self.loans.retain(|loan| loan.instance.generation != generation);
        slots.retain(|slot| self.is_free(*slot));
        slots
    }
}

impl Default for Loans {
    /// Two: what could fail at the first reload fails when zdr starts.
    fn default() -> Self {
        Self { loans: Vec::new(), slots: 2 }
    }
}
