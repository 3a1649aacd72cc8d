//! What does not count below a watched directory: what git ignores, git itself, and what editors leave behind.
//!
//! As git reads the rules, but for those in a user's own configuration: whoever starts zdr gets the same.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};

use ignore::{IncrementalIgnore, WalkBuilder};

/// The rules for one directory and all below.
pub struct Rules {
    root: PathBuf,
    matcher: Option<IncrementalIgnore>,
    /// The files with rules that are not below it.
    above: Vec<PathBuf>,
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules").field("root", &self.root).finish_non_exhaustive()
    }
}

impl Rules {
    /// Those of this directory; what stands in the files is read when it is needed first.
    pub fn of(root: &Path) -> Self {
        Self { root: root.to_path_buf(), matcher: walk(root).build_matchers().pop(), above: above(root) }
    }

    /// They are others now: what is told next is judged by those.
    pub fn read_again(&mut self) {
        *self = Self::of(&self.root);
    }

    /// The directories in which something may count, and those that hold the rules.
    pub fn directories(&self) -> impl Iterator<Item = PathBuf> {
        let below = walk(&self.root).build().flatten();
        let below = below.filter(|entry| entry.file_type().is_some_and(|kind| kind.is_dir()));
        let above = self.above.iter().filter_map(|file| file.parent()).filter(|folder| folder.is_dir());
        below.map(ignore::DirEntry::into_path).chain(above.map(Path::to_path_buf))
    }

    /// This path, named from the directory on, does not count.
    pub fn ignore(&mut self, below: &Path, folder: bool) -> bool {
        let Some(matcher) = &mut self.matcher else { return false };
        below.iter().any(never_counts) || matcher.matched(below, folder).is_ignore()
    }

    /// The rules may be others when this file is.
    pub fn stand_in(&self, path: &Path) -> bool {
        let below = || path.starts_with(&self.root) && path.file_name().is_some_and(holds_rules);
        below() || self.above.iter().any(|file| file == path)
    }
}

/// One definition for what is watched and what counts.
fn walk(root: &Path) -> WalkBuilder {
    let mut walk = WalkBuilder::new(root);
    walk.hidden(false).git_global(false);
    walk.filter_entry(|entry| entry.depth() == 0 || !never_counts(entry.file_name()));
    walk
}

/// Up to the directory that is the repository: git reads no further.
fn above(root: &Path) -> Vec<PathBuf> {
    let Some(repository) = root.ancestors().find(|folder| folder.join(".git").exists()) else { return Vec::new() };
    let between = root.ancestors().skip(1).take_while(|folder| folder.starts_with(repository));
    let files = between.flat_map(|folder| [".gitignore", ".ignore"].map(|name| folder.join(name)));
    files.chain([repository.join(".git"), repository.join(".git/info/exclude")]).collect()
}

fn holds_rules(name: &OsStr) -> bool {
    name == ".gitignore" || name == ".ignore" || name == ".git"
}

/// git's own files; vim's swap files, backups and the file by which it tries whether it may write; locks and
/// automatic saves of Emacs; what JetBrains' programs write before they rename it.
fn never_counts(name: &OsStr) -> bool {
    let name = name.as_encoded_bytes();
    let (starts, ends) = (|with: &[u8]| name.starts_with(with), |with: &[u8]| name.ends_with(with));
    name == b".git"
        || name == b"4913"
        || [b".swp", b".swo", b".swx"].iter().any(|end| ends(*end))
        || ends(b"~")
        || starts(b".#")
        || starts(b"#") && ends(b"#")
        || ends(b"___jb_tmp___")
        || ends(b"___jb_old___")
}
