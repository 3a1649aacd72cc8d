//! Who answers: the process that accepted a probe, and the generation it belongs to.
//!
//! Called between the question and its last bytes, so that nobody has answered yet.

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::thread::park_timeout;
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};

use super::http::Hook;
use crate::edges::kernel::sock_diag::{Accepted, SockDiag};
use crate::edges::processes::{holder, holder_anywhere, program, tree};
use crate::supervisor::Generation;

/// How long a connection may wait to be accepted, in polls of one millisecond.
const POLLS: u32 = 3000;

/// For a TCP connection to this machine: the kernel names the socket that the server got, /proc who holds it.
pub(super) fn of_tcp(
    client: SocketAddr,
    server: SocketAddr,
    wanted: Generation,
    roots: Vec<(Generation, i32)>,
) -> Hook {
    Box::new(move || {
        let mut diag = SockDiag::open().map_err(|error| format!("cannot tell who answers: sock_diag: {error}"))?;
        for _ in 0..POLLS {
            match diag.accepted(client, server).map_err(|error| format!("cannot tell who answers: {error}"))? {
                Accepted::By { inode } => return belongs(inode, wanted, &roots),
                Accepted::NotConnected => return Err("the connection was closed".to_owned()),
                Accepted::Waiting => park_timeout(Duration::from_millis(1)),
            }
        }
        Err("nobody accepts the connection".to_owned())
    })
}

/// For a Unix socket: the kernel tells who called listen(2) (SO_PEERCRED, unix(7)).
pub(super) fn of_unix(stream: &UnixStream, wanted: Generation, roots: Vec<(Generation, i32)>) -> Hook {
    let peer = getsockopt(&stream.as_fd(), PeerCredentials);
    Box::new(move || {
        let pid = peer.map_err(|error| format!("cannot tell who answers: {error}"))?.pid();
        owned(pid, wanted, &roots)
    })
}

fn belongs(inode: u32, wanted: Generation, roots: &[(Generation, i32)]) -> Result<(), String> {
    // The new generation first: it is the small tree, and the usual answer.
    let newest_first = roots.iter().filter(|(generation, _)| *generation == wanted);
    for (generation, root) in newest_first.chain(roots.iter().filter(|(generation, _)| *generation != wanted)) {
        if let Some(pid) = holder(inode, &tree(*root)) {
            return answered(pid, Some(*generation), wanted);
        }
    }
    match holder_anywhere(inode) {
        Some((pid, _)) => answered(pid, None, wanted),
        None => Err("cannot tell who answers: /proc does not show who holds the connection".to_owned()),
    }
}

fn owned(pid: i32, wanted: Generation, roots: &[(Generation, i32)]) -> Result<(), String> {
    let generation = roots.iter().find(|(_, root)| tree(*root).contains(&pid)).map(|(generation, _)| *generation);
    answered(pid, generation, wanted)
}

fn answered(pid: i32, generation: Option<Generation>, wanted: Generation) -> Result<(), String> {
    let who = program(pid).unwrap_or_else(|| "?".to_owned());
    match generation {
        Some(generation) if generation == wanted => Ok(()),
        Some(generation) => {
            Err(format!("answered by process {pid} ({who}) of generation {generation}, not by the new one"))
        }
        None => Err(format!("answered by process {pid} ({who}), which does not belong to zdr")),
    }
}
