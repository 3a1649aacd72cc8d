//! The outcome of what somebody asked for.

use serde::Serialize;

use super::generation::Generation;

/// The outcome of a reload, restart or stop: exit code and reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The outcome in one word.
    pub outcome: Outcome,
    /// What led to it, in one word.
    pub cause: Cause,
    /// The generation that was started for it, if one was.
    pub generation: Option<Generation>,
    /// One sentence for people.
    pub reason: String,
    /// The last lines that a generation that failed wrote to its standard error, the oldest first.
    pub output: Vec<String>,
}

/// The outcome in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Done as asked.
    Done,
    /// It failed; what serves, if anything does, is told by the reason.
    Failed,
    /// It failed, and the old generation serves on.
    Kept,
}

/// What led to an outcome, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The new generation proved that it can serve.
    Ready,
    /// The old generation is gone as well.
    Drained,
    /// zdr ends, as asked.
    Stopped,
    /// The command could not be executed.
    NotStarted,
    /// It ended before it was ready.
    Exited,
    /// It was not ready in time.
    TimedOut,
    /// It died after it had been ready.
    Crashed,
    /// zdr was ending when it was asked.
    Stopping,
    /// What was asked for, or the configuration, cannot be had.
    Refused,
    /// A command of the user's said no, or failed.
    Hook,
    /// It was stuck.
    Stuck,
    /// A critical check failed.
    Unhealthy,
    /// It was started again too often.
    Exhausted,
    /// The generation before serves again.
    RolledBack,
    /// There are as many instances as were asked for.
    Scaled,
    /// New connections wait.
    Paused,
    /// New connections wait no longer.
    Resumed,
    /// Somebody asked for something else meanwhile.
    Superseded,
}

impl Outcome {
    /// What a client command exits with.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Kept => 3,
        }
    }
}

impl Verdict {
    /// One about zdr itself rather than about a generation.
    pub(super) fn of_zdr(outcome: Outcome, cause: Cause, reason: &str) -> Self {
        Self { outcome, cause, generation: None, reason: reason.to_owned(), output: Vec::new() }
    }

    /// One about a generation that is well.
    pub(super) fn of_generation(cause: Cause, generation: Generation, reason: String) -> Self {
        Self { outcome: Outcome::Done, cause, generation: Some(generation), reason, output: Vec::new() }
    }
}
