//! The page that zdr shares with a keeper: which calls were received and are not answered yet.
//!
//! A call that was received waits for an answer with its number, and the kernel tells that number once (kernel:
//! `seccomp_notify_recv` in kernel/seccomp.c). So zdr receives right into this page: there is no moment at which
//! it could be killed with a number that nobody else knows.

use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::{NOTIFICATION, RESPONSE, RESPONSE_ROOM};

/// How many calls may wait for an answer at once.
pub(in crate::edges::kernel) const ENTRIES: usize = 64;

/// What precedes the kernel's structure in an entry: its state, and room to keep it aligned.
const HEAD: usize = 8;

/// The page, or as many as the structures of this kernel need.
#[derive(Debug)]
pub(in crate::edges::kernel) struct Ledger {
    start: NonNull<u8>,
    /// From one entry to the next.
    stride: usize,
    /// Of the kernel's structure in it.
    notification: usize,
}

/// What is to be done with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::edges::kernel) enum State {
    /// There is none.
    Free,
    /// It has been received, or is just being.
    Received,
    /// What it asks for is done already, but it was not told.
    Done,
}

impl State {
    const fn number(self) -> u32 {
        match self {
            Self::Free => 0,
            Self::Received => 1,
            Self::Done => 2,
        }
    }
}

// SAFETY: the memory is shared with another process anyway: it is used through atomics, and what is not atomic belongs
// to whoever has claimed the entry.
unsafe impl Send for Ledger {}
// SAFETY: as above.
unsafe impl Sync for Ledger {}

impl Ledger {
    /// Maps it, shared with the children that are forked from here on.
    pub(in crate::edges::kernel) fn new() -> io::Result<Self> {
        let sizes = sizes()?;
        let notification = usize::from(sizes.seccomp_notif);
        if notification < NOTIFICATION || !(RESPONSE..=RESPONSE_ROOM).contains(&usize::from(sizes.seccomp_notif_resp)) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let stride = HEAD + notification.next_multiple_of(HEAD);
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at a place of the kernel's choice disturbs nothing.
        let start = unsafe { libc::mmap(ptr::null_mut(), stride * ENTRIES, protection, flags, -1, 0) };
        match NonNull::new(start.cast::<u8>()) {
            Some(first) if start != libc::MAP_FAILED => Ok(Self { start: first, stride, notification }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Where it begins.
    pub(in crate::edges::kernel) fn place(&self) -> usize {
        self.start.addr().get()
    }

    /// Takes a free entry, its structure zeroed as the kernel wants it; None while all wait for an answer.
    pub(super) fn claim(&self) -> Option<usize> {
        let claimed = (0..ENTRIES).find(|&entry| {
            let (free, received) = (State::Free.number(), State::Received.number());
            self.state(entry).compare_exchange(free, received, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        })?;
        // SAFETY: the structure lies within the mapping, and the entry is ours since it was claimed.
        unsafe { self.structure(claimed).write_bytes(0, self.notification) };
        Some(claimed)
    }

    /// Where the kernel writes to, and where its structure is then read.
    pub(super) fn structure(&self, entry: usize) -> *mut u8 {
        assert!(entry < ENTRIES, "there are {ENTRIES} entries");
        // SAFETY: the mapping is `ENTRIES` strides long, and a stride has room for head and structure.
        unsafe { self.start.as_ptr().add(entry * self.stride + HEAD) }
    }

    pub(super) fn set(&self, entry: usize, state: State) {
        if state == State::Free {
            self.id(entry).store(0, Ordering::Relaxed);
        }
        self.state(entry).store(state.number(), Ordering::Release);
    }

    /// Whether what it asks for is done already.
    pub(super) fn is_done(&self, entry: usize) -> bool {
        self.state(entry).load(Ordering::Acquire) == State::Done.number()
    }

    /// The number of the call in this entry, and whether what it asks for is done.
    pub(in crate::edges::kernel) fn unanswered(&self, entry: usize) -> Option<(u64, bool)> {
        let state = self.state(entry).load(Ordering::Acquire);
        let id = self.id(entry).load(Ordering::Relaxed);
        // An entry without a number was claimed and not written to.
        (state != State::Free.number() && id != 0).then_some((id, state == State::Done.number()))
    }

    /// The first structure, zeroed as the kernel wants it, for whoever is the only one left that uses this.
    pub(in crate::edges::kernel) fn first(&self) -> *mut u8 {
        let structure = self.structure(0);
        // SAFETY: the structure lies within the mapping.
        unsafe { structure.write_bytes(0, self.notification) };
        structure
    }

    fn state(&self, entry: usize) -> &AtomicU32 {
        // SAFETY: the head lies before the structure, is aligned and only used through this.
        unsafe { AtomicU32::from_ptr(self.structure(entry).sub(HEAD).cast()) }
    }

    fn id(&self, entry: usize) -> &AtomicU64 {
        // SAFETY: the number comes first in the structure (`struct seccomp_notif`) and is aligned. The kernel
        // writes it, and while it may, nobody else reads.
        unsafe { AtomicU64::from_ptr(self.structure(entry).cast()) }
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        // SAFETY: the mapping is this one's own, and nobody borrows from it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.stride * ENTRIES) };
    }
}

/// How long the kernel's structures are (SECCOMP_GET_NOTIF_SIZES, seccomp(2)).
fn sizes() -> io::Result<libc::seccomp_notif_sizes> {
    let mut sizes = libc::seccomp_notif_sizes { seccomp_notif: 0, seccomp_notif_resp: 0, seccomp_data: 0 };
    // SAFETY: the kernel writes the three numbers of the structure, which lives for the time of the call.
    match unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_NOTIF_SIZES, 0, &raw mut sizes) } {
        0 => Ok(sizes),
        _ => Err(io::Error::last_os_error()),
    }
}
