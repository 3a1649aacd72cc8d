//! setfsuid(2), setfsgid(2): looking at files with the rights of somebody else: at those of `/proc` as whoever a process
//! belongs to, and at a server's as the user that it is to be.
//!
//! Root without CAP_SYS_PTRACE, as in a default container, may not look at the descriptors and the environment of a process
//! of another user; that user may (PTRACE_MODE_READ_FSCREDS, proc(5)). Only the thread that looks is changed, and only
//! while it looks.

use std::fs;
use std::os::unix::fs::MetadataExt;

// Where there are two, the older one has room for small numbers only (setgroups(2)).
#[cfg(not(any(target_arch = "x86", target_arch = "arm")))]
use libc::SYS_setgroups as SYS_SETGROUPS;
#[cfg(any(target_arch = "x86", target_arch = "arm"))]
use libc::SYS_setgroups32 as SYS_SETGROUPS;

use super::clone::Ids;

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

/// Looks as somebody with these groups, or as we are.
pub fn as_user<T>(ids: Option<&Ids>, look: impl FnOnce() -> T) -> T {
    let _eyes = ids.map(|ids| {
        let groups = nix::unistd::getgroups().unwrap_or_default().into_iter().map(nix::unistd::Gid::as_raw).collect();
        set_groups(&ids.groups);
        let mut eyes = Eyes::of(ids.uid, ids.gid);
        eyes.groups = Some(groups);
        eyes
    });
    look()
}

/// This thread sees as another user until it is dropped.
struct Eyes {
    /// Ours, where it has taken others as well.
    groups: Option<Vec<u32>>,
}

impl Eyes {
    fn of(uid: u32, gid: u32) -> Self {
        set(uid, gid);
        Self { groups: None }
    }
}

impl Drop for Eyes {
    fn drop(&mut self) {
        set(nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        if let Some(groups) = &self.groups {
            set_groups(groups);
        }
    }
}

/// The groups of this thread alone: the C library's would be those of all (setgroups(2)).
fn set_groups(groups: &[u32]) {
    // SAFETY: the kernel reads so many numbers from where they are; it takes them all or none.
    unsafe {
        libc::syscall(SYS_SETGROUPS, groups.len(), groups.as_ptr());
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
