//! What a relay shares with zdr: the last that an instance wrote, in a ring, and how far it was read and passed on.
//!
//! The relay alone writes here, right from the kernel. zdr reads, and makes sure afterwards that what it read was not written over
//! meanwhile.

use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

/// How much of the last is always there.
const KEPT: usize = 16 * 1024;

/// How much is read or passed on at once: a pipe takes that in one piece (PIPE_BUF, pipe(7)).
const PART: usize = 4096;

/// One part is being written over, the rest is kept.
const ROOM: usize = KEPT + PART;

/// A piece of the ring, which may go over its end.
pub(super) type Span<'a> = [&'a [AtomicU8]; 2];

/// The shared memory. All of it is atomics; zeroes are a page at which nothing has happened.
#[derive(Debug)]
#[repr(C)]
pub(super) struct Page {
    /// Something is being read that `end` does not count yet.
    busy: AtomicU32,
    /// How many bytes were read since the beginning.
    end: AtomicU64,
    /// How many of them were passed on.
    passed: AtomicU64,
    ring: [AtomicU8; ROOM],
}

impl Page {
    /// How much may be read next.
    pub(super) fn room(&self) -> usize {
        PART.min(KEPT.saturating_sub(distance(self.passed.load(Ordering::Relaxed), self.end())))
    }

    pub(super) fn end(&self) -> u64 {
        self.end.load(Ordering::SeqCst)
    }

    pub(super) fn is_passed(&self) -> bool {
        self.passed.load(Ordering::SeqCst) == self.end()
    }

    /// Set before anything is read, so that whoever finds nothing that waits and this not set can read it here.
    pub(super) fn set_busy(&self, busy: bool) {
        self.busy.store(u32::from(busy), Ordering::SeqCst);
    }

    /// So many bytes were read to where `span` of the end is.
    pub(super) fn note(&self, came: usize) {
        self.end.fetch_add(came as u64, Ordering::SeqCst);
    }

    pub(super) fn pass(&self, written: usize) {
        self.passed.fetch_add(written as u64, Ordering::SeqCst);
    }

    /// What is between these places.
    pub(super) fn span(&self, from: u64, length: usize) -> Span<'_> {
        let start = usize::try_from(from % ROOM as u64).unwrap_or_default();
        let (before, behind) = self.ring.split_at(start);
        let first = length.min(behind.len());
        [&behind[..first], &before[..length - first]]
    }

    /// What is to be passed on next. Where more follows, also from the source, it is whole lines if it can be, so that others who
    /// write to the same place come between lines and not into them.
    pub(super) fn next_piece(&self, more_waits: bool) -> Span<'_> {
        let passed = self.passed.load(Ordering::Relaxed);
        let unpassed = distance(passed, self.end());
        let most = unpassed.min(PART);
        let [first, rest] = self.span(passed, most);
        let unfinished =
            rest.iter().rev().chain(first.iter().rev()).position(|byte| byte.load(Ordering::Relaxed) == b'\n');
        match unfinished {
            Some(unfinished) if more_waits || unpassed > PART => self.span(passed, most - unfinished),
            _ => [first, rest],
        }
    }
}

/// No two places of interest are further from each other than the ring is long.
fn distance(from: u64, to: u64) -> usize {
    usize::try_from(to.saturating_sub(from)).unwrap_or(ROOM).min(ROOM)
}

/// The page of one instance, which its relays share with zdr.
#[derive(Debug)]
pub struct Notes {
    page: NonNull<Page>,
}

/// What an instance wrote last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tail {
    /// At most 16 KiB.
    pub bytes: Vec<u8>,
    /// It wrote more before that.
    pub is_cut: bool,
}

impl Notes {
    /// Maps it, shared with the relays that are forked from here on.
    pub fn new() -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS;
        // SAFETY: a new mapping at a place of the kernel's choice disturbs nothing.
        let start = unsafe { libc::mmap(ptr::null_mut(), size_of::<Page>(), protection, flags, -1, 0) };
        match NonNull::new(start.cast::<Page>()) {
            Some(page) if start != libc::MAP_FAILED => Ok(Self { page }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Everything that was read is noted and passed on.
    pub fn are_passed(&self) -> bool {
        self.page().busy.load(Ordering::SeqCst) == 0 && self.page().is_passed()
    }

    /// The last that was noted.
    pub fn tail(&self) -> Tail {
        let page = self.page();
        let end = page.end();
        let start = end.saturating_sub(KEPT as u64);
        let noted = page.span(start, distance(start, end)).into_iter().flatten();
        let mut bytes: Vec<u8> = noted.map(|byte| byte.load(Ordering::Relaxed)).collect();
        // What was read meanwhile has taken the place of the oldest.
        let kept_now = page.end().saturating_sub(KEPT as u64);
        bytes.drain(..distance(start, kept_now).min(bytes.len()));
        Tail { bytes, is_cut: kept_now > 0 }
    }

    /// Where it begins.
    pub(super) fn place(&self) -> usize {
        self.page.addr().get()
    }

    pub(super) fn page(&self) -> &Page {
        // SAFETY: it was mapped by `new`, is long and aligned enough, and all zeroes are valid atomics. It is unmapped by `drop`.
        unsafe { self.page.as_ref() }
    }
}

impl Drop for Notes {
    fn drop(&mut self) {
        // SAFETY: the mapping is this one's own, and nobody borrows from it any more.
        unsafe { libc::munmap(self.page.as_ptr().cast(), size_of::<Page>()) };
    }
}
