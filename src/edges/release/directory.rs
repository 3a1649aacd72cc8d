//! The working directory of a release: symlinks on the way to it were followed once.
//!
//! Never looks its name up again.

use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::executable::link;
use super::trail::Inode;

/// A working directory.
#[derive(Debug)]
pub(super) struct Directory {
    /// Where it was, without symlinks; as it was written if it could not be opened.
    path: PathBuf,
    /// None where zdr may not open what the server may enter.
    file: Option<File>,
}

impl Directory {
    pub(super) fn open(written: &Path) -> Self {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(written).ok();
        let path = file.as_ref().and_then(|file| fs::read_link(link(file)).ok());
        Self { path: path.unwrap_or_else(|| written.to_owned()), file }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_ref().map(AsFd::as_fd)
    }

    /// A path to it, wherever it is now.
    pub(super) fn reached_by(&self) -> PathBuf {
        self.file.as_ref().map_or_else(|| self.path.clone(), link)
    }

    /// The kernel writes ` (deleted)` behind the path of what has none (proc_pid_fd(5)), but a name can end so as well.
    pub(super) fn is_gone(&self) -> bool {
        let Some(file) = &self.file else { return false };
        let path = fs::read_link(link(file)).unwrap_or_default();
        path.as_os_str().as_bytes().ends_with(b" (deleted)") && Inode::at(&path) != Inode::at(&link(file))
    }
}
