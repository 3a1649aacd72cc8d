//! What every row of the matrix goes through: start, five reloads and a bad release under strict load, a crash, a stop.
//!
//! A promise that does not hold is a panic that says which. It knows no server by name.

use std::fmt;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::exchange::{Exchange, Target};
use crate::harness::{DEADLINE, Zdr, in_seat, wait_for};
use crate::load::report::{Failure, Report, Tally};
use crate::load::{Load, Shape};
use crate::rows::{Mode, Row, Speaks, Staged};

const RELOADS: u64 = 5;

/// Clients of each of the two kinds.
const CLIENTS: usize = 4;

/// A request that takes longer is lost.
const LATE: Duration = Duration::from_secs(5);

/// Requests that must be answered between two events.
const SOME: u64 = 60;

/// What a row came to.
#[derive(Debug)]
pub struct Figures {
    pub label: String,
    pub version: String,
    pub drain_signal: String,
    pub new: Counts,
    pub kept: Counts,
    /// From the reload's request to its verdict, the median.
    pub ready: Duration,
    /// Requests that a killed server took with it.
    pub crash: u64,
}

/// Requests of one kind of client.
#[derive(Debug, Clone, Copy)]
pub struct Counts {
    pub ok: u64,
    pub failed: u64,
    /// Sent again after they crossed the closing of an idle connection.
    pub again: u64,
}

/// Puts a row through everything.
pub fn trial(row: &Row) -> Figures {
    let Staged { setup, bad_release, target } = row.stage();
    let setup = setup.option("--bake", "0s").option("--drain-idle", "1s").option("--drain-timeout", "10s");
    let zdr = setup.start();
    let (new, kept, ready) = reloads(row, &zdr, &target, &bad_release);
    let crash = crash(row, &zdr, &target);
    stop(zdr, &target);
    let (label, version, drain_signal) = (row.label(), row.version(), row.mode.drain_signal.clone());
    Figures { label, version, drain_signal, new, kept, ready, crash }
}

/// Load of the kind that the server understands.
#[derive(Debug)]
enum Traffic {
    Http(Load),
    Other(Exchange),
}

impl Traffic {
    fn start(row: &Row, target: &Target, keep_alive_clients: usize) -> Self {
        let Mode { speaks, rate, .. } = row.mode;
        match (speaks, target) {
            (Speaks::Http, Target::Tcp(address)) => {
                let (new_connection_clients, rate_per_client, path) = (CLIENTS, Some(rate), "/".to_owned());
                let shape = Shape { new_connection_clients, keep_alive_clients, rate_per_client, path, limit: LATE };
                Self::Http(Load::start(*address, &shape).unwrap())
            }
            _ => Self::Other(Exchange::start(target, speaks, (CLIENTS, keep_alive_clients), rate, LATE)),
        }
    }

    fn answers(&self) -> bool {
        match self {
            Self::Http(load) => load.wait_for_answers(SOME, DEADLINE),
            Self::Other(load) => load.wait_for_answers(SOME, DEADLINE),
        }
    }

    fn is_answered_by(&mut self, generation: u64) -> bool {
        match self {
            Self::Http(load) => load.wait_for_answer_of(|by| by == generation, DEADLINE).is_some(),
            Self::Other(load) => load.wait_for_answer_of(generation, DEADLINE),
        }
    }

    fn stop(self) -> Report {
        match self {
            Self::Http(load) => load.stop(),
            Self::Other(load) => load.stop(),
        }
    }
}

fn reloads(row: &Row, zdr: &Zdr, target: &Target, bad_release: &[String]) -> (Counts, Counts, Duration) {
    let mut load = Traffic::start(row, target, CLIENTS);
    let mut times = Vec::new();
    for generation in 2..2 + RELOADS {
        assert!(load.answers(), "generation {} answers nobody:\n{}", generation - 1, load.stop());
        let asked = Instant::now();
        let told = zdr.reload();
        times.push(asked.elapsed());
        if let Some(why) = &row.mode.no_second {
            assert_eq!(told.code, 3, "{why}, and yet: {told:?}");
            assert_eq!(zdr.serving(), Some(1));
            continue;
        }
        assert_eq!(told.code, 0, "{told:?}");
        assert_eq!(zdr.serving(), Some(generation));
        let answered = !row.mode.tells_generation || load.is_answered_by(generation);
        assert!(answered, "generation {generation} answered nobody:\n{}", load.stop());
    }
    let (serving, told) = (zdr.serving(), zdr.reload_to(bad_release));
    assert_eq!(told.code, 3, "of a bad release: {told:?}");
    assert_eq!(zdr.serving(), serving, "after a bad release");
    zdr.wait_until("the old ones to drain", |status| in_seat(status, "draining").is_none());
    assert!(load.answers(), "no answers at the end:\n{}", load.stop());
    let report = load.stop();
    let (new, kept) = (report.new_connection.failed(), report.keep_alive.failed());
    assert!(new == 0 || row.mode.loses_new.is_some(), "a new connection was lost:\n{report}");
    // Whatever a server does to the connections that it has when it ends, each can be lost only once by that.
    let excused = if row.mode.loses_kept.is_some() { CLIENTS as u64 * (RELOADS + 1) } else { 0 };
    assert!(kept <= excused, "a kept-alive connection was lost:\n{report}");
    times.sort();
    (Counts::of(&report.new_connection), Counts::of(&report.keep_alive), times[times.len() / 2])
}

/// Kills the main process and returns how many requests went with it: no more than clients had one under way.
fn crash(row: &Row, zdr: &Zdr, target: &Target) -> u64 {
    let load = Traffic::start(row, target, 0);
    assert!(load.answers(), "no answers before the crash:\n{}", load.stop());
    let serving = zdr.serving();
    kill(Pid::from_raw(zdr.server_pid()), Signal::SIGKILL).unwrap();
    zdr.wait_until("the next one to serve", |status| in_seat(status, "serving") > serving);
    assert!(load.answers(), "no answers after the crash:\n{}", load.stop());
    let report = load.stop();
    if row.mode.crash_cuts.is_some() {
        let refused = report.new_connection.failures.contains_key(&Failure::Refused);
        assert!(!refused, "a crash made it refuse:\n{report}");
        return report.failed();
    }
    let cut = |failure: &Failure| matches!(failure, Failure::Reset | Failure::Closed | Failure::Short);
    assert!(report.new_connection.failures.keys().all(cut), "a crash did more than to cut:\n{report}");
    assert!(report.failed() <= 2 * CLIENTS as u64, "a crash cut more than was under way:\n{report}");
    report.failed()
}

fn stop(mut zdr: Zdr, target: &Target) {
    let told = zdr.client(&["stop"]);
    assert_eq!(told.code, 0, "{told:?}");
    assert_eq!(zdr.ended().code(), Some(0));
    wait_for("the last process to be gone", || zdr.processes().is_empty().then_some(()));
    // Not every server can be found by its environment; none of them gives up its listener while it lives.
    let somebody_listens = match target {
        Target::Tcp(address) => TcpStream::connect(address).is_ok(),
        Target::Unix(path) => UnixStream::connect(path).is_ok(),
    };
    assert!(!somebody_listens, "somebody listens at {target:?} after the end");
}

impl Counts {
    fn of(tally: &Tally) -> Self {
        Self { ok: tally.ok, failed: tally.failed(), again: tally.closed_idle }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { label, version, drain_signal, new, kept, ready, crash } = self;
        write!(f, "{label} ({version}), {drain_signal}: new connections {new}; keep-alive {kept}; ")?;
        write!(f, "ready after {} ms; crash cut {crash}", ready.as_millis())
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ok, {} failed, {} again", self.ok, self.failed, self.again)
    }
}
