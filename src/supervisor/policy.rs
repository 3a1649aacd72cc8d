//! What the rules need to know of the settings, and the back-off.

use std::ffi::OsString;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::generation::{Exit, Generation};

/// What the rules keep to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How long an instance may take to be ready.
    pub ready_timeout: Duration,
    /// How long an old generation may take to be quiet, and then to end.
    pub drain_timeout: Duration,
    /// How long a new release is on trial.
    pub bake: Duration,
    /// How long the old generation is kept unsignalled, so that it can have the connections back.
    pub bake_keep: Duration,
    /// How long readiness says no before a stop begins.
    pub lame_duck: Duration,
    /// How many instances a generation has.
    pub instances: u32,
    /// How many of them start at a time; None for all.
    pub surge: Option<u32>,
    /// How what is new comes to them.
    pub queue: QueueMode,
    /// Which instances that end are started again.
    pub restart: Restart,
    /// How many may be started again in some time; None for any number.
    pub max_restarts: Option<Budget>,
    /// One that served this long starts the back-off afresh.
    pub min_uptime: Duration,
    /// After what time a generation is replaced.
    pub max_lifetime: Option<Lifetime>,
    /// When commands of the user's are run.
    pub hooks: Vec<Hook>,
    /// A change of files starts a new generation: where nothing serves, that is waited for.
    pub watched: bool,
}

/// How what is new comes to the instances of a generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum QueueMode {
    /// They have one queue, and whoever is free takes the next.
    #[default]
    Shared,
    /// Each has its own, and what is new is spread over them.
    PerInstance,
}

/// Which instances that end are started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Restart {
    /// All.
    #[default]
    Always,
    /// Those that end with another code than 0, or by a signal.
    OnFailure,
    /// None.
    Never,
}

/// How many restarts there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// So many,
    pub restarts: u32,
    /// in so much time.
    pub window: Duration,
}

/// How long a generation lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// At least so long,
    pub time: Duration,
    /// and up to so much longer, so that not all machines replace theirs at once.
    pub jitter: Duration,
}

/// When a command of the user's is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hook {
    /// Before a generation is started.
    BeforeStart,
    /// Once it is ready, before anything new goes to it.
    BeforeCutOver,
    /// Once it serves.
    AfterServing,
    /// Once it has drained and is gone.
    AfterDrain,
}

impl Hook {
    /// All of them, in the order in which they are run.
    pub const ALL: [Self; 4] = [Self::BeforeStart, Self::BeforeCutOver, Self::AfterServing, Self::AfterDrain];
}

impl fmt::Display for Hook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::BeforeStart => "before-start",
            Self::BeforeCutOver => "before-cut-over",
            Self::AfterServing => "after-serving",
            Self::AfterDrain => "after-drain",
        })
    }
}

impl Restart {
    /// Whether one that ended so is started again.
    pub(super) fn wants(self, exit: Exit) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => exit != Exit::Code(0),
            Self::Never => false,
        }
    }
}

/// What a generation is started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// Somebody asked for this command, so that it stays whatever the settings say.
    pub command_was_given: bool,
    /// Counts the configurations; the first is 1.
    pub config_version: u64,
    /// What the rules keep to.
    pub policy: Policy,
    /// What of the settings has no effect before zdr is started again, in sentences.
    pub unapplied: Vec<String>,
}

/// From what a generation is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The settings are read afresh. A command that is given now wins, and one that was given before until the settings
    /// have another one.
    Fresh(Option<Vec<OsString>>),
    /// The settings of the last one that served, or else the first ones; what they name is looked up afresh.
    Again,
    /// As this generation was.
    Like(Generation),
}

/// Failures in a row with nothing ever served after which zdr gives up, so that whoever started it sees it.
pub(super) const FAILURES_AT_BOOT: u32 = 5;

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How long to wait before the next try after so many failures in a row: none, 100 ms, 200 ms, … 10 s.
pub(super) fn pause(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        _ => FIRST_PAUSE.saturating_mul(1 << (failures - 1).min(16)).min(LONGEST_PAUSE),
    }
}
