//! Health in the words that probes and people expect: full, live, ready, startup.

use std::collections::BTreeMap;

use serde::Serialize;
use tokio::task::spawn_blocking;

use crate::edges::notice::Picture;
use crate::edges::quiesce::{Count, count};
use crate::supervisor::{Generation, Outcome, SeatName, State};

/// Under which paths health is answered.
#[derive(Clone, Debug)]
pub struct HealthPaths(pub Vec<String>);

impl Default for HealthPaths {
    fn default() -> Self {
        Self(vec!["/health".to_owned(), "/_health".to_owned()])
    }
}

/// Which question was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aspect {
    Full,
    Live,
    Ready,
    Startup,
    Stream,
}

impl HealthPaths {
    pub(super) fn aspect(&self, path: &str) -> Option<Aspect> {
        match path {
            "/livez" => return Some(Aspect::Live),
            "/readyz" => return Some(Aspect::Ready),
            "/healthz" => return Some(Aspect::Full),
            _ => {}
        }
        self.0.iter().find_map(|prefix| match path.strip_prefix(prefix.as_str())? {
            "" | "/" => Some(Aspect::Full),
            "/live" => Some(Aspect::Live),
            "/ready" => Some(Aspect::Ready),
            "/startup" => Some(Aspect::Startup),
            "/$stream" => Some(Aspect::Stream),
            _ => None,
        })
    }
}

/// How well something is; the worst wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Health {
    Healthy,
    Degraded,
    Unhealthy,
}

/// The full answer.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) status: Health,
    live: bool,
    ready: bool,
    /// Requests in flight in every generation, as the kernel sees them.
    in_flight: usize,
    /// Open connections of every generation.
    connections: usize,
    uptime_secs: f64,
    generation: Option<Generation>,
    state: State,
    draining: usize,
    checks: BTreeMap<&'static str, Check>,
}

#[derive(Debug, Serialize)]
struct Check {
    state: Health,
    message: String,
}

impl Report {
    /// Counts the connections, so it is only made when somebody looks.
    pub(super) async fn make(picture: &Picture) -> Self {
        let checks = checks(picture);
        let in_flight = in_flight(picture).await;
        let seats = &picture.status.generations;
        Self {
            status: checks.values().map(|check| check.state).max().unwrap_or(Health::Healthy),
            live: true,
            ready: picture.status.ready,
            in_flight: in_flight.busy,
            connections: in_flight.open,
            uptime_secs: picture.uptime_secs,
            generation: serving(picture),
            state: picture.status.state,
            draining: seats.iter().filter(|seat| seat.seat == SeatName::Draining).count(),
            checks,
        }
    }
}

fn serving(picture: &Picture) -> Option<Generation> {
    let seats = &picture.status.generations;
    seats.iter().find(|seat| seat.seat == SeatName::Serving).map(|seat| seat.generation)
}

fn checks(picture: &Picture) -> BTreeMap<&'static str, Check> {
    let status = &picture.status;
    let (state, message) = match (serving(picture), status.ready) {
        (Some(generation), true) => (Health::Healthy, format!("generation {generation} serves")),
        (Some(_), false) => (Health::Unhealthy, "zdr is stopping".to_owned()),
        (None, _) => (Health::Unhealthy, "nothing serves".to_owned()),
    };
    let mut checks = BTreeMap::from([("serving", Check { state, message })]);
    if let Some(verdict) = &status.last_verdict {
        let state = if verdict.outcome == Outcome::Done { Health::Healthy } else { Health::Degraded };
        checks.insert("last_reload", Check { state, message: verdict.reason.clone() });
    }
    checks
}

/// On a thread of its own, because ten thousand connections take milliseconds.
pub(super) async fn in_flight(picture: &Picture) -> Count {
    let (roots, groups) = (picture.roots.clone(), picture.control_groups.clone());
    let doors = picture.doors.clone();
    let counting = spawn_blocking(move || {
        let known: Vec<i32> = roots.iter().map(|(_, root)| *root).collect();
        let counts = roots.iter().map(|(generation, root)| {
            count(*generation, *root, &known, groups.get(generation), &doors).unwrap_or_default()
        });
        counts.fold(Count::default(), |all, one| Count {
            open: all.open + one.open,
            busy: all.busy + one.busy,
            surely_busy: all.surely_busy + one.surely_busy,
        })
    });
    counting.await.unwrap_or_default()
}
