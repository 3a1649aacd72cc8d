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
    /// Counts the configurations; that of the generation that serves, or served last.
    pub config_version: u64,
    /// How long new connections are held at most from now on, in seconds; None where they are not.
    pub paused_secs: Option<f64>,
    /// What a rollback would go to.
    pub rollback: Option<Goal>,
    /// Every generation with a living process, the newest first.
    pub generations: Vec<Seat>,
    /// The outcome of the last request.
    pub last_verdict: Option<Verdict>,
    /// How often an instance died while it served.
    pub crashes: u64,
    /// What is wrong with the serving generation, in words that follow its name.
    #[serde(skip)]
    pub trouble: Option<String>,
}

/// What a rollback would go to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Goal {
    /// The generation that served before.
    pub generation: Generation,
    /// It still runs, and gets the connections back at once.
    pub warm: bool,
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
    /// Its instances, by number.
    pub instances: Vec<SeatedInstance>,
    /// Which configuration it was started with.
    pub config_version: u64,
    /// What it runs.
    pub command: Vec<String>,
}

/// An instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SeatedInstance {
    /// Its number.
    pub instance: u32,
    /// What it does.
    pub state: InstanceState,
    /// Its main process.
    pub pid: Option<i32>,
}

/// What an instance does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// It is to be started, after a pause or when its turn comes.
    Waiting,
    /// It is not ready yet.
    Starting,
    /// It is ready, and others of its generation are not.
    Ready,
    /// It gets new connections.
    Serving,
    /// It finishes what is open.
    Draining,
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
