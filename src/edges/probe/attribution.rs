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
    /// Another instance of the same generation has this one.
    Like(u32, Instance, String),
    /// Somebody else, in words.
    Others(String),
    /// A socket has its inode shortly before the process has a descriptor for it (`do_accept` in net/socket.c).
    NotSeenYet,
}

/// Whose these connections are, by the inodes of the servers' ends.
pub(super) fn whose(inodes: &[u32], wanted: Instance, roots: &[(Instance, i32)]) -> Whose {
    let main = |(instance, root): &(Instance, i32)| (*instance, vec![*root]);
    let all = |(instance, root): &(Instance, i32)| (*instance, of(*instance, *root, roots));
    let is_it = |(instance, _): &&(Instance, i32)| *instance == wanted;
    let is_like = |at: &&(Instance, i32)| at.0.generation == wanted.generation && !is_it(at);
    // The wanted instance first, the usual answer. Of many instances the whole trees take long to look through, so the main
    // processes of its likes come before that.
    let near = roots.iter().filter(is_it).chain(roots.iter().filter(is_like)).map(main);
    let whole = roots.iter().filter(is_it).chain(roots.iter().filter(|at| !is_it(at))).map(all);
    let mut found = near.chain(whole).filter_map(|(instance, processes)| {
        let held = sockets(&processes).unwrap_or_default();
        let inode = *inodes.iter().find(|inode| held.contains(inode))?;
        Some((instance, inode, processes))
    });
    if let Some((instance, inode, processes)) = found.next() {
        return judged(wanted, instance, inode, &processes);
    }
    let stranger = inodes.iter().find_map(|inode| holder_anywhere(*inode));
    let in_words =
        |(pid, who)| Whose::Others(format!("answered by process {pid} ({who}), which does not belong to zdr"));
    stranger.map_or(Whose::NotSeenYet, in_words)
}

fn judged(wanted: Instance, found: Instance, inode: u32, processes: &[i32]) -> Whose {
    if found == wanted {
        return Whose::Its(inode);
    }
    // It may have been closed since.
    let Some(pid) = holder(inode, processes) else { return Whose::NotSeenYet };
    let who = program(pid).unwrap_or_else(|| "?".to_owned());
    let Instance { generation, number } = found;
    match generation == wanted.generation {
        true => {
            let others = format!("of instance {number}, not by instance {}", wanted.number);
            Whose::Like(inode, found, format!("answered by process {pid} ({who}) {others}"))
        }
        false => {
            Whose::Others(format!("answered by process {pid} ({who}) of generation {generation}, not by the new one"))
        }
    }
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
                    Whose::Like(_, _, why) | Whose::Others(why) => return Err(why),
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
