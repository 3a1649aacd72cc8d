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
/// passes on first what that had noted; only what it was reading in the moment of its death is lost.
///
/// Its exit code is 0 when nobody is left that could write.
pub fn start(source: BorrowedFd<'_>, destination: BorrowedFd<'_>, notes: &Notes) -> io::Result<i32> {
    let (source, destination) = (source.as_raw_fd(), destination.as_raw_fd());
    let page = notes.page();
    let equipment = Equipment { name: c"zdr-relay", descriptors: [source, destination], shared: notes.place() };
    // SAFETY: everything that is captured is a number, or a reference to shared memory, which nothing in the child drops.
    unsafe { companion::fork(&equipment, move || pass_on(source, destination, page)) }
}

/// The life of the relay. While the destination takes nothing it goes on reading as long as there is room for what is not passed on, so
/// that an instance which fails tells why where nobody reads its log.
///
/// # Safety
/// As for the life of a companion (`companion::fork`).
unsafe fn pass_on(source: RawFd, destination: RawFd, page: &Page) -> ! {
    const NOBODY: RawFd = -1;
    // A relay that was killed may have left this behind.
    page.set_busy(false);
    let mut is_open = true;
    while is_open || !page.is_passed() {
        let room = page.room();
        let mut asked = [
            watch(if is_open && room > 0 { source } else { NOBODY }, libc::POLLIN),
            watch(if page.is_passed() { NOBODY } else { destination }, libc::POLLOUT),
        ];
        // SAFETY: forwarded from the caller.
        unsafe { companion::wait(&mut asked, None) };
        let mut came = Some(0);
        if asked[0].revents != 0 {
            // SAFETY: as above.
            came = unsafe { take(source, page, room) };
            is_open = came.is_some();
        }
        if asked[1].revents != 0 {
            // SAFETY: as above.
            unsafe { give(destination, page.next_piece(came == Some(room)), page) };
        }
    }
    // SAFETY: _exit runs no code of zdr's.
    unsafe { libc::_exit(0) }
}

/// Reads what has come, and how much that was; None at the end.
///
/// # Safety
/// As `pass_on`.
unsafe fn take(source: RawFd, page: &Page, room: usize) -> Option<usize> {
    page.set_busy(true);
    let parts = vectors(page.span(page.end(), room));
    // SAFETY: the parts lie within the page, which is atomics for everybody else.
    let read = unsafe { libc::syscall(libc::SYS_readv, source, parts.as_ptr(), parts.len()) };
    // Asked before anything else is done, which could change it.
    let again = read < 0 && [libc::EINTR, libc::EAGAIN].contains(&errno());
    let came = usize::try_from(read).unwrap_or(0);
    page.note(came);
    page.set_busy(false);
    // A terminal whose other side is closed answers EIO.
    (came > 0 || again).then_some(came)
}

/// Writes a piece. What cannot be written is left out: the instance is not to suffer from a full disk, nor from a reader that has
/// gone.
///
/// # Safety
/// As `pass_on`.
unsafe fn give(destination: RawFd, piece: Span<'_>, page: &Page) {
    /// One that says that it would take something, and does not, is not asked all the time.
    const PAUSE: [libc::c_long; 2] = [0, 10_000_000];
    let parts = vectors(piece);
    // SAFETY: the parts lie within the page.
    let written = unsafe { libc::syscall(libc::SYS_writev, destination, parts.as_ptr(), parts.len()) };
    match (usize::try_from(written), errno()) {
        (Ok(written), _) if written > 0 => page.pass(written),
        (Err(_), libc::EINTR) => {}
        // SAFETY: forwarded from the caller.
        (Err(_), libc::EAGAIN) => unsafe { companion::wait(&mut [], Some(PAUSE)) },
        _ => page.pass(piece.iter().map(|part| part.len()).sum()),
    }
}

fn vectors(span: Span<'_>) -> [libc::iovec; 2] {
    span.map(|part| libc::iovec { iov_base: part.as_ptr().cast_mut().cast(), iov_len: part.len() })
}
