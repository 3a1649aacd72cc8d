//! Shell commands that are run to answer a question: started like an instance but without its sockets, as the same user
//! and with the same variables, and ended with all they started.
//!
//! What they leave behind when they end is ended as well. It is known by a variable of its own, whoever its parent is by then.

use std::ffi::OsString;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use tokio::sync::oneshot;

use super::cgroup::ControlGroup;
use super::child::Start;
use super::instances::Child;
use super::probe::Alive;
use super::{Edges, processes, tree};
use crate::config::Process;
use crate::supervisor::{Exit, Generation, Hook, Instance, Why};

/// What an errand is run for. There is never more than one at a time for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Whether this instance is ready.
    Readiness(Instance),
    /// Whether this generation is alive.
    Liveness(Generation),
    /// The check of the user's at this position.
    Check(usize),
    /// A turn of a reload.
    Hook {
        /// Which.
        hook: Hook,
        /// The generation it is about.
        generation: Generation,
        /// The one that is replaced, or has replaced it.
        other: Option<Generation>,
        /// What it was started for, or what it was replaced for; None where zdr stops.
        why: Option<Why>,
    },
}

impl Purpose {
    /// The generation with which it ends.
    fn generation(self) -> Option<Generation> {
        match self {
            Self::Readiness(instance) => Some(instance.generation),
            Self::Liveness(generation) => Some(generation),
            // What is run when it is gone does not end with it.
            Self::Hook { hook, generation, .. } => (hook != Hook::AfterDrain).then_some(generation),
            Self::Check(_) => None,
        }
    }

    /// What it is told besides, in its environment.
    fn variables(self) -> Vec<(OsString, OsString)> {
        let Self::Hook { hook, generation, other, why } = self else { return Vec::new() };
        let (new, old) = match hook {
            Hook::AfterDrain => (other, Some(generation)),
            _ => (Some(generation), other),
        };
        let number = |of: Option<Generation>| of.map(|of| of.to_string()).unwrap_or_default();
        let pairs = [("ZDR_HOOK", hook.to_string()), ("ZDR_NEW", number(new)), ("ZDR_OLD", number(old))];
        let reason = why.and_then(|why| serde_json::to_value(why).ok()?.as_str().map(ToOwned::to_owned));
        let pairs = pairs.into_iter().chain([("ZDR_REASON", reason.unwrap_or_else(|| "stop".to_owned()))]);
        pairs.map(|(name, value)| (name.into(), value.into())).collect()
    }
}

/// A shell command that runs.
#[derive(Debug)]
pub(super) struct Errand {
    purpose: Purpose,
    /// The variable that it and all it starts have in their environment.
    marker: String,
    reply: oneshot::Sender<Result<Exit, String>>,
    _alive: Alive,
}

/// The variable by which what an errand has left behind is known.
const MARKER: &str = "ZDR_ERRAND";

impl Edges {
    pub(super) fn run_errand(
        &mut self,
        purpose: Purpose,
        command: &str,
        output: Option<BorrowedFd<'_>>,
        alive: Alive,
        reply: oneshot::Sender<Result<Exit, String>>,
    ) {
        let about = purpose.generation();
        let generation = about.or(self.front);
        let settings = generation.map_or_else(|| Arc::clone(&self.readings.served), |at| self.settings_of(at));
        let release = generation.and_then(|at| self.known.get(&at)).and_then(|known| known.release.clone());
        self.errands_run += 1;
        let number = self.errands_run.to_string();
        let child = self.asked_for(purpose, generation);
        if child.is_none() && about.is_some() && !matches!(purpose, Purpose::Hook { .. }) {
            let _ = reply.send(Err("the generation is gone".to_owned()));
            return;
        }
        let command = ["/bin/sh", "-c", command].map(OsString::from);
        let mut environment = settings.config.process.environment.clone();
        let pid = child.map(|(_, child)| child.pid.to_string()).unwrap_or_default();
        environment.push(("ZDR_PID".into(), pid.into()));
        environment.push((MARKER.into(), number.clone().into()));
        environment.extend(purpose.variables());
        let process = Process { environment, ..settings.config.process.clone() };
        let admin = self.admin.address().path().to_owned();
        // Where nothing serves, none has this number.
        let nobody = Instance { generation: about.unwrap_or_default(), number: 0 };
        let start = Start {
            instance: child.map_or(nobody, |(instance, _)| instance),
            process: &process,
            identity: settings.identity.as_ref(),
            // One that is about no generation is not to end with it.
            control_group: child.filter(|_| about.is_some()).and_then(|(_, child)| control_group(child)),
            outlets: [output; 2],
            said_on: None,
            watchdog: None,
            admin: &admin,
            lent: Vec::new(),
            capture: None,
        };
        match start.errand(&command, release.as_deref()) {
            Ok(spawned) => {
                let marker = format!("{MARKER}={number}");
                self.errands.insert(spawned.pid, Errand { purpose, marker, reply, _alive: alive });
            }
            Err(error) => {
                let _ = reply.send(Err(error.to_string()));
            }
        }
    }

    /// The instance that an errand is about, or the first of its generation.
    fn asked_for(&self, purpose: Purpose, generation: Option<Generation>) -> Option<(Instance, &Child)> {
        if let Purpose::Readiness(instance) = purpose {
            return self.children.get(&instance).filter(|child| child.alive).map(|child| (instance, child));
        }
        let living = self.of(generation?).filter(|(_, child)| child.alive);
        living.min_by_key(|(instance, _)| *instance)
    }

    /// The main process of an errand has ended: so does all that it has left behind.
    pub(super) fn errand_over(&mut self, errand: Errand, exit: Exit) {
        tree::kill(|| processes::orphans(&self.known_processes(), &errand.marker));
        let _ = errand.reply.send(Ok(exit));
    }

    /// What belongs to errands that are about no generation and run on when one ends.
    pub(super) fn orphans_of_others(&self, known: &[i32]) -> Vec<i32> {
        let others = self.errands.values().filter(|errand| errand.purpose.generation().is_none());
        others.flat_map(|errand| processes::orphans(known, &errand.marker)).collect()
    }

    pub(super) fn end_errand(&mut self, purpose: Purpose) {
        self.end_those(|errand| errand.purpose == purpose);
    }

    /// One instance needs no answer any more about itself.
    pub(super) fn end_errands_of(&mut self, instance: Instance) {
        self.end_errand(Purpose::Readiness(instance));
    }

    pub(super) fn end_errands(&mut self, generation: Generation) {
        self.end_those(|errand| errand.purpose.generation() == Some(generation));
    }

    pub(super) fn end_all_errands(&mut self) {
        self.end_those(|_| true);
    }

    fn end_those(&mut self, wanted: impl Fn(&Errand) -> bool) {
        for (pid, errand) in self.errands.iter().filter(|(_, errand)| wanted(errand)) {
            let known = self.known_processes();
            tree::kill(|| [processes::tree(*pid), processes::orphans(&known, &errand.marker)].concat());
        }
    }
}

fn control_group(child: &Child) -> Option<BorrowedFd<'_>> {
    child.control_group.as_ref().map(ControlGroup::directory)
}
