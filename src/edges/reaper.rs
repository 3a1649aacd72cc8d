//! Children that have ended, ours and the orphans that were given to us.

use nix::sys::prctl::set_child_subreaper;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};

use crate::supervisor::Exit;

/// Makes orphaned descendants our children, so that a generation's tree can be found and reaped
/// (PR_SET_CHILD_SUBREAPER, prctl(2)).
pub fn adopt_orphans() -> std::io::Result<()> {
    Ok(set_child_subreaper(true)?)
}

/// Reaps every child that has ended, without waiting. One SIGCHLD may stand for many.
pub fn reap() -> Vec<(i32, Exit)> {
    std::iter::from_fn(|| match waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG) {
        Ok(WaitStatus::Exited(pid, code)) => Some((pid.as_raw(), Exit::Code(code))),
        Ok(WaitStatus::Signaled(pid, signal, _)) => Some((pid.as_raw(), Exit::Signal(signal as i32))),
        _ => None,
    })
    .collect()
}
