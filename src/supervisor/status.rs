//! A picture of the supervisor for people and programs, made when somebody looks.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::generation::Generation;
use super::verdict::Verdict;

/// What a supervisor does now.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Status {
    /// What it is at, in one word.
    pub state: State,
    /// True where new connections are answered and will be.
    pub ready: bool,
    /// True once a generation has ever served.
    pub started: bool,
    /// Every generation with a living process, the newest first.
    pub generations: Vec<Seat>,
    /// The outcome of the last request.
    pub last_verdict: Option<Verdict>,
    /// How often a serving generation died.
    pub crashes: u64,
    /// What is wrong with the serving generation, in words that follow its name.
    #[serde(skip)]
    pub trouble: Option<String>,
}

/// How well something is; the worst wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Health {
    /// All is as it should be.
    Healthy,
    /// It works, but somebody should look.
    Degraded,
    /// It does not work.
    Unhealthy,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        })
    }
}

/// What a supervisor is at, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The first generation is not ready yet.
    Starting,
    /// A generation serves.
    Serving,
    /// A generation serves and its successor starts.
    Reloading,
    /// Nothing serves; connections wait.
    Waiting,
    /// It is ending.
    Stopping,
}

/// A generation in its seat.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(clippy::struct_field_names, reason = "`seat` is the word of the JSON")]
pub struct Seat {
    /// Which.
    pub generation: Generation,
    /// Where it sits.
    pub seat: SeatName,
    /// Its main process.
    pub pid: Option<i32>,
    /// How long it has sat there, in seconds.
    pub since_secs: f64,
    /// What it runs.
    pub command: Vec<String>,
}

/// The three seats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SeatName {
    /// Not ready yet.
    Starting,
    /// Gets the new connections.
    Serving,
    /// Finishes what is open.
    Draining,
}

pub(super) fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e3).round() / 1e3
}
