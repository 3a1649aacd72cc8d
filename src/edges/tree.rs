//! Killing a tree of processes while it grows.

use std::collections::HashSet;

use super::kernel::pidfd::PidFd;

/// A tree that still forks after so many rounds forks faster than it can be killed; the rest is reaped as orphans.
const ROUNDS: usize = 50;

/// Kills every process that `living` names, again until it names no new one.
///
/// A process is opened first and looked for once more before it is killed, so that a number that went to somebody else
/// in between is not mistaken (pidfd_open(2)).
pub fn kill(living: impl Fn() -> Vec<i32>) {
    let mut killed = HashSet::new();
    for _ in 0..ROUNDS {
        let opened: Vec<(i32, PidFd)> = living()
            .into_iter()
            .filter(|pid| !killed.contains(pid))
            .filter_map(|pid| Some((pid, PidFd::open(pid).ok()?)))
            .collect();
        if opened.is_empty() {
            return;
        }
        let still: HashSet<i32> = living().into_iter().collect();
        for (pid, process) in opened.into_iter().filter(|(pid, _)| still.contains(pid)) {
            // One that has ended meanwhile is what was wanted.
            let _ = process.signal(libc::SIGKILL);
            killed.insert(pid);
        }
    }
}
