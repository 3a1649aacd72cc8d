//! The metrics: counters and histograms folded from the story while it is told, and gauges made when somebody asks.
//!
//! Decides nothing, and computes nothing while nobody scrapes: the registry is made for one answer and dropped with it.
//! No label names a process or a generation, so that the number of series is bounded by what was configured.

mod accept;
mod classic;
mod moment;
mod process;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use serde::Serialize;

pub use self::accept::Format;
use self::moment::{Moment, TreeTime};
use super::admin::Report;
use crate::supervisor::{Cause, Generation, News, Outcome, Verdict, Why};

/// How a reload can end: every one of these is there from the start, because a counter that appears with its first event
/// hides that event from `rate`.
const OUTCOMES: [(Outcome, Cause); 13] = [
    (Outcome::Done, Cause::Ready),
    (Outcome::Done, Cause::RolledBack),
    (Outcome::Kept, Cause::NotStarted),
    (Outcome::Kept, Cause::Exited),
    (Outcome::Kept, Cause::TimedOut),
    (Outcome::Kept, Cause::Crashed),
    (Outcome::Kept, Cause::Refused),
    (Outcome::Kept, Cause::Hook),
    (Outcome::Kept, Cause::Superseded),
    (Outcome::Failed, Cause::NotStarted),
    (Outcome::Failed, Cause::Exited),
    (Outcome::Failed, Cause::TimedOut),
    (Outcome::Failed, Cause::Hook),
];

/// How a start can fail.
const FAILURES: [Cause; 5] = [Cause::NotStarted, Cause::Exited, Cause::TimedOut, Cause::Hook, Cause::Superseded];

/// What generations are started for.
const STARTS: [Why; 13] = [
    Why::Boot,
    Why::Reload,
    Why::Restart,
    Why::Crash,
    Why::Retry,
    Why::Stuck,
    Why::Leaving,
    Why::Finish,
    Why::Change,
    Why::Rollback,
    Why::Scale,
    Why::Memory,
    Why::Lifetime,
];

/// In seconds: servers are ready after milliseconds, or after a minute of warming up.
const START_BUCKETS: [f64; 13] = [0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0];

/// In seconds: a few system calls.
const CUT_OVER_BUCKETS: [f64; 12] = [5e-6, 1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 1e-1];

/// In seconds: from servers that end at once to connections of hours.
const DRAIN_BUCKETS: [f64; 12] = [0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 1800.0, 7200.0];

type Words<const N: usize> = [(&'static str, String); N];

/// What was counted, shared by the one who counts and those who answer scrapes.
#[derive(Clone, Debug)]
pub struct Counted {
    reloads: Family<Words<2>, Counter>,
    succeeded: Gauge,
    success_at: Gauge<f64, AtomicU64>,
    attempt_at: Gauge<f64, AtomicU64>,
    starts: Family<Words<1>, Counter>,
    failures: Family<Words<1>, Counter>,
    kills: Counter,
    lost: Counter,
    start: Histogram,
    cut_over: Histogram,
    drain: Histogram,
    tree_time: TreeTime,
}

/// Folds the story.
#[derive(Debug, Default)]
pub struct Metrics {
    counted: Counted,
    /// What those that live were started for.
    begun: HashMap<Generation, Why>,
    /// Somebody had asked for the one that has died, and none has served since.
    dead_was_asked: bool,
    /// Those that have had connections, and live.
    used: HashSet<Generation>,
}

impl Metrics {
    /// What was counted so far.
    pub fn counted(&self) -> &Counted {
        &self.counted
    }

    /// Takes in a line of the story.
    ///
    /// A reload counts when its generation serves, or when it is given up. One whose generation died in its bake time, so
    /// that the one before has the connections back, counts once more then, as kept: a counter takes nothing back. To go
    /// back is no success of what was tried, but for whoever asked for it.
    pub fn tell(&mut self, news: &News, at: SystemTime) {
        let counted = &self.counted;
        match news {
            // Of several instances the first one is the start of their generation.
            News::Spawned { generation, why, .. } if !self.begun.contains_key(generation) => {
                counted.starts.get_or_create_owned(&reason(*why)).inc();
                self.begun.insert(*generation, *why);
                if *why == Why::Finish {
                    self.used.insert(*generation);
                }
                if *why == Why::Rollback && std::mem::take(&mut self.dead_was_asked) {
                    counted.reloaded(Outcome::Kept, Cause::Crashed);
                }
            }
            News::Serving { generation, after } => {
                self.dead_was_asked = false;
                self.used.insert(*generation);
                counted.start.observe(after.as_secs_f64());
                let why = self.begun.get(generation).copied();
                counted.attempted(at, why != Some(Why::Rollback));
                if why.is_some_and(is_asked_for) {
                    counted.reloaded(Outcome::Done, Cause::Ready);
                }
            }
            News::Failed { generation, cause, .. } => {
                self.begun.remove(generation);
                counted.failures.get_or_create_owned(&reason(*cause)).inc();
                counted.attempted(at, false);
            }
            News::Verdict(Verdict { outcome: Outcome::Done, cause: Cause::RolledBack, .. }) => {
                counted.reloaded(Outcome::Done, Cause::RolledBack);
                counted.attempted(at, true);
            }
            News::Verdict(Verdict { outcome, cause, .. })
                if OUTCOMES.contains(&(*outcome, *cause)) && !matches!(cause, Cause::Ready | Cause::Crashed) =>
            {
                counted.reloaded(*outcome, *cause);
            }
            News::Returned { .. } => {
                counted.attempted(at, false);
                if std::mem::take(&mut self.dead_was_asked) {
                    counted.reloaded(Outcome::Kept, Cause::Crashed);
                }
            }
            News::Killed { .. } => {
                counted.kills.inc();
            }
            News::InstanceLost { .. } => {
                counted.lost.inc();
            }
            News::Crashed { generation, .. } => {
                self.used.remove(generation);
                self.dead_was_asked = self.begun.remove(generation).is_some_and(is_asked_for);
            }
            News::Ended { generation, after, .. } => {
                self.begun.remove(generation);
                if self.used.remove(generation) {
                    counted.drain.observe(after.as_secs_f64());
                }
            }
            _ => {}
        }
    }
}

impl Counted {
    /// New connections were moved, which took this long.
    pub fn cut_over(&self, took: Duration) {
        self.cut_over.observe(took.as_secs_f64());
    }

    fn attempted(&self, at: SystemTime, well: bool) {
        let since_epoch = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let seconds = (since_epoch.as_secs_f64() * 1e3).round() / 1e3;
        self.attempt_at.set(seconds);
        self.succeeded.set(i64::from(well));
        if well {
            self.success_at.set(seconds);
        }
    }

    fn reloaded(&self, outcome: Outcome, cause: Cause) {
        self.reloads.get_or_create_owned(&outcome_and_reason(outcome, cause)).inc();
    }

    /// The text of an answer: what was counted, and how things are at this moment.
    pub fn scrape(&self, report: Report, format: Format) -> String {
        let mut registry = Registry::default();
        self.register(&mut registry);
        registry.register_collector(Box::new(Moment::new(report, &self.tree_time)));
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _ = encode(&mut text, &registry);
        match format {
            Format::OpenMetrics => text,
            Format::Classic => classic::classic(&text),
        }
    }

    fn register(&self, registry: &mut Registry) {
        registry.register(
            "zdr_reloads",
            "Reloads, restarts and rollbacks that were asked for, by outcome and reason",
            self.reloads.clone(),
        );
        registry.register(
            "zdr_reload_last_success",
            "Whether the generation that was tried last came to serve and stayed",
            self.succeeded.clone(),
        );
        registry.register_with_unit(
            "zdr_reload_last_success_timestamp",
            "When a generation last came to serve, in Unix time",
            Unit::Seconds,
            self.success_at.clone(),
        );
        registry.register_with_unit(
            "zdr_reload_last_attempt_timestamp",
            "When a generation last came to serve or failed to, in Unix time",
            Unit::Seconds,
            self.attempt_at.clone(),
        );
        registry.register_with_unit(
            "zdr_start_duration",
            "From the start of a generation until it was ready",
            Unit::Seconds,
            self.start.clone(),
        );
        registry.register_with_unit(
            "zdr_cut_over_duration",
            "What moving the new connections of all listeners took",
            Unit::Seconds,
            self.cut_over.clone(),
        );
        registry.register_with_unit(
            "zdr_drain_duration",
            "From when a generation got no new connections until its end",
            Unit::Seconds,
            self.drain.clone(),
        );
        registry.register("zdr_starts", "Generations started, by what for", self.starts.clone());
        registry.register(
            "zdr_start_failures",
            "Generations that did not become ready, by reason",
            self.failures.clone(),
        );
        registry.register(
            "zdr_kills",
            "Generations that zdr killed, most of them because their time had run out",
            self.kills.clone(),
        );
        registry.register(
            "zdr_instances_lost",
            "Instances that were gone while others of their generation served",
            self.lost.clone(),
        );
    }
}

impl Default for Counted {
    fn default() -> Self {
        let counted = Self {
            reloads: Family::default(),
            succeeded: Gauge::default(),
            success_at: Gauge::default(),
            attempt_at: Gauge::default(),
            starts: Family::default(),
            failures: Family::default(),
            kills: Counter::default(),
            lost: Counter::default(),
            start: Histogram::new(START_BUCKETS),
            cut_over: Histogram::new(CUT_OVER_BUCKETS),
            drain: Histogram::new(DRAIN_BUCKETS),
            tree_time: TreeTime::default(),
        };
        for (outcome, cause) in OUTCOMES {
            counted.reloads.get_or_create_owned(&outcome_and_reason(outcome, cause));
        }
        for cause in FAILURES {
            counted.failures.get_or_create_owned(&reason(cause));
        }
        for why in STARTS {
            counted.starts.get_or_create_owned(&reason(why));
        }
        counted
    }
}

/// True for what a generation is started for at somebody's wish, in which one of another release may be.
fn is_asked_for(why: Why) -> bool {
    matches!(why, Why::Reload | Why::Restart | Why::Change)
}

/// The word that JSON has for it.
fn word(of: impl Serialize) -> String {
    serde_json::to_value(of).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn reason(of: impl Serialize) -> Words<1> {
    [("reason", word(of))]
}

fn outcome_and_reason(outcome: Outcome, cause: Cause) -> Words<2> {
    [("outcome", word(outcome)), ("reason", word(cause))]
}
