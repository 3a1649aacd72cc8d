//! What the rules can ask for.

use std::collections::BTreeSet;
use std::ffi::OsString;

use super::generation::{Generation, Instance, Ticket, Why};
use super::news::News;
use super::policy::{Hook, Origin};
use super::verdict::Verdict;

/// Something to be done, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "an action that is dropped is a promise broken"]
pub enum Action {
    /// Find out what this generation is to be started with, and make its listeners. Answered by `Prepared` or `Refused`
    /// before any other event; where it is refused, nothing has changed.
    Prepare {
        /// For which.
        generation: Generation,
        /// From what.
        origin: Origin,
    },
    /// Run a command of the user's. Answered by `HookEnded`, in time.
    RunHook {
        /// Which.
        hook: Hook,
        /// The generation it is about.
        generation: Generation,
        /// The one that is replaced, or has replaced it.
        other: Option<Generation>,
        /// What it was started for, or what it was replaced for; None where zdr stops.
        why: Option<Why>,
    },
    /// Execute the command for this instance. Answered by `Spawned` or `SpawnFailed` before any other event.
    Spawn {
        /// For which.
        instance: Instance,
        /// What to execute.
        command: Vec<OsString>,
        /// Which slots it is lent.
        place: Place,
        /// The generation whose like it is, where its own was not prepared.
        like: Option<Generation>,
    },
    /// Ask this instance until it is ready.
    Probe(Instance),
    /// Give new connections to these generations, each its share; to the first, what cannot be shared.
    Steer(Vec<Portion>),
    /// Let new connections wait where nobody accepts them: in the slot of this generation, which has no process. Answered by
    /// `Held` before any other event.
    Pause(Generation),
    /// New connections go again where they were steered to last.
    Resume,
    /// Ask the checks of the user's, whether or not somebody looks.
    AskChecks(bool),
    /// Leave new connections to the clients' next try: nobody will serve here for a while.
    Hold,
    /// Wait until this generation, which gets nothing new, is quiet.
    Quiesce(Generation),
    /// Send the drain signal to all its instances.
    Signal(Generation),
    /// End it now, with every process it started.
    Kill(Generation),
    /// It died, and new connections go elsewhere: wait until those that had begun to come to it are there, and count
    /// them. Answered by `Left`.
    LookBehind(Generation),
    /// This instance is gone, and its generation lives on.
    Bury(Instance),
    /// It is gone: its slots are free.
    Release(Generation),
    /// These live, or may be started again as they were; what is known of others is to be forgotten.
    Remember(BTreeSet<Generation>),
    /// Tell everybody who follows the story.
    Tell(News),
    /// Tell the one who asked.
    Answer(Ticket, Verdict),
    /// End zdr with this code.
    Exit(u8),
}

/// The part of one generation in what is new.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Portion {
    /// Whose.
    pub generation: Generation,
    /// The instances that get it.
    pub instances: Vec<u32>,
    /// How much, in proportion to the others.
    pub weight: u32,
}

/// Which slots an instance is lent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Free ones: somebody else serves.
    Beside,
    /// Those that new connections go to: nobody serves, and connections wait there.
    Steered,
    /// Those where connections wait that nobody accepts: of a generation that died, or of a pause.
    Of(Generation),
}
