//! The report: how things are, for people and programs. `GET /v1/status`, the full health answer and every event of its
//! stream are this one structure.
//!
//! Made of a picture and its figures; asks nobody.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::edges::checks::Finding;
use crate::edges::figures::Figures;
use crate::edges::listeners::Queue;
use crate::edges::notice::Picture;
pub use crate::supervisor::Health;
use crate::supervisor::{
    Generation, Goal, InstanceState, Outcome, Seat, SeatName, SeatedInstance, State, Status, Verdict,
};

/// Who asks: arguments of a command may hold secrets, and are only for those who could read them anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum For {
    /// Whoever can reach a health address.
    Everybody,
    /// The user that runs zdr, and root.
    Owner,
}

/// The report.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The worst of the checks.
    pub status: Health,
    /// True as long as zdr answers.
    pub live: bool,
    /// True where new connections are answered and will be.
    pub ready: bool,
    /// True once a generation has ever served.
    pub started: bool,
    /// What zdr is at.
    pub state: State,
    /// What clients call this supervisor.
    pub name: String,
    /// Of zdr.
    pub version: &'static str,
    /// zdr's own process.
    pub pid: u32,
    /// How long zdr runs, in seconds.
    pub uptime_secs: f64,
    /// The serving one.
    pub generation: Option<Generation>,
    /// Counts the configurations that generations were started with; the first is 1.
    pub config_version: u64,
    /// How many instances serve.
    pub instances: usize,
    /// How long new connections are held at most from now on, in seconds; null where they are not.
    pub paused_secs: Option<f64>,
    /// What a rollback would go to; null where there is nothing.
    pub rollback: Option<Goal>,
    /// How many generations drain.
    pub draining: usize,
    /// Requests in flight in every generation, as the kernel sees them.
    pub in_flight: usize,
    /// Open connections of every generation.
    pub connections: usize,
    /// Resident memory of the serving generation's processes.
    pub memory_bytes: u64,
    /// Processor time of the same, in seconds.
    pub cpu_secs: f64,
    /// Whose that is: figures may be a little older than the rest, and from before a cut-over.
    #[serde(skip)]
    pub used_by: Option<Generation>,
    /// How often an instance died while it served.
    pub crashes: u64,
    /// The newest first.
    pub generations: Vec<Row>,
    /// In the order in which they were given.
    pub listeners: Vec<ListenerRow>,
    /// By their names.
    pub checks: BTreeMap<String, Check>,
    /// The outcome of the last request.
    pub last_verdict: Option<Verdict>,
}

/// A generation.
#[derive(Debug, Serialize)]
pub struct Row {
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
    /// Its open connections.
    pub connections: usize,
    /// Those with a request in flight.
    pub in_flight: usize,
    /// What it has said last of its status (STATUS=).
    pub status_text: Option<String>,
    /// What it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<Vec<String>>,
}

/// A listener.
#[derive(Debug, Serialize)]
pub struct ListenerRow {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: String,
    /// How many slots it has.
    pub slots: usize,
    /// How many connections wait in all of them.
    pub queue: usize,
    /// How many may wait in the slot that new ones go to.
    pub queue_limit: u32,
    /// How many did not find room since zdr began.
    pub overflows: u64,
}

/// How one thing is.
#[derive(Debug, Serialize)]
pub struct Check {
    /// In one word.
    pub state: Health,
    /// In one sentence.
    pub message: String,
    /// A failing one makes zdr unhealthy, and not only degraded.
    pub critical: bool,
    /// How long ago that was found, in seconds.
    pub age_secs: f64,
}

impl Report {
    pub(super) fn new(name: &str, picture: &Picture, figures: &Figures, findings: Vec<Finding>, reader: For) -> Self {
        let status = &picture.status;
        let mut checks = checks(picture);
        checks.extend(findings.into_iter().map(|finding| (finding.name.clone(), Check::from(finding))));
        let (connections, in_flight) = figures.all();
        let seated = |seat| status.generations.iter().filter(|at| at.seat == seat).count();
        Self {
            status: checks.values().map(|check| check.state).max().unwrap_or(Health::Healthy),
            live: true,
            ready: status.ready,
            started: status.started,
            state: status.state,
            name: name.to_owned(),
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            uptime_secs: picture.uptime_secs,
            generation: picture.seated(SeatName::Serving),
            config_version: status.config_version,
            instances: serving_instances(status),
            paused_secs: status.paused_secs,
            rollback: status.rollback.clone(),
            draining: seated(SeatName::Draining),
            in_flight,
            connections,
            memory_bytes: figures.usage.memory,
            cpu_secs: figures.usage.cpu.as_secs_f64(),
            used_by: figures.serving,
            crashes: status.crashes,
            generations: status.generations.iter().map(|seat| Row::new(seat, picture, figures, reader)).collect(),
            listeners: picture.queues.iter().map(ListenerRow::from).collect(),
            checks,
            last_verdict: status.last_verdict.clone(),
        }
    }
}

impl Row {
    fn new(seat: &Seat, picture: &Picture, figures: &Figures, reader: For) -> Self {
        let count = figures.count(seat.generation);
        Self {
            generation: seat.generation,
            seat: seat.seat,
            pid: seat.pid,
            since_secs: seat.since_secs,
            instances: seat.instances.clone(),
            config_version: seat.config_version,
            connections: count.open,
            in_flight: count.busy,
            status_text: picture.status_texts.get(&seat.generation).cloned(),
            command: (reader == For::Owner).then(|| seat.command.clone()),
        }
    }
}

impl From<Finding> for Check {
    fn from(Finding { state, message, critical, age, .. }: Finding) -> Self {
        Self { state, message, critical, age_secs: (age.as_secs_f64() * 1e3).round() / 1e3 }
    }
}

impl From<&Queue> for ListenerRow {
    fn from(queue: &Queue) -> Self {
        Self {
            name: queue.listener.name.clone(),
            address: queue.listener.address.to_string(),
            slots: queue.slots,
            queue: queue.waiting,
            queue_limit: queue.limit,
            overflows: queue.overflows,
        }
    }
}

fn serving_instances(status: &Status) -> usize {
    let all = status.generations.iter().flat_map(|seat| &seat.instances);
    all.filter(|instance| instance.state == InstanceState::Serving).count()
}

/// What zdr knows by itself.
fn checks(picture: &Picture) -> BTreeMap<String, Check> {
    let status = &picture.status;
    let (state, message) = match (picture.seated(SeatName::Serving), status.ready) {
        (Some(generation), _) if status.state != State::Stopping && status.trouble.is_some() => {
            let trouble = status.trouble.as_deref().unwrap_or_default();
            (Health::Unhealthy, format!("generation {generation} {trouble}"))
        }
        (Some(_), true) if status.paused_secs.is_some() => (Health::Degraded, "new connections are held".to_owned()),
        (Some(generation), true) => (Health::Healthy, format!("generation {generation} serves")),
        (Some(_), false) => (Health::Unhealthy, "zdr is stopping".to_owned()),
        (None, _) => (Health::Unhealthy, "nothing serves".to_owned()),
    };
    let serving = Check { state, message, critical: true, age_secs: 0.0 };
    let mut checks = BTreeMap::from([("serving".to_owned(), serving)]);
    if let Some(verdict) = &status.last_verdict {
        let state = if verdict.outcome == Outcome::Done { Health::Healthy } else { Health::Degraded };
        let check = Check { state, message: verdict.reason.clone(), critical: false, age_secs: 0.0 };
        checks.insert("last_reload".to_owned(), check);
    }
    checks
}
