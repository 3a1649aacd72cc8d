//! The admin socket and the health addresses: questions and orders by HTTP, answered in JSON.
//!
//! Holds no state of the supervisor: every answer is asked of the owner when somebody looks.

mod address;
mod answers;
mod dashboard;
mod health;
mod orders;
mod query;
mod report;
mod reporter;
mod routes;
mod story;
mod streams;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use address::{AdminAddress, AdminError, HealthAddress};
pub use health::HealthPaths;
pub use report::{Health, Report, Row};
use tokio::sync::{oneshot, watch};

use self::reporter::Reporter;
use self::routes::Routes;
use self::story::Story;
use self::streams::Streams;
use super::checks::Checks;
use super::figures::Figures;
use super::http_server::{Limits, serve};
use super::limits::open_files;
use super::metrics::{Counted, Metrics};
use super::notice::Owner;
use super::task::Task;
use crate::config::Check;
use crate::supervisor::{News, Ticket, Verdict};

/// The most connections of each door.
const CONNECTIONS: usize = 256;

/// The most readers of streams, besides.
const READERS: usize = 4096;

/// Files that are kept for everything else: listeners, generations, probes.
const OTHER_FILES: usize = 256;

/// How many readers each of so many doors may have, if nothing else is to lack files for them.
fn readers(doors: usize) -> usize {
    let left = open_files().saturating_sub(OTHER_FILES + doors * CONNECTIONS) / doors;
    left.clamp(READERS / 64, READERS)
}

/// The servers, and who waits for what.
#[derive(Debug)]
pub struct Admin {
    address: AdminAddress,
    story: Arc<watch::Sender<Story>>,
    metrics: Metrics,
    checks: Checks,
    waiting: HashMap<Ticket, oneshot::Sender<Verdict>>,
    newest: Ticket,
    _health: Vec<HealthAddress>,
    _tasks: Vec<Task>,
}

impl Admin {
    /// Starts to answer.
    pub fn start(
        address: AdminAddress,
        health: Vec<HealthAddress>,
        paths: HealthPaths,
        checks: Vec<Check>,
        owner: &Owner,
    ) -> std::io::Result<Self> {
        let story = Arc::new(watch::Sender::new(Story::default()));
        let (reporter, counting) = Reporter::start(Figures::of);
        let (streams, joins) = Streams::new();
        let (name, checks) = (address.name().to_owned(), Checks::start(checks, owner));
        let owner = owner.clone();
        let metrics = Metrics::default();
        let (story_of, counted) = (Arc::clone(&story), metrics.counted().clone());
        let asked = checks.clone();
        let routes = Routes { owner, story: story_of, reporter, streams, paths, name, checks, counted };
        let uid = nix::unistd::geteuid().as_raw();
        let live = readers(health.len() + 1);
        let limits = Limits { connections: CONNECTIONS, live, head_time: Duration::from_secs(5), ..Limits::default() };
        let admin = Routes { paths: routes.paths.clone().with_default(), ..routes.clone() };
        let mut tasks = vec![
            counting,
            joins.serve(routes.clone()),
            Task::start(serve(address.door()?, limits, Some(uid), move |asked| admin.clone().admin(asked))),
        ];
        for door in &health {
            let routes = routes.clone();
            tasks.push(Task::start(serve(door.door()?, limits, None, move |asked| routes.clone().health(asked))));
        }
        let (waiting, newest) = (HashMap::new(), Ticket(0));
        Ok(Self { address, story, metrics, checks: asked, waiting, newest, _health: health, _tasks: tasks })
    }

    /// Where the admin socket is.
    pub fn address(&self) -> &AdminAddress {
        &self.address
    }

    /// A name for somebody who waits for a verdict.
    pub fn ticket(&mut self, reply: Option<oneshot::Sender<Verdict>>) -> Ticket {
        self.newest.0 += 1;
        self.waiting.extend(reply.map(|reply| (self.newest, reply)));
        self.newest
    }

    /// Gives the verdict to whoever holds the ticket; one who has gone has no use for it.
    pub fn answer(&mut self, ticket: Ticket, verdict: Verdict) {
        if let Some(reply) = self.waiting.remove(&ticket) {
            let _ = reply.send(verdict);
        }
    }

    /// What was counted so far.
    pub fn counted(&self) -> &Counted {
        self.metrics.counted()
    }

    /// These are the checks from now on.
    pub fn ask(&self, checks: Vec<Check>) {
        self.checks.replace(checks);
    }

    /// They are asked whether or not somebody looks, or are not.
    pub fn ask_on(&self, wanted: bool) {
        self.checks.ask_on(wanted);
    }

    /// Tells everybody who follows the story, and who comes later.
    pub fn tell(&mut self, news: &News, at: SystemTime) {
        self.metrics.tell(news, at);
        self.story.send_modify(|story| story.add(news, at));
    }
}
