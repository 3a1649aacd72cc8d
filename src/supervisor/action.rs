//! What the rules can ask for.

use std::ffi::OsString;

use super::generation::{Generation, Ticket};
use super::news::News;
use super::verdict::Verdict;

/// Something to be done, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "an action that is dropped is a promise broken"]
pub enum Action {
    /// Execute the command for this generation. Answered by `Spawned` or `SpawnFailed` before any other event.
    Spawn {
        /// For which.
        generation: Generation,
        /// What to execute.
        command: Vec<OsString>,
        /// Which slots it is lent.
        place: Place,
    },
    /// Ask this generation until it is ready.
    Probe(Generation),
    /// Give new connections to this generation.
    Steer(Generation),
    /// Leave new connections to the clients' next try: nobody will serve here for a while.
    Hold,
    /// Wait until this generation, which gets nothing new, is quiet.
    Quiesce(Generation),
    /// Send the drain signal.
    Signal(Generation),
    /// End it now, with every process it started.
    Kill(Generation),
    /// It died, and new connections go elsewhere: wait until those that had begun to come to it are there, and count
    /// them. Answered by `Left`.
    LookBehind(Generation),
    /// It is gone: its slots are free.
    Release(Generation),
    /// Tell everybody who follows the story.
    Tell(News),
    /// Tell the one who asked.
    Answer(Ticket, Verdict),
    /// End zdr with this code.
    Exit(u8),
}

/// What is new and goes to one generation, as a part of the whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Portion {
    /// To which generation.
    pub generation: Generation,
    /// To which of its instances, evenly.
    pub instances: Vec<u32>,
    /// How much, compared with the other portions.
    pub weight: u32,
}

/// Which slots a generation is lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Free ones: somebody else serves.
    Beside,
    /// Those that new connections go to: nobody serves, and connections wait there.
    Steered,
    /// Those of a generation that died with connections waiting.
    Of(Generation),
}
