//! What instances say of themselves, by the processes that are their own.
//!
//! Decides nothing: what follows from a word is told as an event.

use std::collections::HashMap;

use tracing::warn;

use super::instances::Child;
use super::words::Words;
use super::{Edges, processes};
use crate::config::Ready;
use crate::supervisor::{Event, Generation, Instance};

impl Edges {
    /// Words count from the generation's own processes. One that has ended since cannot be looked up any more; it knew
    /// the path of a socket that only this generation was told.
    pub(super) fn said(&mut self, instance: Instance, pid: i32, words: Words) {
        let Some(child) = self.children.get(&instance).filter(|child| child.alive && words != Words::default()) else {
            return;
        };
        let its_own = pid == child.pid || processes::program(pid).is_none();
        if !its_own && !self.tree(instance, child).contains(&pid) {
            let generation = instance.generation;
            warn!(%generation, pid, "a word or an ack from a process that does not belong to the generation was ignored");
            return;
        }
        match words.ready {
            Some(true) => self.said_ready(instance, pid),
            Some(false) => self.said_unready(instance),
            None => {}
        }
        if words.stopping {
            self.inbox.push_back(Event::Leaving { instance });
        }
        let Some(child) = self.children.get_mut(&instance) else { return };
        if words.status.is_some() {
            child.status_text = words.status.filter(|text| !text.is_empty());
        }
        if let Some(time) = words.watchdog_time {
            child.watchdog_time = Some(time);
            child.watchdog.iter().for_each(|watchdog| watchdog.set(time));
        }
        if let (Some(word), Some(watchdog)) = (words.watchdog, &child.watchdog) {
            watchdog.hear(word);
        }
    }

    fn said_ready(&mut self, instance: Instance, pid: i32) {
        let settings = self.settings_of(instance.generation);
        let Some(child) = self.children.get_mut(&instance) else { return };
        if std::mem::take(&mut child.unready) {
            self.inbox.push_back(Event::ReadyAgain { instance });
        }
        if !matches!(settings.config.readiness.ready, Ready::Notify | Ready::Default) {
            return;
        }
        // gunicorn with `--reuse-port` says so before its workers have bound anything.
        let reach = self.listeners.reach(instance.generation);
        if reach.listeners.is_empty() && !reach.missing.is_empty() {
            child.said_too_early = Some(pid);
            return;
        }
        child.probe = None;
        self.inbox.push_back(Event::Ready { instance });
        self.end_errands_of(instance);
    }

    /// Where its word is what is waited for, an accepted connection does not count any more.
    fn said_unready(&mut self, instance: Instance) {
        let settings = self.settings_of(instance.generation);
        let Some(child) = self.children.get_mut(&instance) else { return };
        child.unready = true;
        child.said_too_early = None;
        if settings.config.readiness.ready == Ready::Default {
            child.probe = None;
        }
        self.inbox.push_back(Event::Unready { instance });
    }

    pub(super) fn status_texts(&self) -> HashMap<Generation, String> {
        let said = |(instance, child): (&Instance, &Child)| Some((instance.generation, child.status_text.clone()?));
        self.children.iter().filter_map(said).collect()
    }
}
