//! What can happen to a supervisor.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use super::generation::{Exit, Generation, Instance, Ticket, Until};
use super::liveness::Sign;
use super::policy::{Hook, Plan};
use super::status::Health;

/// Something that happened; the rules answer with actions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// zdr has started and its listeners are bound.
    Boot,
    /// Somebody wants a new generation beside the old one.
    Reload {
        /// Who is to be told the verdict.
        ticket: Ticket,
        /// A new command, or None for the one that is there.
        command: Option<Vec<OsString>>,
        /// When the verdict is due.
        until: Until,
    },
    /// A watched file has changed.
    Changed {
        /// One of those that have.
        path: PathBuf,
    },
    /// Somebody wants the generation before to serve again.
    Rollback {
        /// Who is to be told the verdict.
        ticket: Ticket,
    },
    /// Somebody wants another number of instances.
    Scale {
        /// Who is to be told the verdict.
        ticket: Ticket,
        /// How many.
        scale: Scale,
    },
    /// Somebody wants new connections to wait.
    Pause {
        /// Who is to be told the verdict.
        ticket: Ticket,
        /// How long at most.
        time: Duration,
    },
    /// New connections wait from now on, or nothing has changed.
    Held {
        /// Sentences about those that wait not, or why none does.
        told: Result<Vec<String>, String>,
    },
    /// Somebody wants them to wait no longer.
    Resume {
        /// Who is to be told the verdict.
        ticket: Ticket,
    },
    /// A generation can be started.
    Prepared {
        /// Which.
        generation: Generation,
        /// With what.
        plan: Box<Plan>,
    },
    /// A generation cannot be started with what was asked for.
    Refused {
        /// Why.
        why: String,
    },
    /// A command of the user's has ended.
    HookEnded {
        /// Which.
        hook: Hook,
        /// The generation it was about.
        generation: Generation,
        /// What went wrong, in words that follow its name; None where it did well.
        failure: Option<String>,
    },
    /// Somebody wants the serving generation stopped and started, with no overlap.
    Restart {
        /// Who is to be told the verdict.
        ticket: Ticket,
    },
    /// Somebody wants zdr to end; asked twice, at once.
    Stop {
        /// Who is to be told the verdict.
        ticket: Ticket,
    },
    /// The command of an instance was executed.
    Spawned {
        /// Whose.
        instance: Instance,
        /// Process id of its main process.
        pid: i32,
    },
    /// The command of an instance could not be executed.
    SpawnFailed {
        /// Whose.
        instance: Instance,
        /// Which step failed and why.
        why: String,
        /// What a shell would exit with: 127 not found, 126 not executable, None for another step.
        code: Option<i32>,
    },
    /// A probe was answered, and the answer is not that it is ready.
    NotReady {
        /// Whose.
        instance: Instance,
        /// What was asked and what came back.
        answer: String,
    },
    /// The instance has proved that it can serve.
    Ready {
        /// Which.
        instance: Instance,
    },
    /// How many connections a draining generation still has.
    Connections {
        /// Whose.
        generation: Generation,
        /// Open ones.
        open: usize,
        /// Those with a request in flight.
        busy: usize,
    },
    /// A generation that gets nothing new has an empty queue and is idle, or was given up on being idle.
    Quiet {
        /// Which.
        generation: Generation,
    },
    /// What an instance wrote last; told before what becomes of it.
    Wrote {
        /// Which.
        instance: Instance,
        /// The last lines on its standard error, the oldest first.
        lines: Vec<String>,
    },
    /// The main process of an instance has ended.
    Exited {
        /// Whose.
        instance: Instance,
        /// How.
        exit: Exit,
    },
    /// A generation does not do what one that is well would do.
    Stuck {
        /// Which.
        generation: Generation,
        /// How that was noticed.
        sign: Sign,
        /// What was seen, in words that follow "it is stuck".
        why: String,
    },
    /// That sign is gone.
    Recovered {
        /// Whose.
        generation: Generation,
        /// Which.
        sign: Sign,
    },
    /// An instance has said that it is not ready, or not any more (READY=0).
    Unready {
        /// Which.
        instance: Instance,
    },
    /// An instance that had said so is ready again (READY=1).
    ReadyAgain {
        /// Which.
        instance: Instance,
    },
    /// An instance has said that it is about to end by itself (STOPPING=1).
    Leaving {
        /// Which.
        instance: Instance,
    },
    /// A check of the user's has another state than before.
    Checked {
        /// Its name.
        name: String,
        /// How well that is.
        state: Health,
        /// What came back.
        message: String,
        /// Where it fails, all is unhealthy.
        critical: bool,
        /// It was well when it was asked before, since the checks are asked without anybody looking.
        was_well: bool,
    },
    /// An instance uses more memory than it may.
    TooLarge {
        /// Which.
        instance: Instance,
        /// What was found, in words that follow its name.
        why: String,
    },
    /// What had begun to come to a dead generation is there.
    Left {
        /// Whose.
        generation: Generation,
        /// Connections that wait in its slots and that nobody accepts now.
        waiting: usize,
    },
    /// A deadline that `next_deadline` named has passed.
    Elapsed,
}

/// A number of instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// So many.
    To(u32),
    /// So many more, or fewer.
    By(i32),
}
