//! The relay: a small process that outlives zdr, one for each instance, which passes on what that writes.
//!
//! It notes before it passes on, so that zdr can read what an instance wrote last. Nothing that zdr does or suffers holds it up: it
//! goes on while zdr is stopped, and after zdr was killed. It ends when nobody is left that could write.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use super::companion::{self, Equipment, errno, watch};

mod notes;

#[cfg(test)]
mod tests;

pub use notes::Notes;
use notes::{Page, Span};

/// Forks a relay from `source` to `destination`, and answers with its process id. One that takes over from a relay that was killed
/// passes on first what that had read.
///
/// Its exit code is 0 when nobody is left that could write.
pub fn start(source: BorrowedFd<'_>, destination: BorrowedFd<'_>, notes: &Notes) -> io::Result<i32> {
    let (source, destination) = (source.as_raw_fd(), destination.as_raw_fd());
    let page = notes.page();
    let equipment = Equipment { name: c"zdr-relay", descriptors: [source, destination], shared: notes.place() };
    // SAFETY: everything that is captured is a number, or a reference to shared memory, which nothing in the child drops.
    unsafe { companion::fork(&equipment, move || pass_on(source, destination, page)) }
}

/// The life of the relay.
///
/// # Safety
/// As for the life of a companion (`companion::fork`).
unsafe fn pass_on(source: RawFd, destination: RawFd, page: &Page) -> ! {
    // A relay that was killed may have left this behind.
    page.set_busy(false);
    loop {
        let room = page.room();
        let came = match room {
            0 => Some(0),
            // SAFETY: forwarded from the caller.
            room => unsafe { take(source, page, room) },
        };
        // Where more waits, the last line is cut. Its beginning waits for its end, so that others who write to the same place come
        // between lines and not into them.
        let upto = match came {
            Some(came) if came == room => page.end_of_lines(),
            _ => page.end(),
        };
        // SAFETY: forwarded from the caller.
        unsafe { give(destination, page, upto) };
        if came.is_none() {
            // SAFETY: _exit runs no code of zdr's.
            unsafe { libc::_exit(0) }
        }
    }
}

/// Reads what has come, and how much that was: it waits for it where everything was passed on. None at the end.
///
/// # Safety
/// As `pass_on`.
unsafe fn take(source: RawFd, page: &Page, room: usize) -> Option<usize> {
    let mut asked = [watch(source, libc::POLLIN)];
    // SAFETY: forwarded from the caller; the kernel writes to the page, which is atomics for everybody else.
    let read = unsafe {
        companion::wait(&mut asked, !page.is_passed());
        if asked[0].revents == 0 {
            return Some(0);
        }
        page.set_busy(true);
        let parts = vectors(page.span(page.end(), room));
        libc::syscall(libc::SYS_readv, source, parts.as_ptr(), parts.len())
    };
    // Asked before anything else is done, which could change it.
    let again = read < 0 && [libc::EINTR, libc::EAGAIN].contains(&errno());
    let came = usize::try_from(read).unwrap_or(0);
    page.note(came);
    page.set_busy(false);
    // A terminal whose other side is closed answers EIO.
    (came > 0 || again).then_some(came)
}

/// Writes all up to there. What cannot be written is left out; the instance is not to suffer from a full disk, nor from a reader
/// that has gone.
///
/// # Safety
/// As `pass_on`.
unsafe fn give(destination: RawFd, page: &Page, upto: u64) {
    while let Some(rest) = page.not_passed(upto) {
        let parts = vectors(rest);
        // SAFETY: the parts lie within the page, which is there for ever.
        let written = unsafe { libc::syscall(libc::SYS_writev, destination, parts.as_ptr(), parts.len()) };
        let failure = if written < 0 { errno() } else { 0 };
        match (usize::try_from(written), failure) {
            (Ok(written), _) if written > 0 => page.pass(written),
            (_, libc::EINTR) => {}
            // SAFETY: forwarded from the caller.
            (_, libc::EAGAIN) => unsafe { companion::wait(&mut [watch(destination, libc::POLLOUT)], false) },
            _ => page.pass_all(upto),
        }
    }
}

fn vectors(span: Span<'_>) -> [libc::iovec; 2] {
    span.map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() })
}
