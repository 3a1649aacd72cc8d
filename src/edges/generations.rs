//! What is known of each generation beyond its processes: the settings that it was prepared with, so that what is started of
//! it later is started alike, and so that another can be made that is as it was.
//!
//! Reads the settings afresh where the rules ask for that; starts nothing.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;

use tracing::info;

use super::Edges;
use super::file_watch::{FileWatch, WatchError};
use super::identity::Identity;
use super::limits;
use super::notify::NotifyPlace;
use super::release::Release;
use crate::address::Listener;
use crate::config::{Config, Fault, Limit, Reading};
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

    /// The number of a reading: another one where the file is another than before.
    fn version_of(&self, text: Option<&String>) -> u64 {
        self.version + u64::from(text != self.text.as_ref())
    }
}

impl Settings {
    /// What the system says to a configuration.
    pub fn of(mut config: Config, version: u64, own_limit: Option<Limit>, admin: &Path) -> Result<Self, Fault> {
        let identity = Identity::of(&config.process)?;
        if let Some(fault) = limits::faults(&config.process.limits).into_iter().next() {
            return Err(fault);
        }
        config.process.limits.splice(0..0, own_limit);
        let notify = match identity.as_ref().and_then(|identity| identity.ids.as_ref()) {
            Some(ids) => NotifyPlace::for_sender(ids.uid, ids.gid, admin),
            None => Ok(NotifyPlace::beside(admin)),
        };
        let notify = notify.map_err(|error| Fault::of("user", error.to_string()))?;
        Ok(Self { config, version, identity, notify })
    }

    /// The listeners that are asked for; None for those that are there.
    fn listeners(&self) -> Option<&[Listener]> {
        (!self.config.inherit).then_some(self.config.listeners.as_slice())
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
        let chosen = was.name_was_chosen || now.name_was_chosen;
        differs(chosen && was.name != now.name, "name", "clients know the running one by the name it has");
        differs(was.admin != now.admin, "admin", "clients know the running one by the socket it has");
        let sockets = "the sockets of LISTEN_FDS are taken when it starts";
        differs(now.inherit && !was.inherit, "listen", sockets);
        differs(was.health != now.health, "health", "whoever asks there knows the addresses it has");
        differs(was.health_paths != now.health_paths, "health-path", "whoever asks there knows the paths it has");
        let log = "the log is begun before anything else";
        differs(was.log.format != now.log.format, "log-format", log);
        differs(was.log.verbose != now.log.verbose, "verbose", log);
        differs(was.log.quiet != now.log.quiet, "quiet", log);
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
        let (settings, command, release) = match origin {
            Origin::Fresh(command) => return self.read_afresh(generation, command.clone()),
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
        let told = self.listeners.prepare(generation, settings.listeners()).map_err(|error| error.to_string())?;
        Ok(self.know(generation, &settings, command, release, told))
    }

    /// The settings as they are now. What is wrong with them is told with its place, and then they were never had.
    fn read_afresh(&mut self, generation: Generation, command: Option<Vec<OsString>>) -> Result<Plan, String> {
        let Reading { config, text, placed } = (self.reread)()?;
        let mut unapplied = self.readings.first.unapplied(&config);
        let (version, admin) = (self.readings.version_of(text.as_ref()), self.admin.address().path());
        let settings = Settings::of(config, version, self.readings.limits, admin).map_err(&placed)?;
        let prepared = self.listeners.prepare(generation, settings.listeners());
        unapplied.extend(prepared.map_err(|error| placed(error.fault(&settings.config.listeners)))?);
        let command = command.or_else(|| self.given_before(&settings.config));
        (self.readings.version, self.readings.text) = (version, text);
        Ok(self.know(generation, &Arc::new(settings), command, None, unapplied))
    }

    /// A command that somebody gave holds until the settings have another one, as a number of instances does.
    fn given_before(&self, config: &Config) -> Option<Vec<OsString>> {
        let served = self.front.and_then(|front| self.known.get(&front)).filter(|known| known.command_was_given)?;
        let same = served.settings.config.command == config.command;
        if !same {
            info!("the settings have another command, and the one that was given before is not kept");
        }
        same.then(|| served.command.clone())
    }

    fn know(
        &mut self,
        generation: Generation,
        settings: &Arc<Settings>,
        command: Option<Vec<OsString>>,
        release: Option<Arc<Release>>,
        unapplied: Vec<String>,
    ) -> Plan {
        let config = &settings.config;
        let known = Known {
            command_was_given: command.is_some(),
            command: command.unwrap_or_else(|| config.command.clone()),
            settings: Arc::clone(settings),
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
        plan
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

    /// What is known of others is forgotten.
    pub(super) fn remember(&mut self, wanted: &BTreeSet<Generation>) {
        self.known.retain(|generation, _| wanted.contains(generation));
    }
}

/// What is known of each.
pub(super) type Generations = HashMap<Generation, Known>;
