//! The client's own time: what is left of a limit, and what has passed. It has no part in the clock of the rules.

#![expect(clippy::disallowed_methods, reason = "a client has its own time limits, and no part in the rules' clock")]

use std::time::{Duration, Instant};

/// A time limit of the user's.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience(Option<Instant>);

impl Patience {
    pub(super) fn of(limit: Option<Duration>) -> Self {
        // One that is past the end of time is none.
        Self(limit.and_then(|limit| Instant::now().checked_add(limit)))
    }

    /// What is left; None without a limit, zero when it has passed.
    pub(super) fn left(self) -> Option<Duration> {
        self.0.map(|end| end.saturating_duration_since(Instant::now()))
    }

    pub(super) fn is_over(self) -> bool {
        self.left() == Some(Duration::ZERO)
    }
}

/// What has passed since something began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopwatch(Instant);

impl Stopwatch {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn elapsed(self) -> Duration {
        self.0.elapsed()
    }
}
