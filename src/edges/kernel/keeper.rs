//! The keeper: a small process that outlives zdr, one for each filter, so that no system call of a server fails or
//! waits for ever because zdr is gone.
//!
//! When the last notify descriptor is closed, a filtered call answers ENOSYS, and while one is open and nobody
//! answers, it waits (seccomp_unotify(2)). While zdr lives, the keeper sleeps; it never decides anything but to let go on.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::ptr;

use super::companion::{self, Equipment, errno, watch};
use super::seccomp::{ENTRIES, Filter, Ledger, Notifier, Response};

#[cfg(test)]
mod tests;

/// A keeper that waits for its filter. Dropped before, it ends.
///
/// It ends by itself when no process is left under the filter.
#[derive(Debug)]
pub struct Keeper {
    pid: i32,
    line: UnixStream,
    ledger: Ledger,
}

impl Keeper {
    /// Forks it: it needs nothing but a few pages that it has in common with zdr.
    pub fn start() -> io::Result<Self> {
        let ledger = Ledger::new()?;
        let (line, theirs) = UnixStream::pair()?;
        let descriptors = [theirs.as_raw_fd()];
        let equipment = Equipment { name: c"zdr-keeper", descriptors, shared: ledger.place() };
        // SAFETY: the ledger is shared memory, and its description is on this stack.
        let pid = unsafe { companion::fork(&equipment, || serve(theirs.as_raw_fd(), &ledger)) }?;
        Ok(Self { pid, line, ledger })
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
/// As for the life of a companion (`companion::fork`).
unsafe fn serve(line: RawFd, ledger: &Ledger) -> ! {
    // SAFETY: forwarded from the caller; _exit runs no code of zdr's.
    unsafe {
        let Some(notify) = receive(line) else { libc::_exit(0) };
        // Only what is always reported, a hang-up, wakes it up: not the calls that zdr answers.
        let mut watched = [watch(line, 0), watch(notify, 0)];
        while watched[0].revents == 0 && watched[1].revents == 0 {
            companion::wait(&mut watched, None);
        }
        if watched[0].revents != 0 {
            libc::syscall(libc::SYS_close, line);
            for entry in 0..ENTRIES {
                if let Some((id, done)) = ledger.unanswered(entry) {
                    let response = if done { Response::result(id, Ok(())) } else { Response::go_on(id) };
                    // Its caller may be gone, or zdr was killed after it had answered.
                    let _ = response.send(notify);
                }
            }
            let mut calls = [watch(notify, libc::POLLIN)];
            loop {
                companion::wait(&mut calls, None);
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
            if errno() != libc::EINTR {
                return None;
            }
        }
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (!header.is_null()).then(|| ptr::read_unaligned(libc::CMSG_DATA(header).cast()))
    }
}
