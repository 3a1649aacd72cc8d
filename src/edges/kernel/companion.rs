//! What a keeper and a relay have in common: they are forked from zdr, execute nothing, and outlive it.
//!
//! A companion leaves zdr's process group, directory and descriptors, gives its memory back, and cannot be interrupted by any
//! signal that can be blocked. It is a child of zdr like any other and has to be reaped.

use std::convert::Infallible;
use std::ffi::CStr;
use std::io;
use std::os::fd::RawFd;
use std::ptr;

#[cfg(test)]
pub(super) mod tests;
mod unneeded;

use unneeded::Unneeded;

/// The kernel's signal set has 64 bits (`_NSIG` in asm/signal.h).
const KERNEL_SIGSET: libc::size_t = 8;

/// What a companion is given.
#[derive(Debug)]
pub(super) struct Equipment<'a, const KEPT: usize> {
    /// What it is called (PR_SET_NAME, prctl(2)).
    pub(super) name: &'a CStr,
    /// The descriptors that it keeps, under their numbers.
    pub(super) descriptors: [RawFd; KEPT],
    /// Where the memory begins that it has in common with zdr.
    pub(super) shared: usize,
}

/// Forks one, which lives `life`, and answers with its process id.
///
/// # Safety
/// Other threads may have held locks, and the heap is given back: `life` uses nothing but system calls, its own stack, what it
/// has captured by value or by reference to the caller's stack, and the shared memory.
pub(super) unsafe fn fork<const KEPT: usize>(
    equipment: &Equipment<'_, KEPT>,
    life: impl FnOnce() -> Infallible,
) -> io::Result<i32> {
    let unneeded = Unneeded::of_a_child(equipment.shared)?;
    let mut blocked = 0_u64;
    let everything = u64::MAX;
    let flags = libc::c_long::from(libc::SIGCHLD);
    // SAFETY: without CLONE_VM this is a fork: the child has its own copy of everything but the shared memory, on the same stack,
    // and never leaves `life`. No handler of ours runs in it, since nothing is delivered until then. The signal sets are as
    // long as the kernel is told.
    let pid = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const everything,
            &raw mut blocked,
            KERNEL_SIGSET,
        );
        let pid = libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0);
        if pid == 0 {
            settle(equipment.name, equipment.descriptors);
            unneeded.give_back();
            life();
        }
        // Before the next call could change it.
        let pid = if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(pid) };
        let nothing: *mut u64 = ptr::null_mut();
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const blocked, nothing, KERNEL_SIGSET);
        pid
    };
    i32::try_from(pid?).map_err(io::Error::other)
}

/// Leaves everything of zdr's but these descriptors to it: its group, its directory, the others.
///
/// # Safety
/// As for the life of a companion.
unsafe fn settle<const KEPT: usize>(name: &CStr, mut kept: [RawFd; KEPT]) {
    kept.sort_unstable();
    // SAFETY: system calls on numbers and on strings that end in zero.
    unsafe {
        libc::syscall(libc::SYS_setpgid, 0, 0);
        libc::syscall(libc::SYS_prctl, libc::PR_SET_NAME, name.as_ptr(), 0, 0, 0);
        libc::syscall(libc::SYS_chdir, c"/".as_ptr());
        let mut next = 0;
        for fd in kept {
            if next < fd {
                libc::syscall(libc::SYS_close_range, next, fd - 1, 0);
            }
            next = fd + 1;
        }
        libc::syscall(libc::SYS_close_range, next, libc::c_uint::MAX, 0);
        // Each gets the lowest number that is free. They stay closed where there is no such file.
        loop {
            let fd = libc::syscall(libc::SYS_openat, libc::AT_FDCWD, c"/dev/null".as_ptr(), libc::O_RDWR);
            if fd > libc::c_long::from(libc::STDERR_FILENO) {
                libc::syscall(libc::SYS_close, fd);
            }
            if !(0..=libc::c_long::from(libc::STDERR_FILENO)).contains(&fd) {
                break;
            }
        }
    }
}

/// What `wait` is to look at.
pub(super) const fn watch(fd: RawFd, events: i16) -> libc::pollfd {
    libc::pollfd { fd, events, revents: 0 }
}

/// ppoll(2), which all architectures have: until there is something, or for so many seconds and nanoseconds.
///
/// # Safety
/// As for the life of a companion; any other caller may use it as well.
pub(super) unsafe fn wait(watched: &mut [libc::pollfd], longest: Option<[libc::c_long; 2]>) {
    let nothing: *const libc::c_void = ptr::null();
    let timeout = longest.as_ref().map_or(nothing, |longest| longest.as_ptr().cast());
    // SAFETY: the pointer and the length describe the slice; the timeout lives as long as the call; the others may be null.
    unsafe { libc::syscall(libc::SYS_ppoll, watched.as_mut_ptr(), watched.len(), timeout, nothing, 0) };
}

/// The error number of the last system call.
pub(super) fn errno() -> i32 {
    // SAFETY: it is this thread's own, and there from its beginning.
    unsafe { *libc::__errno_location() }
}
