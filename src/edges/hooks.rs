//! Commands of the user's at the turns of a reload: run as errands, and ended when their time is up.
//!
//! Tells how they ended; what follows from that is decided elsewhere.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use humantime::format_duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::Edges;
use super::errands::Purpose;
use super::notice::{Notice, tell};
use super::probe::Alive;
use super::task::Task;
use crate::supervisor::{Event, Exit, Generation, Hook, Why};

impl Edges {
    /// Runs the command for this turn, as the server's user and with its environment.
    pub(super) fn run_hook(&mut self, hook: Hook, generation: Generation, other: Option<Generation>, why: Option<Why>) {
        let settings = self.settings_of(generation);
        let command = settings.config.hooks.iter().find(|(at, _)| *at == hook).map(|(_, command)| command.clone());
        let Some(command) = command else {
            return tell(&self.owner, Event::HookEnded { hook, generation, failure: None });
        };
        let (reply, ended) = oneshot::channel();
        let purpose = Purpose::Hook { hook, generation, other, why };
        // Standard output is the server's.
        self.run_errand(purpose, &command, Some(io::stderr().as_fd()), Alive::unwatched(), reply);
        let (owner, limit) = (self.owner.clone(), settings.config.hook_timeout);
        let wait = async move {
            let failure = match timeout(limit, ended).await {
                Ok(Ok(Ok(Exit::Code(0)))) => None,
                Ok(Ok(Ok(exit))) => Some(exit.to_string()),
                Ok(Ok(Err(why))) => Some(format!("could not be run: {why}")),
                Ok(Err(_)) => Some("was ended with its generation".to_owned()),
                Err(_) => {
                    let _ = owner.send(Notice::EndErrand { purpose });
                    Some(too_late(limit))
                }
            };
            tell(&owner, Event::HookEnded { hook, generation, failure });
        };
        self.hooks.retain(Task::is_running);
        self.hooks.push(Task::start(wait));
    }
}

fn too_late(limit: Duration) -> String {
    format!("had not ended after {} and was killed", format_duration(limit))
}
