//! Where a path led when a release was started, and how to get there where symlinks on the way lead elsewhere by now.
//!
//! Holds nothing open.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Which file something is, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Inode {
    device: u64,
    number: u64,
}

impl Inode {
    pub(super) fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|found| Self { device: found.dev(), number: found.ino() })
    }
}

/// A path and where it led.
#[derive(Debug)]
pub(super) struct Trail {
    written: OsString,
    /// How many of its bytes come before the path: `--config=`.
    before: usize,
    target: Place,
    /// The folder in which its last name stood. Kept apart, because that name may be a link that says what it is for:
    /// Python knows its environment by where it was called, not by where it lies.
    folder: Option<Place>,
}

/// Something that exists.
#[derive(Debug)]
struct Place {
    /// Without symlinks.
    path: PathBuf,
    inode: Inode,
}

impl Trail {
    /// None where it names nothing, neither as a whole nor behind an equals sign.
    pub(super) fn of(base: &Path, written: &OsStr) -> Option<Self> {
        let equals = written.as_bytes().iter().position(|byte| *byte == b'=').map(|position| position + 1);
        [Some(0), equals].into_iter().flatten().find_map(|before| {
            let path = Path::new(OsStr::from_bytes(&written.as_bytes()[before..]));
            let target = Place::at(&base.join(path)).filter(|_| !path.as_os_str().is_empty())?;
            Some(Self { written: written.to_owned(), before, target, folder: folder(base, path) })
        })
    }

    pub(super) fn is(&self, written: &OsStr) -> bool {
        self.written == written
    }

    /// What to write instead, None where it still leads there or where nothing does any more.
    pub(super) fn as_it_was(&self, base: &Path) -> Option<OsString> {
        let (before, path) = self.written.as_bytes().split_at(self.before);
        let path = Path::new(OsStr::from_bytes(path));
        let is_as_it_was = |then: &Place, now: Option<Place>| now.is_some_and(|now| now.is(then));
        let leads_there = is_as_it_was(&self.target, Place::at(&base.join(path)))
            && self.folder.as_ref().is_none_or(|then| is_as_it_was(then, folder(base, path)));
        if leads_there {
            return None;
        }
        let name_in_folder = self.folder.as_ref().zip(path.file_name()).map(|(folder, name)| folder.path.join(name));
        let ways = [name_in_folder, Some(self.target.path.clone())];
        let way = ways.into_iter().flatten().find(|way| is_as_it_was(&self.target, Place::at(way)))?;
        Some(OsString::from_vec([before, way.as_os_str().as_bytes()].concat()))
    }
}

impl Place {
    fn at(path: &Path) -> Option<Self> {
        let path = fs::canonicalize(path).ok()?;
        Some(Self { inode: Inode::at(&path)?, path })
    }

    /// The same path with another content, or the same thing under another path.
    fn is(&self, then: &Self) -> bool {
        self.path == then.path || self.inode == then.inode
    }
}

fn folder(base: &Path, path: &Path) -> Option<Place> {
    path.file_name().and_then(|_| Place::at(&base.join(path.parent()?)))
}
