//! The outcome of what somebody asked for.

use serde::Serialize;

use super::generation::Generation;

/// The outcome of a reload, restart or stop: exit code and reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The outcome in one word.
    pub outcome: Outcome,
    /// The generation that was started for it, if one was.
    pub generation: Option<Generation>,
    /// One sentence for people.
    pub reason: String,
}

/// The outcome in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Done as asked.
    Done,
    /// It failed, and nothing serves.
    Failed,
    /// It failed, and the old generation serves on.
    Kept,
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
