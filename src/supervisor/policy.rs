//! What the rules need to know of the settings, and the back-off.

use std::time::Duration;

/// The times that the rules keep.
#[derive(Clone, Debug)]
pub struct Policy {
    /// How long a generation may take to be ready.
    pub ready_timeout: Duration,
    /// How long an old generation may take to be quiet, and then to end.
    pub drain_timeout: Duration,
    /// How long the old generation is kept unsignalled, so that it can have the connections back.
    pub bake: Duration,
    /// How long readiness says no before a stop begins.
    pub lame_duck: Duration,
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
