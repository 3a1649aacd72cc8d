//! What the load client found: counts, latencies and the first few failures in words. It never prints.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Enough failures in words to see what went on; the counts tell the rest.
const TRACES: usize = 8;

/// What became of all requests, by kind of client.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Requests over a new connection each.
    pub new_connection: Tally,
    /// Requests over connections kept alive.
    pub keep_alive: Tally,
}

/// The two kinds of client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    NewConnection,
    KeepAlive,
}

/// What became of the requests of one kind of client.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Requests answered whole, in time, with a 2xx status.
    pub ok: u64,
    /// Requests that were not, by what happened; a kind that did not happen is not in it.
    pub failures: BTreeMap<Failure, u64>,
    /// Requests that crossed the server's closing of an idle connection and were sent once more over a fresh one. RFC 9112 §9.3.1
    /// lets any client do so, and no server can avoid it. If that failed as well, it is a failure too.
    pub closed_idle: u64,
    /// Answers with a 2xx status by the generation in their `X-Generation` header.
    pub by_generation: BTreeMap<u64, u64>,
    /// Latencies of requests that no reload touched.
    pub steady: Latencies,
    /// Latencies of requests that were under way during a reload.
    pub reload: Latencies,
    /// The first failures.
    pub traces: Vec<Trace>,
}

/// How long requests took, each one kept: a load is bounded, and four bytes tell the whole truth.
#[derive(Debug, Clone, Default)]
pub struct Latencies(Vec<u32>);

/// Why a request was not answered well.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Failure {
    /// Nobody listened.
    Refused,
    /// The connection was reset before the first byte of an answer.
    Reset,
    /// The connection was closed in good order, with no answer.
    Closed,
    /// The connection was closed or reset within the answer.
    Short,
    /// There was no whole answer in time.
    Late,
    /// The status was not 2xx.
    Status,
    /// What came was not HTTP.
    Garbage,
    /// This machine could not open the connection: out of ports or of descriptors.
    Unsent,
}

/// One failure in words.
#[derive(Debug, Clone)]
pub struct Trace {
    /// When, from the start of the load.
    pub at: Duration,
    /// Its kind.
    pub failure: Failure,
    /// What exactly was seen.
    pub text: String,
}

impl Report {
    /// Requests that failed.
    pub fn failed(&self) -> u64 {
        self.new_connection.failed() + self.keep_alive.failed()
    }

    /// Adds what one client found.
    pub(super) fn add(&mut self, kind: Kind, found: Tally) {
        match kind {
            Kind::NewConnection => self.new_connection.add(found),
            Kind::KeepAlive => self.keep_alive.add(found),
        }
    }
}

impl Tally {
    /// Requests that failed.
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }

    pub(super) fn answered(&mut self, latency: Duration, touched_by_reload: bool, generation: Option<u64>) {
        self.ok += 1;
        if touched_by_reload { &mut self.reload } else { &mut self.steady }.record(latency);
        if let Some(generation) = generation {
            *self.by_generation.entry(generation).or_default() += 1;
        }
    }

    pub(super) fn lost(&mut self, trace: Trace) {
        *self.failures.entry(trace.failure).or_default() += 1;
        if self.traces.len() < TRACES {
            self.traces.push(trace);
        }
    }

    fn add(&mut self, other: Self) {
        self.ok += other.ok;
        self.closed_idle += other.closed_idle;
        for (failure, count) in other.failures {
            *self.failures.entry(failure).or_default() += count;
        }
        for (generation, count) in other.by_generation {
            *self.by_generation.entry(generation).or_default() += count;
        }
        self.steady.add(&other.steady);
        self.reload.add(&other.reload);
        self.traces.extend(other.traces);
        self.traces.sort_by_key(|trace| trace.at);
        self.traces.truncate(TRACES);
    }
}

impl Latencies {
    /// Adds one, to the microsecond.
    pub fn record(&mut self, latency: Duration) {
        self.0.push(u32::try_from(latency.as_micros()).unwrap_or(u32::MAX));
    }

    /// Adds those that another has.
    pub fn add(&mut self, other: &Self) {
        self.0.extend(&other.0);
    }

    /// How many there are.
    #[cfg(test)]
    pub fn len(&self) -> u64 {
        self.0.len() as u64
    }

    /// The latencies within which these shares of the requests were answered; None where there were none.
    pub fn within<const N: usize>(&self, shares: [f64; N]) -> Option<[Duration; N]> {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let last = sorted.len().checked_sub(1)?;
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of a count"
        )]
        let place = |share: f64| (last as f64 * share.clamp(0.0, 1.0)) as usize;
        Some(shares.map(|share| Duration::from_micros(sorted[place(share)].into())))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "refused",
            Self::Reset => "reset before the answer",
            Self::Closed => "closed without an answer",
            Self::Short => "cut within the answer",
            Self::Late => "late",
            Self::Status => "wrong status",
            Self::Garbage => "not HTTP",
            Self::Unsent => "could not be sent",
        })
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {:.3}s {}: {}", self.at.as_secs_f64(), self.failure, self.text)
    }
}

/// A claim that nothing failed reads well in a test's panic: `assert!(report.failed() == 0, "{report}")`.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, tally) in [("new connection", &self.new_connection), ("keep-alive", &self.keep_alive)] {
            writeln!(f, "{kind}: {} ok, {} failed, {} retried", tally.ok, tally.failed(), tally.closed_idle)?;
            for (failure, count) in &tally.failures {
                writeln!(f, "  {count} {failure}")?;
            }
            for trace in &tally.traces {
                writeln!(f, "  {trace}")?;
            }
        }
        Ok(())
    }
}
