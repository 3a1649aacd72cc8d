//! pidfd_open(2) and pidfd_send_signal(2): a process that cannot be mistaken for another that got its number later.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// A process, as long as this is held.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// The process that has this number now.
    pub fn open(pid: i32) -> io::Result<Self> {
        // SAFETY: the call takes two numbers; a descriptor that it returns is new and nobody else's.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let fd = RawFd::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
        // SAFETY: as above; it is owned from here on.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    pub(super) fn from_owned(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Sends a signal; a process that has ended is no error worth telling, and answers ESRCH.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        let no_info: *const libc::siginfo_t = std::ptr::null();
        // SAFETY: the descriptor is open for the time of the call, and a null info is allowed (pidfd_send_signal(2)).
        match unsafe { libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), signal, no_info, 0) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}
