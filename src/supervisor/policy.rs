//! What the rules need to know of the settings, and the back-off.

use std::fmt;
use std::time::Duration;

/// What the rules are asked to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How long a generation may take to be ready.
    pub ready_timeout: Duration,
    /// How long an old generation may take to be quiet, and then to end.
    pub drain_timeout: Duration,
    /// How long the old generation is kept unsignalled, so that it can have the connections back.
    pub bake: Duration,
    /// How long the old generation is kept warm for a rollback, at the most.
    pub bake_keep: Duration,
    /// How long readiness says no before a stop begins.
    pub lame_duck: Duration,
    /// How many instances a generation has.
    pub instances: u32,
    /// How many of a new generation are started at a time; None for all at once.
    pub surge: Option<u32>,
    /// Whether they take connections from one queue.
    pub queue: QueueMode,
    /// When an instance that has ended is started again.
    pub restart: Restart,
    /// How often, before zdr gives it up; None for ever.
    pub max_restarts: Option<Budget>,
    /// An instance that was up this long has not failed at its start.
    pub min_uptime: Duration,
    /// After what time an instance is replaced, if it is.
    pub max_lifetime: Option<Lifetime>,
    /// When commands of the user's run.
    pub hooks: Vec<Hook>,
    /// Files are watched, and a change of them is a reload.
    pub watched: bool,
}

/// Whose queue new connections wait in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QueueMode {
    /// That of the generation: whoever is free takes the next.
    Shared,
    /// That of one instance each: the kernel spreads them evenly.
    PerInstance,
}

/// When an instance that has ended is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// However it ended.
    Always,
    /// When its exit code was not 0, or a signal ended it.
    OnFailure,
    /// Never.
    Never,
}

/// How many restarts may be in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// So many.
    pub restarts: u32,
    /// In this time.
    pub window: Duration,
}

/// How long an instance lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// So long.
    pub time: Duration,
    /// How far that is changed by chance, so that not all are replaced at once.
    pub jitter: Duration,
}

/// When a command of the user's runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Before a generation starts.
    BeforeStart,
    /// When it is ready, before it gets connections; a failure keeps the old one.
    BeforeCutOver,
    /// When it serves.
    AfterServing,
    /// When the old one is gone.
    AfterDrain,
}

impl Hook {
    /// All of them, in the order of a reload.
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

/// Failures in a row with nothing ever served after which zdr gives up, so that whoever started it sees it.
pub(super) const FAILURES_AT_BOOT: u32 = 5;

/// A generation that served this long starts the back-off afresh.
pub(super) const STEADY: Duration = Duration::from_secs(10);

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How long to wait before the next try after so many failures in a row: none, 100 ms, 200 ms, … 10 s.
pub(super) fn pause(failures: u32) -> Duration {
    match failures {
        0 => Duration::ZERO,
        _ => FIRST_PAUSE.saturating_mul(1 << (failures - 1).min(16)).min(LONGEST_PAUSE),
    }
}
