//! Why a server may leave a connection in the queue of the socket that it was lent, and the way out.
//!
//! Guesses from what `/proc` and the kernel's tables show, and says nothing where they show nothing. Never asks the server.

use std::fs;

use super::attribution::of;
use crate::address::Listener;
use crate::edges::kernel::sock_diag::SockDiag;
use crate::edges::processes::{holder, program, sockets};
use crate::supervisor::Instance;

/// Where the connection waits.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    /// Whose it is.
    pub(super) instance: Instance,
    /// The main processes of all generations.
    pub(super) roots: Vec<(Instance, i32)>,
    /// The inode of the socket.
    pub(super) socket: u32,
    /// The inodes of all sockets that the generation was lent.
    pub(super) lent: Vec<u32>,
    /// What it binds by itself is taken over.
    pub(super) captures: bool,
}

impl Queue {
    /// The likeliest reason, in one clause.
    pub(super) fn hint(&self) -> Option<String> {
        let root = self.roots.iter().find(|(instance, _)| *instance == self.instance).map(|(_, root)| *root)?;
        let processes = of(self.instance, root, &self.roots);
        let held = sockets(&processes).ok().filter(|_| !processes.is_empty())?;
        let listening = SockDiag::open().and_then(|mut diag| diag.listening()).unwrap_or_default();
        let elsewhere = listening.iter().find(|at| held.contains(&at.inode) && !self.lent.contains(&at.inode));
        let way_out = match self.captures {
            true => "pass {fd} or {port}",
            false => "pass {fd} or {port}, or let zdr capture its own with --capture always",
        };
        match (elsewhere, held.contains(&self.socket)) {
            (Some(at), _) => Some(format!("it listens on {} instead; {way_out}", at.address)),
            (None, false) => {
                Some(format!("it has closed the socket that it was lent: it does not take LISTEN_FDS; {way_out}"))
            }
            (None, true) => wrapped(root, &processes, self.socket),
        }
    }
}

/// For one that has listened on nothing that was taken over: where it listens all the same.
pub(super) fn left_alone(instance: Instance, roots: &[(Instance, i32)]) -> Option<String> {
    let root = roots.iter().find(|(other, _)| *other == instance).map(|(_, root)| *root)?;
    let held = sockets(&of(instance, root, roots)).ok()?;
    let listening = SockDiag::open().and_then(|mut diag| diag.listening()).ok()?;
    let its = listening.iter().find(|at| held.contains(&at.inode))?;
    Some(format!("it listens on {}, which zdr leaves alone: give it a port that stays the same", its.address))
}

/// For one that failed before it took its sockets.
pub fn at_exit(listener: &Listener) -> String {
    format!("if it binds {} by itself, add --capture always", listener.address)
}

/// LISTEN_PID names the main process (sd_listen_fds(3)), so another one that has the socket does not take it.
fn wrapped(main: i32, processes: &[i32], socket: u32) -> Option<String> {
    let wrapper = program(main)?;
    let is_another = |pid: &i32| *pid != main && program(*pid).is_some_and(|name| word(&name) != word(&wrapper));
    let others: Vec<i32> = processes.iter().copied().filter(is_another).collect();
    let server = holder(socket, &others).filter(|pid| is_told(*pid, main))?;
    let name = program(server)?;
    Some(format!(
        "LISTEN_PID names process {main} ({wrapper}), but process {server} ({name}) has the socket: start it with \
         --no-listen-pid"
    ))
}

/// Servers add words to the names of their workers: `nginx: worker process`.
fn word(name: &str) -> &str {
    name.split([':', ' ']).next().unwrap_or_default()
}

fn is_told(pid: i32, listen_pid: i32) -> bool {
    let told = format!("LISTEN_PID={listen_pid}");
    fs::read(format!("/proc/{pid}/environ"))
        .is_ok_and(|environment| environment.split(|&byte| byte == 0).any(|variable| variable == told.as_bytes()))
}
