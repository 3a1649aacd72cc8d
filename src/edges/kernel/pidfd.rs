//! pidfd_open(2), pidfd_send_signal(2) and pidfd_getfd(2): a process that cannot be mistaken for another that got its
//! number later.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// A process, as long as this is held.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// The process that has this number now.
    pub fn open(pid: i32) -> io::Result<Self> {
        Self::open_with(pid, 0)
    }

    /// The thread that has this number now; before Linux 6.9 the process that it belongs to (PIDFD_THREAD, pidfd_open(2)).
    pub fn of_thread(thread: i32) -> io::Result<Self> {
        match Self::open_with(thread, libc::PIDFD_THREAD) {
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Self::open(process_of(thread)?),
            opened => opened,
        }
    }

    fn open_with(number: i32, flags: libc::c_uint) -> io::Result<Self> {
        // SAFETY: the call takes two numbers, and a descriptor that it returns is new and nobody else's.
        unsafe { owned(libc::syscall(libc::SYS_pidfd_open, number, flags)) }.map(Self)
    }

    /// A copy of one of its descriptors, closed on exec. It takes the right to trace the process (pidfd_getfd(2)).
    pub fn copy_of(&self, fd: i32) -> io::Result<OwnedFd> {
        // SAFETY: the call takes three numbers, and a descriptor that it returns is new and nobody else's.
        unsafe { owned(libc::syscall(libc::SYS_pidfd_getfd, self.0.as_raw_fd(), fd, 0)) }
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

/// The descriptor that a system call returned, or its error.
///
/// # Safety
/// It is new and nobody else's.
unsafe fn owned(returned: libc::c_long) -> io::Result<OwnedFd> {
    let fd = RawFd::try_from(returned).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)?;
    // SAFETY: forwarded from the caller.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The process that a thread belongs to (`Tgid`, proc_pid_status(5)).
fn process_of(thread: i32) -> io::Result<i32> {
    let status = fs::read_to_string(format!("/proc/{thread}/status"))?;
    let process = status.lines().find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok());
    process.ok_or_else(|| io::ErrorKind::InvalidData.into())
}
