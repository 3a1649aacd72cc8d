//! The admin socket and the health addresses: questions and orders by HTTP, answered in JSON.
//!
//! Holds no state of the supervisor: every answer is asked of the owner when somebody looks.

mod address;
mod dashboard;
mod health;
mod report;
mod routes;
mod story;

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

pub use address::{AdminAddress, AdminError, HealthAddress};
pub use health::HealthPaths;
use tokio::sync::{broadcast, oneshot};

use self::routes::Routes;
pub use self::story::Line;
use super::checks::Checks;
use super::http_server::{Limits, serve};
use super::notice::Owner;
use super::task::Task;
use crate::config::Check;
use crate::supervisor::{News, Ticket, Verdict};

/// How many lines of the story a slow reader may be behind.
const STORY: usize = 256;

/// The servers, and who waits for what.
#[derive(Debug)]
pub struct Admin {
    address: AdminAddress,
    story: broadcast::Sender<Line>,
    told: u64,
    waiting: HashMap<Ticket, oneshot::Sender<Verdict>>,
    newest: Ticket,
    _servers: Vec<Task>,
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
        let (story, _) = broadcast::channel(STORY);
        let (name, checks) = (address.name().to_owned(), Checks::start(checks, owner));
        let routes = Routes { owner: owner.clone(), story: story.clone(), paths, name, checks };
        let uid = nix::unistd::geteuid().as_raw();
        let limits = Limits { connections: 256, head_time: Duration::from_secs(5), ..Limits::default() };
        let admin = routes.clone();
        let mut servers =
            vec![Task::start(serve(address.door()?, limits, Some(uid), move |asked| admin.clone().admin(asked)))];
        for door in health {
            let routes = routes.clone();
            servers.push(Task::start(serve(door.door()?, limits, None, move |asked| routes.clone().health(asked))));
        }
        Ok(Self { address, story, told: 0, waiting: HashMap::new(), newest: Ticket(0), _servers: servers })
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

    /// Tells everybody who follows the story.
    pub fn tell(&mut self, news: &News, at: SystemTime) {
        self.told += 1;
        if self.story.receiver_count() > 0 {
            let _ = self.story.send(Line::new(self.told, news, at));
        }
    }
}
