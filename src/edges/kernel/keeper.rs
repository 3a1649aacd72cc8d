//! The keeper: a small process that outlives zdr, one for each filter, so that no system call of a server fails or
//! waits for ever because zdr is gone.
//!
//! When the last notify descriptor is closed, a filtered call answers ENOSYS, and while one is open and nobody
//! answers, it waits (seccomp_unotify(2)). While zdr lives, the keeper sleeps; it never decides anything but to let go on.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::ptr;

use super::seccomp::{ENTRIES, Filter, Ledger, Notifier, Response};

mod unneeded;

#[cfg(test)]
mod tests;

use unneeded::Unneeded;

/// A keeper that waits for its filter. Dropped before, it ends.
///
/// It is a child of zdr like any other and has to be reaped; it blocks every signal that can be blocked, and ends by itself
/// when no process is left under the filter.
#[derive(Debug)]
pub struct Keeper {
    pid: i32,
    line: UnixStream,
    ledger: Ledger,
}

// What the keeper's descriptors are called in it.
const LINE: RawFd = 3;

/// The kernel's signal set has 64 bits (`_NSIG` in asm/signal.h).
const KERNEL_SIGSET: libc::size_t = 8;

impl Keeper {
    /// Forks it: it needs nothing but a few pages that it has in common with zdr.
    pub fn start() -> io::Result<Self> {
        let ledger = Ledger::new()?;
        let (line, theirs) = UnixStream::pair()?;
        let unneeded = Unneeded::of_a_child()?;
        let mut blocked = 0_u64;
        let everything = u64::MAX;
        let flags = libc::c_long::from(libc::SIGCHLD);
        // SAFETY: without CLONE_VM this is a fork: the child has its own copy of everything but the ledger, on the same
        // stack, and never leaves `serve`. No handler of ours runs in it, since nothing is delivered until then. The signal
        // sets are as long as the kernel is told.
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
                serve(theirs.as_raw_fd(), &ledger, &unneeded);
            }
            // Before the next call could change it.
            let pid = if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(pid) };
            let nothing: *mut u64 = ptr::null_mut();
            libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const blocked, nothing, KERNEL_SIGSET);
            pid
        };
        Ok(Self { pid: i32::try_from(pid?).map_err(io::Error::other)?, line, ledger })
    }

    /// Its process id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The filter for the child that is to be kept; this keeper has to live until that child was executed.
    pub fn filter(&self) -> Filter {
        Filter::new(Some(self.line.as_raw_fd()))
    }

    /// Begins to answer what `filter` notifies, with the descriptor that `Filter::sent` gave; the child has sent it to the
    /// keeper as well. As long as the notifier lives, the keeper answers nothing.
    pub fn keep(self, notify: OwnedFd) -> Notifier {
        Notifier::new(notify, self.ledger, Some(self.line))
    }
}

/// The life of the keeper.
///
/// # Safety
/// Only in a child that was just forked, whose stack and ledger are kept. Other threads of zdr may have held locks, so
/// there is nothing here but system calls and memory that is already there.
unsafe fn serve(line: RawFd, ledger: &Ledger, unneeded: &Unneeded) -> ! {
    // SAFETY: forwarded from the caller; _exit runs no code of zdr's.
    unsafe {
        settle(line);
        unneeded.give_back();
        let Some(notify) = receive(LINE) else { libc::_exit(0) };
        // Only what is always reported, a hang-up, wakes it up: not the calls that zdr answers.
        let mut watched = [watch(LINE, 0), watch(notify, 0)];
        while watched[0].revents == 0 && watched[1].revents == 0 {
            wait(&mut watched);
        }
        if watched[0].revents != 0 {
            libc::syscall(libc::SYS_close, LINE);
            for entry in 0..ENTRIES {
                if let Some((id, done)) = ledger.unanswered(entry) {
                    let response = if done { Response::result(id, Ok(())) } else { Response::go_on(id) };
                    // Its caller may be gone, or zdr was killed after it had answered.
                    let _ = response.send(notify);
                }
            }
            let mut calls = [watch(notify, libc::POLLIN)];
            loop {
                wait(&mut calls);
                if calls[0].revents & libc::POLLIN == 0 {
                    break;
                }
                let_go_on(notify, ledger);
            }
        }
        libc::_exit(0)
    }
}

/// # Safety
/// As `serve`.
unsafe fn let_go_on(notify: RawFd, ledger: &Ledger) {
    // SAFETY: the structure is as long as this kernel's, and its number comes first (`struct seccomp_notif`).
    unsafe {
        let call = ledger.first();
        if libc::ioctl(notify, libc::SECCOMP_IOCTL_NOTIF_RECV, call) == 0 {
            let _ = Response::go_on(ptr::read(call.cast())).send(notify);
        }
    }
}

/// Leaves everything of zdr's but the line to it: its group, its directory, its descriptors.
///
/// # Safety
/// As `serve`.
unsafe fn settle(line: RawFd) {
    // SAFETY: system calls on numbers and on strings that end in zero.
    unsafe {
        libc::syscall(libc::SYS_setpgid, 0, 0);
        libc::syscall(libc::SYS_prctl, libc::PR_SET_NAME, c"zdr-keeper".as_ptr(), 0, 0, 0);
        libc::syscall(libc::SYS_chdir, c"/".as_ptr());
        if line != LINE {
            libc::syscall(libc::SYS_dup3, line, LINE, 0);
        }
        libc::syscall(libc::SYS_close_range, LINE + 1, libc::c_uint::MAX, 0);
        for standard in 0..LINE {
            libc::syscall(libc::SYS_close, standard);
        }
        // Each gets the lowest number that is free; they stay closed where there is no such file.
        for _ in 0..LINE {
            libc::syscall(libc::SYS_openat, libc::AT_FDCWD, c"/dev/null".as_ptr(), libc::O_RDWR);
        }
    }
}

/// The one descriptor that comes over the line; None at its end.
///
/// # Safety
/// As `serve`.
unsafe fn receive(line: RawFd) -> Option<RawFd> {
    // SAFETY: all pointers are to this stack and outlive the call; a header that the kernel wrote lies within the room.
    unsafe {
        let mut byte = 0_u8;
        let mut bytes = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        let mut room = [0_u64; 4];
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut bytes;
        message.msg_iovlen = 1;
        message.msg_control = room.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&room) as _;
        while libc::syscall(libc::SYS_recvmsg, line, &raw mut message, 0) < 0 {
            if *libc::__errno_location() != libc::EINTR {
                return None;
            }
        }
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (!header.is_null()).then(|| ptr::read_unaligned(libc::CMSG_DATA(header).cast()))
    }
}

const fn watch(fd: RawFd, events: i16) -> libc::pollfd {
    libc::pollfd { fd, events, revents: 0 }
}

/// ppoll(2), which all architectures have, without an end.
///
/// # Safety
/// As `serve`.
unsafe fn wait(watched: &mut [libc::pollfd]) {
    let nothing: *const libc::c_void = ptr::null();
    // SAFETY: the pointer and the length describe the slice; the others may be null.
    unsafe { libc::syscall(libc::SYS_ppoll, watched.as_mut_ptr(), watched.len(), nothing, nothing, 0) };
}
