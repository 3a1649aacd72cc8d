//! Noticing that files have changed: tells the owner once things are quiet again.
//!
//! Never reads a file but those with rules of what to ignore, and never decides what follows from a change.

mod directories;
mod lookout;
mod place;
mod rules;
#[cfg(test)]
mod tests;
mod way;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};

use self::directories::{Directories, Report};
use self::lookout::Lookout;
use super::notice::{Owner, tell};
use super::task::Task;
use crate::supervisor::Event;

/// Where changes go on and on, the owner is told after this many times the time that should have been quiet.
const PATIENCE: u32 = 20;

/// How many reports are looked at in one go.
const MOST_AT_ONCE: usize = 1024;

/// Files that are watched; dropping it ends that.
#[derive(Debug)]
pub struct FileWatch {
    _task: Task,
}

/// Why files cannot be watched.
#[derive(Debug)]
pub enum WatchError {
    /// There is nothing at a path, or nothing that zdr may look at.
    Path {
        /// Which.
        path: PathBuf,
        /// How.
        source: io::Error,
    },
    /// The system refused what it has for everybody.
    System(io::Error),
}

impl fmt::Display for WatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path { path, source } if source.kind() == io::ErrorKind::NotFound => write!(
                f,
                "cannot watch {}: no such file or directory; name one that is there when zdr starts",
                path.display()
            ),
            Self::Path { path, source } => {
                let why = source.kind();
                write!(f, "cannot watch {}: {why}; name a path that zdr may look at", path.display())
            }
            Self::System(source) => write!(f, "cannot watch files: {source}; start zdr without --watch"),
        }
    }
}

impl std::error::Error for WatchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Path { source, .. } | Self::System(source) => Some(source),
        }
    }
}

impl FileWatch {
    /// Tells the owner of every change from now on, when nothing has changed for as long as `debounce`. Called after
    /// `signals::block`, because the thread that waits for the kernel inherits it.
    pub fn start(paths: &[PathBuf], debounce: Duration, owner: Owner) -> Result<Self, WatchError> {
        let (reporter, reports) = mpsc::unbounded_channel();
        let lookout = Lookout::start(paths, Directories::of(reporter).map_err(WatchError::System)?)?;
        Ok(Self { _task: Task::start(follow(lookout, reports, debounce, owner)) })
    }
}

/// A task of its own: a window that were part of what the loop waits for would be lost with every other thing that
/// happens. To look at many files takes a while, so others do it.
async fn follow(mut lookout: Lookout, mut reports: mpsc::UnboundedReceiver<Report>, debounce: Duration, owner: Owner) {
    let mut unrest: Option<Unrest> = None;
    loop {
        let mut some = Vec::new();
        let received = tokio::select! {
            // The clock first: reports that never stop would keep it from being looked at.
            biased;
            () = at(unrest.as_ref().map(|unrest| unrest.end(debounce))) => {
                unrest = None;
                if let Some(path) = lookout.settle() {
                    tell(&owner, Event::Changed { path });
                }
                continue;
            }
            received = reports.recv_many(&mut some, MOST_AT_ONCE) => received,
        };
        if received == 0 {
            return;
        }
        let looking = spawn_blocking(move || {
            let stirred = lookout.take(some);
            (lookout, stirred)
        });
        let Ok((back, stirred)) = looking.await else { return };
        lookout = back;
        if stirred {
            let now = Instant::now();
            unrest = Some(Unrest { since: unrest.map_or(now, |unrest| unrest.since), last: now });
        }
    }
}

/// Changes that the owner has not been told of yet.
struct Unrest {
    since: Instant,
    last: Instant,
}

impl Unrest {
    fn end(&self, debounce: Duration) -> Instant {
        (self.last + debounce).min(self.since + debounce * PATIENCE)
    }
}

async fn at(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}
