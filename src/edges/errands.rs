//! Shell commands that probes ask for: started like an instance but without its sockets, as the same user,
//! with the same variables and in the same control group, and ended with all they started.

use std::ffi::OsString;

use tokio::sync::oneshot;

use super::cgroup::ControlGroup;
use super::child::Start;
use super::{Edges, processes, tree};
use crate::config::Process;
use crate::supervisor::{Exit, Generation};

/// A shell command that a probe asked for.
#[derive(Debug)]
pub(super) struct Errand {
    pub(super) generation: Generation,
    pub(super) reply: oneshot::Sender<Result<Exit, String>>,
}

impl Edges {
    pub(super) fn run_errand(
        &mut self,
        generation: Generation,
        command: &str,
        reply: oneshot::Sender<Result<Exit, String>>,
    ) {
        let command = ["/bin/sh", "-c", command].map(OsString::from);
        let child = self.children.get(&generation);
        let root = child.map(|child| child.pid.to_string()).unwrap_or_default();
        let mut environment = self.config.process.environment.clone();
        environment.push(("ZDR_PID".into(), root.into()));
        let process = Process { environment, ..self.config.process.clone() };
        let admin = self.admin.address().path().to_owned();
        let lent = Vec::new();
        let start = Start {
            generation,
            command: &command,
            process: &process,
            from_files: child.map_or(&[], |child| &child.from_files),
            identity: self.identity.as_ref(),
            control_group: child.and_then(|child| child.control_group.as_ref()).map(ControlGroup::directory),
            said_on: None,
            admin: &admin,
            lent,
            outlet: None,
            capture: None,
        };
        match start.spawn() {
            Ok(spawned) => {
                self.errands.insert(spawned.pid, Errand { generation, reply });
            }
            Err(error) => {
                let _ = reply.send(Err(error.to_string()));
            }
        }
    }

    pub(super) fn end_errands(&mut self, generation: Generation) {
        let late: Vec<i32> =
            self.errands.iter().filter(|(_, errand)| errand.generation == generation).map(|(pid, _)| *pid).collect();
        for pid in late {
            tree::kill(|| processes::tree(pid));
        }
    }
}
