//! The directories that the kernel watches for zdr, each by itself.
//!
//! Does not know what is in them. Goes on without those that do not fit.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::mem;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use notify::event::EventKindMask;
use notify::{Config, ErrorKind, INotifyWatcher, PathOp, Watcher};
use tokio::sync::mpsc;
use tracing::{debug, warn};

/// What the kernel tells.
pub type Report = notify::Result<notify::Event>;

/// Watched directories, by their own names.
#[derive(Debug)]
pub struct Directories {
    /// None where the system has no more of them.
    watcher: Option<INotifyWatcher>,
    /// What is watched, for all zdr knows.
    watched: BTreeSet<PathBuf>,
    /// Names that came or went: what they stood for may be watched still, what they stand for now is not.
    stale: BTreeSet<PathBuf>,
    /// It was told that not all fit.
    full: bool,
}

impl Directories {
    /// None yet; what happens in them goes to `reporter`.
    pub fn of(reporter: mpsc::UnboundedSender<Report>) -> io::Result<Self> {
        // Neither who reads a file nor who changes its mode wakes zdr.
        let kinds = EventKindMask::CREATE
            | EventKindMask::REMOVE
            | EventKindMask::MODIFY_NAME
            | EventKindMask::MODIFY_DATA
            | EventKindMask::ACCESS_CLOSE;
        let report = move |report| {
            let _ = reporter.send(report);
        };
        let watcher = match INotifyWatcher::new(report, Config::default().with_event_kinds(kinds)) {
            Ok(watcher) => Some(watcher),
            Err(error) => match error.kind {
                ErrorKind::Io(error) if is_too_many(&error) => {
                    warn!(
                        "nothing is watched: all inotify instances of this user ({}) or all descriptors are in use; \
                         raise fs.inotify.max_user_instances with sysctl, or the limit of open files, and start again",
                        limit("max_user_instances")
                    );
                    None
                }
                ErrorKind::Io(error) => return Err(error),
                other => return Err(io::Error::other(notify::Error::new(other))),
            },
        };
        Ok(Self { watcher, watched: BTreeSet::new(), stale: BTreeSet::new(), full: false })
    }

    /// Watches these and no others; true where one was not watched before.
    pub fn watch(&mut self, wanted: &BTreeSet<PathBuf>) -> bool {
        let stale = mem::take(&mut self.stale);
        let unwatch = self.watched.difference(wanted).chain(&stale).map(PathOp::unwatch);
        let watch = wanted.difference(&self.watched).map(PathOp::watch_non_recursive);
        let operations: Vec<_> = unwatch.chain(watch).collect();
        if operations.is_empty() {
            return false;
        }
        let failed = self.apply(operations);
        let watched: BTreeSet<_> = wanted.difference(&failed).cloned().collect();
        let more = !watched.is_subset(&self.watched);
        self.watched = watched;
        more
    }

    /// A name that came or went, with all below; true where it was watched.
    pub fn forget(&mut self, path: &Path) -> bool {
        let below = self.watched.range(path.to_path_buf()..).take_while(|watched| watched.starts_with(path));
        let below: Vec<_> = below.cloned().collect();
        let itself = below.first().is_some_and(|first| first == path);
        for path in below {
            self.watched.remove(&path);
            self.stale.insert(path);
        }
        itself
    }

    /// Stops watching all of them, because what became of them was missed.
    pub fn forget_all(&mut self) {
        self.watch(&BTreeSet::new());
    }

    /// It is watched, for all zdr knows.
    pub fn has(&self, path: &Path) -> bool {
        self.watched.contains(path)
    }

    /// The paths that could not be watched. One that could not be let go of was gone already.
    fn apply(&mut self, mut operations: Vec<PathOp>) -> BTreeSet<PathBuf> {
        let mut failed = BTreeSet::new();
        let Some(watcher) = &mut self.watcher else { return operations.into_iter().map(PathOp::into_path).collect() };
        while let Err(error) = watcher.update_paths(operations) {
            if let Some(PathOp::Watch(path, _)) = error.origin {
                failed.insert(path);
            }
            operations = error.remaining;
            match error.source.kind {
                ErrorKind::MaxFilesWatch => {
                    failed.extend(operations.into_iter().map(PathOp::into_path));
                    if !mem::replace(&mut self.full, true) {
                        warn!(
                            "{} directories are not watched: all inotify watches of this user ({}) are in use; \
                             raise fs.inotify.max_user_watches with sysctl, or watch less",
                            failed.len(),
                            limit("max_user_watches")
                        );
                    }
                    return failed;
                }
                // Gone again.
                ErrorKind::PathNotFound | ErrorKind::WatchNotFound => {}
                _ => debug!(error = %error.source, "a directory is not watched"),
            }
        }
        self.full = false;
        failed
    }
}

fn is_too_many(error: &io::Error) -> bool {
    [Errno::EMFILE, Errno::ENFILE].iter().any(|errno| error.raw_os_error() == Some(*errno as i32))
}

/// In words, because it may not be known.
fn limit(name: &str) -> String {
    let text = fs::read_to_string(format!("/proc/sys/fs/inotify/{name}"));
    text.map_or_else(|_| "their number is not known".to_owned(), |text| text.trim().to_owned())
}
