//! What can happen to a supervisor.

use std::ffi::OsString;
use std::path::PathBuf;

use super::generation::{Exit, Generation, Ticket, Until};
use super::liveness::Sign;
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
    /// The command of a generation was executed.
    Spawned {
        /// Whose.
        generation: Generation,
        /// Process id of its main process.
        pid: i32,
    },
    /// The command of a generation could not be executed.
    SpawnFailed {
        /// Whose.
        generation: Generation,
        /// Which step failed and why.
        why: String,
        /// What a shell would exit with: 127 not found, 126 not executable, None for another step.
        code: Option<i32>,
    },
    /// A probe was answered, and the answer is not that it is ready.
    NotReady {
        /// Whose.
        generation: Generation,
        /// What was asked and what came back.
        answer: String,
    },
    /// The generation has proved that it can serve.
    Ready {
        /// Which.
        generation: Generation,
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
    /// What a generation wrote last; told before what becomes of it.
    Wrote {
        /// Which.
        generation: Generation,
        /// The last lines on its standard error, the oldest first.
        lines: Vec<String>,
    },
    /// The main process of a generation has ended.
    Exited {
        /// Whose.
        generation: Generation,
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
    /// A generation has said that it is not ready, or not any more (READY=0).
    Unready {
        /// Which.
        generation: Generation,
    },
    /// A generation that had said so is ready again (READY=1).
    ReadyAgain {
        /// Which.
        generation: Generation,
    },
    /// A generation has said that it is about to end by itself (STOPPING=1).
    Leaving {
        /// Which.
        generation: Generation,
    },
    /// A check of the user's has another state than before.
    Checked {
        /// Its name.
        name: String,
        /// How well that is.
        state: Health,
        /// What came back.
        message: String,
    },
    /// What had begun to come to a dead generation is there.
    Left {
        /// Whose.
        generation: Generation,
        /// Connections that wait in its slots and that nobody accepts now.
        waiting: usize,
    },
    /// Something has changed below a watched path, and nothing more for a while.
    Changed {
        /// One of those that have.
        path: PathBuf,
    },
    /// A deadline that `next_deadline` named has passed.
    Elapsed,
}
