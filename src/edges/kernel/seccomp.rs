//! seccomp user notification: calls of an instance that wait for an answer by zdr (seccomp_unotify(2)).
//!
//! It never decides what becomes of a call. One that is dropped without an answer goes on, so that none waits for ever.
//! Until a call is received, a signal ends its wait: with SA_RESTART it begins again under a new number, without it is
//! EINTR, which bind(2) alone never gives (kernel: `seccomp_do_user_notification`). So calls are received without delay.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

pub use self::filter::Filter;
use self::ledger::State;
pub(super) use self::ledger::{ENTRIES, Ledger};
pub use self::memory::{read_memory, read_string};

mod filter;
mod ledger;
mod memory;

#[cfg(test)]
pub(super) mod tests;

/// What zdr knows of the kernel's structures; a later kernel may append to them (seccomp_unotify(2)).
const NOTIFICATION: usize = size_of::<libc::seccomp_notif>();
const RESPONSE: usize = size_of::<libc::seccomp_notif_resp>();

/// Room for the response of any kernel that is to come, zero behind what is known.
const RESPONSE_ROOM: usize = 256;

/// A call that waits for an answer.
///
/// The thread may be killed while it waits, and its number go to another: what was read of it by number counts only
/// if `Notifier::is_valid` says so afterwards.
#[derive(Debug)]
pub struct Notification {
    /// The thread that calls, as zdr sees it; 0 if it is outside of what zdr sees.
    pub thread: i32,
    /// What it asks for.
    pub call: Call,
    id: u64,
    entry: usize,
    answered: AtomicBool,
    notifier: Notifier,
}

/// A call as it was made, its pointers into the caller's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// bind(2).
    Bind {
        /// The socket, by the caller's number.
        fd: i32,
        /// Where the address is.
        address: u64,
        /// How long it is said to be.
        length: u32,
    },
    /// listen(2).
    Listen {
        /// The socket, by the caller's number.
        fd: i32,
        /// How many may wait.
        backlog: i32,
    },
    /// unlink(2) or unlinkat(2) of what is no directory.
    Unlink {
        /// What a relative path is relative to, by the caller's number, or AT_FDCWD.
        directory: i32,
        /// Where the path is.
        path: u64,
    },
}

/// The receiving end of a filter; a clone is another handle of the same. When the last one and the last unanswered call
/// are gone, the keeper takes over.
#[derive(Clone, Debug)]
pub struct Notifier(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    notify: OwnedFd,
    ledger: Ledger,
    /// The keeper takes over when this is closed.
    _keeper: Option<UnixStream>,
}

impl Notifier {
    /// From the descriptor that `Filter::sent` gave, and what a keeper watches.
    pub(super) fn new(notify: OwnedFd, ledger: Ledger, keeper: Option<UnixStream>) -> Self {
        Self(Arc::new(Shared { notify, ledger, _keeper: keeper }))
    }

    /// Takes the next call, never waits for one. None is also the answer while 64 calls are unanswered; more wait in the kernel.
    ///
    /// # Errors
    /// `UnexpectedEof` when no process is left under the filter: nothing will come any more (Linux 5.9).
    pub fn receive(&self) -> io::Result<Option<Notification>> {
        let Shared { notify, ledger, .. } = &*self.0;
        let mut asked = [PollFd::new(notify.as_fd(), PollFlags::POLLIN)];
        // The receiving call would wait, whatever O_NONBLOCK says, so it is asked only for what is there.
        match poll(&mut asked, PollTimeout::ZERO) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let answer = asked[0].revents().unwrap_or(PollFlags::empty());
        if !answer.contains(PollFlags::POLLIN) {
            let over = answer.contains(PollFlags::POLLHUP);
            return if over { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(None) };
        }
        let Some(entry) = ledger.claim() else {
            return Ok(None);
        };
        let structure = ledger.structure(entry);
        // SAFETY: the entry is ours, zeroed, and as long as this kernel's structure.
        if unsafe { libc::ioctl(notify.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, structure) } != 0 {
            let error = io::Error::last_os_error();
            ledger.set(entry, State::Free);
            // The caller was killed in between, or a signal came to it or to us.
            let gone = matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR));
            return if gone { Ok(None) } else { Err(error) };
        }
        // SAFETY: the kernel has written the structure, it is at least as long as what zdr knows, and any bytes are numbers.
        let told: libc::seccomp_notif = unsafe { ptr::read(structure.cast()) };
        let notification = |call| Notification {
            thread: told.pid.cast_signed(),
            call,
            id: told.id,
            entry,
            answered: AtomicBool::new(false),
            notifier: self.clone(),
        };
        let Some(call) = Call::read(&told.data) else {
            // Not by our filter; it goes on when it is dropped.
            drop(notification(Call::Listen { fd: -1, backlog: 0 }));
            return Ok(None);
        };
        Ok(Some(notification(call)))
    }

    /// Whether the call still waits, so that what was learnt by the thread's number was learnt of the right one.
    pub fn is_valid(&self, notification: &Notification) -> bool {
        let notify = self.0.notify.as_raw_fd();
        // SAFETY: the kernel reads one number, which lives for the time of the call.
        unsafe { libc::ioctl(notify, libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const notification.id) == 0 }
    }

    /// Lets the kernel carry the call out as if there had been no filter.
    pub fn go_on(&self, notification: &Notification) -> io::Result<()> {
        self.respond(notification, &Response::go_on(notification.id))
    }

    /// Answers in the kernel's place: 0, or the number of an error. A caller that was killed meanwhile is ENOENT.
    pub fn answer(&self, notification: &Notification, result: Result<(), i32>) -> io::Result<()> {
        self.respond(notification, &Response::result(notification.id, result))
    }

    /// Remembers that what the call asks for is done. Should zdr be killed before it answers, the keeper answers 0.
    pub fn done(&self, notification: &Notification) {
        self.0.ledger.set(notification.entry, State::Done);
    }

    /// Puts a copy of `socket` over descriptor `over` of the caller, which is closed, and remembers that as `done`. The copy
    /// shares O_NONBLOCK with `socket`. The call itself is answered apart (SECCOMP_IOCTL_NOTIF_ADDFD, seccomp_unotify(2)).
    pub fn place(
        &self,
        notification: &Notification,
        socket: BorrowedFd<'_>,
        over: i32,
        close_on_exec: bool,
    ) -> io::Result<()> {
        let close_on_exec = if close_on_exec { libc::O_CLOEXEC.cast_unsigned() } else { 0 };
        let request = libc::seccomp_notif_addfd {
            id: notification.id,
            flags: 1, // SECCOMP_ADDFD_FLAG_SETFD
            srcfd: socket.as_raw_fd().cast_unsigned(),
            newfd: over.cast_unsigned(),
            newfd_flags: close_on_exec,
        };
        // SAFETY: the kernel reads the structure, which lives for the time of the call; its number tells its length.
        let placed =
            unsafe { libc::ioctl(self.0.notify.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD, &raw const request) };
        if placed < 0 {
            return Err(io::Error::last_os_error());
        }
        self.done(notification);
        Ok(())
    }

    fn respond(&self, notification: &Notification, response: &Response) -> io::Result<()> {
        // SAFETY: the descriptor is open for the time of the call.
        let sent = unsafe { response.send(self.0.notify.as_raw_fd()) };
        if !notification.answered.swap(true, Ordering::AcqRel) {
            self.0.ledger.set(notification.entry, State::Free);
        }
        sent.map_err(io::Error::from_raw_os_error)
    }
}

impl AsFd for Notifier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.notify.as_fd()
    }
}

impl Drop for Notification {
    fn drop(&mut self) {
        if !self.answered.load(Ordering::Acquire) {
            let response = match self.notifier.0.ledger.is_done(self.entry) {
                true => Response::result(self.id, Ok(())),
                false => Response::go_on(self.id),
            };
            // A caller that is gone needs no answer.
            let _ = self.notifier.respond(self, &response);
        }
    }
}

impl Call {
    fn read(data: &libc::seccomp_data) -> Option<Self> {
        // What an argument means is in its low half: they are `int`s and `socklen_t`s.
        #[expect(clippy::cast_possible_truncation, reason = "the kernel truncates them in the same way")]
        let [number, first, second, third] =
            [data.nr.cast_unsigned(), data.args[0] as u32, data.args[1] as u32, data.args[2] as u32];
        let number = libc::c_long::from(number);
        match number {
            libc::SYS_bind => Some(Self::Bind { fd: first.cast_signed(), address: data.args[1], length: third }),
            libc::SYS_listen => Some(Self::Listen { fd: first.cast_signed(), backlog: second.cast_signed() }),
            libc::SYS_unlinkat => Some(Self::Unlink { directory: first.cast_signed(), path: data.args[1] }),
            _ if Some(number) == filter::UNLINK => Some(Self::Unlink { directory: libc::AT_FDCWD, path: data.args[0] }),
            _ => None,
        }
    }
}

/// `struct seccomp_notif_resp` with the room that a later kernel may read.
#[repr(C)]
pub(super) struct Response {
    known: libc::seccomp_notif_resp,
    room: [u8; RESPONSE_ROOM - RESPONSE],
}

impl Response {
    /// SECCOMP_USER_NOTIF_FLAG_CONTINUE.
    pub(super) const fn go_on(id: u64) -> Self {
        Self::new(id, 0, 1)
    }

    /// 0, or the number of an error.
    pub(super) const fn result(id: u64, result: Result<(), i32>) -> Self {
        let error = match result {
            Ok(()) => 0,
            Err(errno) => -errno,
        };
        Self::new(id, error, 0)
    }

    const fn new(id: u64, error: i32, flags: u32) -> Self {
        let known = libc::seccomp_notif_resp { id, val: 0, error, flags };
        Self { known, room: [0; RESPONSE_ROOM - RESPONSE] }
    }

    /// Sends it over this notify descriptor.
    ///
    /// # Safety
    /// Nothing is asked of the caller but an open descriptor. One system call and no allocation.
    pub(super) unsafe fn send(&self, notify: libc::c_int) -> Result<(), i32> {
        // SAFETY: the kernel reads the structure and no more than the room behind it, checked when the ledger was made.
        unsafe {
            match libc::ioctl(notify, libc::SECCOMP_IOCTL_NOTIF_SEND, ptr::from_ref(self)) {
                0 => Ok(()),
                _ => Err(*libc::__errno_location()),
            }
        }
    }
}
