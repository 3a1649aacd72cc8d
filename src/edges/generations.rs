//! What is known of each generation beyond its processes: the settings that it was prepared with, so that what is started of
//! it later is started alike, and so that another can be made that is as it was.
//!
//! Reads the settings afresh where the rules ask for that; starts nothing.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use super::Edges;
use super::file_watch::{FileWatch, WatchError};
use super::identity::Identity;
use super::limits;
use super::notify::NotifyPlace;
use super::release::Release;
use crate::config::{Config, Limit, Reading};
use crate::supervisor::{Event, Generation, Origin, Plan};

/// Settings as they were read at one moment, with what the system says to them.
#[derive(Debug)]
pub struct Settings {
    /// What was asked for.
    pub config: Config,
    /// Counts the configurations; the first is 1.
    pub(super) version: u64,
    /// Who the server is to be.
    pub(super) identity: Option<Identity>,
    /// Where its instances say how they are.
    pub(super) notify: NotifyPlace,
}

/// A generation.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) settings: Arc<Settings>,
    pub(super) command: Vec<OsString>,
    command_was_given: bool,
    /// What its instances are started from; None until the first of them was started.
    pub(super) release: Option<Arc<Release>>,
}

/// Where settings come from.
#[derive(Debug)]
pub(super) struct Readings {
    /// The first ones: what cannot change while zdr runs is as they say.
    first: Arc<Settings>,
    /// Those of the generation that new connections went to last.
    pub(super) served: Arc<Settings>,
    /// What was in the file when it was read last, and the number of that.
    text: Option<String>,
    version: u64,
    /// What zdr had before it gave itself more; where one was asked for, it comes later and wins.
    limits: Option<Limit>,
}

impl Readings {
    pub(super) fn begin(first: Settings, text: Option<String>, limits: Option<Limit>) -> Self {
        let first = Arc::new(first);
        Self { served: Arc::clone(&first), version: first.version, first, text, limits }
    }

    /// The settings of a reading. It has a number of its own where the file is another than before.
    fn take(&mut self, reading: Reading, admin: &Path) -> Result<Arc<Settings>, String> {
        let version = self.version + u64::from(reading.text != self.text);
        let settings = Settings::of(reading.config, version, self.limits, admin)?;
        (self.version, self.text) = (version, reading.text);
        Ok(Arc::new(settings))
    }
}

impl Settings {
    /// What the system says to a configuration.
    pub fn of(mut config: Config, version: u64, own_limit: Option<Limit>, admin: &Path) -> Result<Self, String> {
        let asked = &config.process;
        let identity = Identity::look_up(asked.user.as_deref(), asked.group.as_deref());
        let identity = identity.map_err(|error| error.to_string())?;
        limits::check(&asked.limits).map_err(|error| error.to_string())?;
        config.process.limits.splice(0..0, own_limit);
        let notify = match identity.as_ref().and_then(|identity| identity.ids.as_ref()) {
            Some(ids) => NotifyPlace::for_sender(ids.uid, ids.gid, admin).map_err(|error| error.to_string())?,
            None => NotifyPlace::beside(admin),
        };
        Ok(Self { config, version, identity, notify })
    }

    /// What another configuration says that zdr cannot change while it runs.
    fn unapplied(&self, now: &Config) -> Vec<String> {
        let was = &self.config;
        let why = "has no effect before zdr is started again:";
        let mut unapplied = Vec::new();
        let mut differs = |differs: bool, key: &str, because: &str| {
            if differs {
                unapplied.push(format!("`{key}` {why} {because}"));
            }
        };
        differs(was.name != now.name, "name", "clients know the running one by the name it has");
        differs(was.admin != now.admin, "admin", "clients know the running one by the socket it has");
        differs(was.health != now.health, "health", "whoever asks there knows the addresses it has");
        differs(was.health_paths != now.health_paths, "health-path", "whoever asks there knows the paths it has");
        unapplied
    }
}

impl Edges {
    /// Finds out what a generation is to be started with. Where that cannot be had, nothing has changed.
    pub(super) fn prepare(&mut self, generation: Generation, origin: &Origin) -> Event {
        match self.find_out(generation, origin) {
            Ok(plan) => Event::Prepared { generation, plan: Box::new(plan) },
            Err(why) => Event::Refused { why },
        }
    }

    fn find_out(&mut self, generation: Generation, origin: &Origin) -> Result<Plan, String> {
        let mut unapplied = Vec::new();
        let (settings, command, release) = match origin {
            Origin::Fresh(command) => {
                let reading = (self.reread)()?;
                unapplied = self.readings.first.unapplied(&reading.config);
                (self.readings.take(reading, self.admin.address().path())?, command.clone(), None)
            }
            Origin::Again => {
                let served = self.front.and_then(|front| self.known.get(&front));
                let given = served.filter(|known| known.command_was_given).map(|known| known.command.clone());
                (Arc::clone(&self.readings.served), given, None)
            }
            Origin::Like(other) => {
                let known = self.known.get(other).ok_or_else(|| format!("generation {other} was forgotten"))?;
                let given = known.command_was_given.then(|| known.command.clone());
                (Arc::clone(&known.settings), given, known.release.clone())
            }
        };
        let config = &settings.config;
        let asked = (!config.inherit).then_some(config.listeners.as_slice());
        unapplied.extend(self.listeners.prepare(generation, asked).map_err(|error| error.to_string())?);
        let known = Known {
            command_was_given: command.is_some(),
            command: command.unwrap_or_else(|| config.command.clone()),
            settings: Arc::clone(&settings),
            release,
        };
        let plan = Plan {
            command: known.command.clone(),
            command_was_given: known.command_was_given,
            config_version: settings.version,
            policy: config.policy.clone(),
            unapplied,
        };
        self.known.insert(generation, known);
        Ok(plan)
    }

    /// One that was not prepared is as another is.
    pub(super) fn make_alike(&mut self, generation: Generation, like: Generation) {
        let Some(known) = self.known.get(&like) else { return };
        let alike = Known {
            settings: Arc::clone(&known.settings),
            command: known.command.clone(),
            command_was_given: known.command_was_given,
            release: known.release.clone(),
        };
        self.known.entry(generation).or_insert(alike);
    }

    /// The settings of a generation, or those that zdr began with.
    pub(super) fn settings_of(&self, generation: Generation) -> Arc<Settings> {
        Arc::clone(self.known.get(&generation).map_or(&self.readings.served, |known| &known.settings))
    }

    /// A change of the files that the settings name is told from now on.
    pub fn watch_files(&mut self) -> Result<(), WatchError> {
        let config = &self.readings.served.config;
        let wanted = (config.watch.clone(), config.watch_debounce);
        if self.watched.as_ref().is_some_and(|(watched, _)| *watched == wanted) {
            return Ok(());
        }
        self.watched = None;
        if !wanted.0.is_empty() {
            let watch = FileWatch::start(&wanted.0, wanted.1, self.owner.clone())?;
            self.watched = Some((wanted, watch));
        }
        Ok(())
    }

    /// What is known of those that neither live nor may be started again is forgotten.
    pub(super) fn remember(&mut self, wanted: &[Generation]) {
        let living: Vec<Generation> = self.children.keys().map(|instance| instance.generation).collect();
        let newest = self.known.keys().max().copied();
        self.known.retain(|generation, _| {
            wanted.contains(generation) || living.contains(generation) || Some(*generation) == newest
        });
    }
}

/// What is known of each.
pub(super) type Generations = HashMap<Generation, Known>;
