//! Noticing that the name of a Unix path listener was removed: many servers do so when they end.
//!
//! Only tells; what becomes of the name is decided by the listener.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::kernel::readable::Readable;
use super::notice::{Notice, Owner};
use super::task::Task;

/// Watches the sockets' files: one that loses a name has its metadata changed (IN_ATTRIB, inotify(7)). A watch on the
/// folder would be woken by everybody who works there.
#[derive(Debug)]
pub struct Names {
    inotify: Inotify,
    _task: Task,
}

impl Names {
    /// Watches nothing yet, and tells the owner from now on.
    pub fn watch(owner: Owner) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        let readable = Readable::new(inotify.as_fd().try_clone_to_owned()?)?;
        let task = Task::start(tell(readable, owner));
        Ok(Self { inotify, _task: task })
    }

    /// Watches these sockets' files, by the names beside the path.
    pub fn add<'a>(&self, files: impl Iterator<Item = &'a Path>) -> io::Result<()> {
        // A file that is watched already only gets the same watch again; one that is gone has no name to lose.
        for file in files {
            match self.inotify.add_watch(file, AddWatchFlags::IN_ATTRIB) {
                Ok(_) | Err(Errno::ENOENT) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

async fn tell(readable: Readable, owner: Owner) {
    let mut buffer = [0; 4096];
    let mut read = |fd: &std::os::fd::OwnedFd| match nix::unistd::read(fd, &mut buffer) {
        Err(Errno::EAGAIN) => Err(io::ErrorKind::WouldBlock.into()),
        result => Ok(result?),
    };
    while readable.read(&mut read).await.is_ok() {
        let _ = owner.send(Notice::Mend);
    }
}
