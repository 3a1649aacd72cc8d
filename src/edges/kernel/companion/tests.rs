//! The end of a companion, for the tests of all of them.

use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Waits until a process that was opened has ended.
pub(in super::super) struct End(OwnedFd);

impl End {
    pub(in super::super) fn of(pid: i32) -> Self {
        // SAFETY: the call takes two numbers, and what it returns is new and nobody else's.
        Self(unsafe {
            let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
            OwnedFd::from_raw_fd(RawFd::try_from(fd).ok().filter(|fd| *fd >= 0).expect("it runs"))
        })
    }

    pub(in super::super) fn has_come(&self) -> bool {
        poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO).unwrap() == 1
    }

    pub(in super::super) fn comes(self) {
        poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).unwrap();
    }
}
