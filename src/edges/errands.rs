//! Shell commands that probes ask for: started like an instance but without its sockets, and ended with all they started.

use std::ffi::OsString;

use tokio::sync::oneshot;

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
        let root = self.children.get(&generation).map(|child| child.pid.to_string()).unwrap_or_default();
        let mut environment = self.config.process.environment.clone();
        environment.push(("ZDR_PID".into(), root.into()));
        let process = Process { environment, ..self.config.process.clone() };
        let admin = self.admin.address().path().to_owned();
        let lent = Vec::new();
        let start = Start {
            generation,
            command: &command,
            process: &process,
            notify_socket: None,
            admin: &admin,
            lent,
            capture: false,
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
