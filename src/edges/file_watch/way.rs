//! The way to a watched path: over which names it leads, and what is at its end.
//!
//! Watches nothing: it looks once.

use std::fs;
use std::path::{Component, Path, PathBuf};

/// As many as the kernel follows (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// A path, followed to its end.
#[derive(Debug)]
pub struct Way {
    /// The names that lead elsewhere when somebody replaces them: symlinks, the file, or the first that is missing. Each
    /// stands in a directory that is there.
    pub hinges: Vec<PathBuf>,
    /// What is there.
    pub end: End,
}

/// What a path leads to, by its own name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// All below it counts.
    Directory(PathBuf),
    /// It alone counts.
    File(PathBuf),
    /// Nothing.
    Missing,
}

impl Way {
    /// Follows an absolute path.
    pub fn follow(path: &Path) -> Self {
        let (mut at, mut rest) = (PathBuf::from("/"), path.to_path_buf());
        let (mut hinges, mut links) = (Vec::new(), 0);
        loop {
            let mut parts = rest.components();
            let Some(part) = parts.next() else { return Self { hinges, end: End::Directory(at) } };
            let after = parts.as_path().to_path_buf();
            match part {
                Component::ParentDir => drop(at.pop()),
                Component::CurDir => {}
                other => at.push(other),
            }
            let kind = fs::symlink_metadata(&at).map(|metadata| metadata.file_type());
            rest = match kind {
                Ok(kind) if kind.is_dir() => after,
                Ok(kind) if kind.is_symlink() && links < MOST_LINKS => {
                    links += 1;
                    let target = fs::read_link(&at).unwrap_or_default();
                    hinges.push(at.clone());
                    at.pop();
                    target.join(after)
                }
                Ok(kind) if !kind.is_symlink() && after.as_os_str().is_empty() => {
                    hinges.push(at.clone());
                    return Self { hinges, end: End::File(at) };
                }
                _ => {
                    hinges.push(at);
                    return Self { hinges, end: End::Missing };
                }
            };
        }
    }
}
