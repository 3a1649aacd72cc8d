//! The file that a release was executed from, held open so that it can be executed whatever has become of its name.
//!
//! Opened with `O_PATH` (open(2)): that asks for no right to read it, and whoever writes to it is not told that it is busy.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::trail::{Inode, Trail};

/// The file of a program.
#[derive(Debug)]
pub struct Executable {
    /// What it was called by.
    name: OsString,
    path: PathBuf,
    /// None where it was gone before it could be followed.
    trail: Option<Trail>,
    file: File,
    content: Content,
}

/// What changes when a file is written to.
#[derive(Debug, PartialEq, Eq)]
struct Content {
    size: u64,
    /// In seconds and nanoseconds.
    modified: (i64, i64),
}

impl Executable {
    pub(super) fn open(base: &Path, name: &OsStr, path: &OsStr) -> Option<Self> {
        let file = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(base.join(path)).ok()?;
        let content = Content::of(&file.metadata().ok()?);
        Some(Self { name: name.to_owned(), path: path.into(), trail: Trail::of(base, path), file, content })
    }

    pub(super) fn name(&self) -> &OsStr {
        &self.name
    }

    pub(super) fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// A path that leads to it: the one it was executed by, as that leads now or as it led then, or what it is called now.
    pub(super) fn path(&self, base: &Path) -> Option<PathBuf> {
        let known = [Some(self.as_it_was(base)), fs::read_link(link(&self.file)).ok()];
        known.into_iter().flatten().find(|path| Inode::at(&base.join(path)) == Inode::at(&link(&self.file)))
    }

    /// Its argument 0, by which some find what lies beside them: as it was, unless that leads elsewhere by now.
    pub(super) fn called(&self, base: &Path) -> OsString {
        match self.name.as_bytes().contains(&b'/') {
            true => self.as_it_was(base).into_os_string(),
            false => self.name.clone(),
        }
    }

    /// Somebody has written to it.
    pub(super) fn is_changed(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| Content::of(&metadata) != self.content)
    }

    fn as_it_was(&self, base: &Path) -> PathBuf {
        let elsewhere = self.trail.as_ref().and_then(|trail| trail.as_it_was(base));
        elsewhere.map_or_else(|| self.path.clone(), PathBuf::from)
    }
}

impl Content {
    fn of(metadata: &Metadata) -> Self {
        Self { size: metadata.size(), modified: (metadata.mtime(), metadata.mtime_nsec()) }
    }
}

/// A path to an open file that needs no name of it, and a link to the name that it has (proc_pid_fd(5)).
pub(super) fn link(file: &File) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}
