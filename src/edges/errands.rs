//! Shell commands that are run to answer a question: started like an instance but without its sockets, as the same user
//! and with the same variables, and ended with all they started.
//!
//! What they leave behind when they end is ended as well. It is known by a variable of its own, whoever its parent is by then.

use std::ffi::OsString;
use std::os::fd::BorrowedFd;

use tokio::sync::oneshot;

use super::cgroup::ControlGroup;
use super::child::Start;
use super::instances::Child;
use super::probe::Alive;
use super::{Edges, processes, tree};
use crate::config::Process;
use crate::supervisor::{Exit, Generation, Instance};

/// What an errand is run for. There is never more than one at a time for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Whether this generation is ready.
    Readiness(Generation),
    /// Whether this generation is alive.
    Liveness(Generation),
    /// The check of the user's at this position.
    Check(usize),
}

impl Purpose {
    /// The generation with which it ends.
    fn generation(self) -> Option<Generation> {
        match self {
            Self::Readiness(generation) | Self::Liveness(generation) => Some(generation),
            Self::Check(_) => None,
        }
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
        let generation = purpose.generation().or(self.front);
        let child = generation.and_then(|generation| self.children.get(&generation)).filter(|child| child.alive);
        if child.is_none() && purpose.generation().is_some() {
            let _ = reply.send(Err("the generation is gone".to_owned()));
            return;
        }
        self.errands_run += 1;
        let number = self.errands_run.to_string();
        let command = ["/bin/sh", "-c", command].map(OsString::from);
        let mut environment = self.config.process.environment.clone();
        environment.push(("ZDR_PID".into(), child.map(|child| child.pid.to_string()).unwrap_or_default().into()));
        environment.push((MARKER.into(), number.clone().into()));
        let process = Process { environment, ..self.config.process.clone() };
        let admin = self.admin.address().path().to_owned();
        // Where nothing serves, none has this number.
        let generation = generation.filter(|_| child.is_some()).unwrap_or(Generation(0));
        let start = Start {
            instance: Instance { generation, number: 1 },
            process: &process,
            identity: self.identity.as_ref(),
            // One that is about no generation is not to end with it.
            control_group: child.filter(|_| purpose.generation().is_some()).and_then(control_group),
            outlets: [output; 2],
            said_on: None,
            watchdog: None,
            admin: &admin,
            lent: Vec::new(),
            capture: None,
        };
        match start.errand(&command, child.map(|child| &child.release)) {
            Ok(spawned) => {
                let marker = format!("{MARKER}={number}");
                self.errands.insert(spawned.pid, Errand { purpose, marker, reply, _alive: alive });
            }
            Err(error) => {
                let _ = reply.send(Err(error.to_string()));
            }
        }
    }

    /// The main process of an errand has ended: so does all that it has left behind.
    pub(super) fn errand_over(&mut self, errand: Errand, exit: Exit) {
        tree::kill(|| processes::orphans(&self.known(), &errand.marker));
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

    pub(super) fn end_errands(&mut self, generation: Generation) {
        self.end_those(|errand| errand.purpose.generation() == Some(generation));
    }

    pub(super) fn end_all_errands(&mut self) {
        self.end_those(|_| true);
    }

    fn end_those(&mut self, wanted: impl Fn(&Errand) -> bool) {
        for (pid, errand) in self.errands.iter().filter(|(_, errand)| wanted(errand)) {
            let known = self.known();
            tree::kill(|| [processes::tree(*pid), processes::orphans(&known, &errand.marker)].concat());
        }
    }
}

fn control_group(child: &Child) -> Option<BorrowedFd<'_>> {
    child.control_group.as_ref().map(ControlGroup::directory)
}
