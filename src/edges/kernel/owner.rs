//! setfsuid(2), setfsgid(2): looking at files of `/proc` with the rights of whoever a process belongs to.
//!
//! Root without CAP_SYS_PTRACE, as in a default container, may not look at the descriptors and the environment of a process
//! of another user; that user may (PTRACE_MODE_READ_FSCREDS, proc(5)). Only the thread that looks is changed, and only
//! while it looks.

use std::fs;
use std::os::unix::fs::MetadataExt;

/// Looks as we are, and where that is refused once more as the owner of the process.
pub fn as_we_or_owner<T, E>(pid: i32, refused: impl Fn(&E) -> bool, look: impl Fn() -> Result<T, E>) -> Result<T, E> {
    let first = look();
    if !first.as_ref().is_err_and(refused) || !nix::unistd::geteuid().is_root() {
        return first;
    }
    // A process that is not to be looked at belongs to root here (PR_SET_DUMPABLE).
    match fs::metadata(format!("/proc/{pid}")) {
        Ok(owner) if owner.uid() != 0 => {
            let _eyes = Eyes::of(owner.uid(), owner.gid());
            look()
        }
        _ => first,
    }
}

/// This thread sees as another user until it is dropped.
struct Eyes;

impl Eyes {
    fn of(uid: u32, gid: u32) -> Self {
        set(uid, gid);
        Self
    }
}

impl Drop for Eyes {
    fn drop(&mut self) {
        set(nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
    }
}

/// Both calls always succeed or change nothing, and tell only who it was before.
fn set(uid: u32, gid: u32) {
    // SAFETY: the calls take numbers and concern the file access of this thread alone (setfsuid(2)). The group first when
    // it is taken on, because it needs the right that the user takes away; the user's right comes back with the user.
    unsafe {
        libc::setfsgid(gid);
        libc::setfsuid(uid);
    }
}
