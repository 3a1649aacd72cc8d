//! Who answers: the process that accepted a probe, and the instance it belongs to.
//!
//! The kernel names the socket that the server got (`sock_diag(7)`), `/proc` who holds it. Asked before the server can know
//! the question, so that nobody has answered yet.

use std::thread::park_timeout;
use std::time::Duration;

use super::connection::Ends;
use super::http::Hook;
use crate::edges::connections::marker;
use crate::edges::kernel::sock_diag::{Accepted, SockDiag};
use crate::edges::processes::{holder, holder_anywhere, orphans, program, sockets, tree};

use crate::supervisor::Instance;

/// How long a connection may wait to be accepted, in polls of one millisecond.
const POLLS: u32 = 3000;

/// Who took connections out of a queue.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// The wanted instance has the connection with this inode.
    Its(u32),
    /// Somebody else, in words.
    Others(String),
    /// A socket has its inode shortly before the process has a descriptor for it (`do_accept` in net/socket.c).
    NotSeenYet,
}

/// Whose these connections are, by the inodes of the servers' ends.
pub(super) fn whose(inodes: &[u32], wanted: Instance, roots: &[(Instance, i32)]) -> Whose {
    // The wanted instance first: it is the small tree, and the usual answer.
    let its = roots.iter().find(|(instance, _)| *instance == wanted).map(|(_, root)| of(wanted, *root, roots));
    let held = its.map(|processes| sockets(&processes).unwrap_or_default()).unwrap_or_default();
    if let Some(inode) = inodes.iter().find(|inode| held.contains(inode)) {
        return Whose::Its(*inode);
    }
    let in_words = |inode: &u32| {
        let others = roots.iter().filter(|(instance, _)| *instance != wanted);
        let mut holders = others.map(|(other, root)| (*other, holder(*inode, &of(*other, *root, roots))));
        if let Some((other, Some(pid))) = holders.find(|(_, pid)| pid.is_some()) {
            let who = program(pid).unwrap_or_else(|| "?".to_owned());
            let Instance { generation, number } = other;
            return Some(match generation == wanted.generation {
                true => {
                    format!("answered by process {pid} ({who}) of instance {number}, not by instance {}", wanted.number)
                }
                false => format!("answered by process {pid} ({who}) of generation {generation}, not by the new one"),
            });
        }
        let (pid, who) = holder_anywhere(*inode)?;
        Some(format!("answered by process {pid} ({who}), which does not belong to zdr"))
    };
    inodes.iter().find_map(in_words).map_or(Whose::NotSeenYet, Whose::Others)
}

/// The processes of an instance, those whose parents are gone included.
pub(super) fn of(instance: Instance, root: i32, roots: &[(Instance, i32)]) -> Vec<i32> {
    let known: Vec<i32> = roots.iter().map(|(_, root)| *root).collect();
    let mut processes = tree(root);
    processes.extend(orphans(&known, &marker(instance)));
    processes
}

/// Waits until a connection to this machine is accepted, and tells whether the wanted instance has it.
pub(super) fn hook(ends: Ends, wanted: Instance, roots: Vec<(Instance, i32)>) -> Hook {
    Box::new(move || {
        let unknown = |error| format!("cannot tell who answers: sock_diag: {error}");
        let mut diag = SockDiag::open().map_err(unknown)?;
        let mut last = "nobody accepts the connection";
        for _ in 0..POLLS {
            match ends.accepted(&mut diag).map_err(unknown)? {
                Accepted::NotConnected => return Err("the connection was closed".to_owned()),
                Accepted::Waiting => {}
                Accepted::By { inode } => match whose(&[inode], wanted, &roots) {
                    Whose::Its(_) => return Ok(()),
                    Whose::Others(why) => return Err(why),
                    Whose::NotSeenYet => last = UNSEEN,
                },
            }
            park_timeout(Duration::from_millis(1));
        }
        Err(last.to_owned())
    })
}

/// For a connection that somebody has accepted whom `/proc` does not show.
pub(super) const UNSEEN: &str = "cannot tell who answers: /proc does not show who holds the connection";
