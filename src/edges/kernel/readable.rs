//! epoll for a descriptor that tokio has no type for.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A descriptor that can be waited for.
#[derive(Debug)]
pub struct Readable(AsyncFd<OwnedFd>);

impl Readable {
    /// Registers it with the running event loop.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        // SAFETY: the descriptor is owned by the `AsyncFd`, which never gives it out, so it stays open and the same.
        unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }
            .map(Self)
            .map_err(|error| error.into_parts().1)
    }

    /// Waits until `read` gives something else than `WouldBlock`. Cancel-safe: `read` runs to its end or not at all.
    pub async fn read<T>(&self, mut read: impl FnMut(&OwnedFd) -> io::Result<T>) -> io::Result<T> {
        loop {
            let mut guard = self.0.readable().await?;
            if let Ok(result) = guard.try_io(|fd| read(fd.get_ref())) {
                return result;
            }
        }
    }
}

impl AsRawFd for Readable {
    fn as_raw_fd(&self) -> i32 {
        self.0.get_ref().as_raw_fd()
    }
}
