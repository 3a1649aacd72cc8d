//! What an instance writes, on its way through a relay to our own standard error, and the last lines of it.
//!
//! zdr itself never stands in that way: it only reads what the relay has noted, and waits for that only for a moment.

mod lines;

use std::collections::HashMap;
use std::io::{self, IsTerminal, Stderr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::fchown;
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::pipe2;
use rustix::fs::fstat;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, OptionalActions, OutputModes, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};
use tokio::time::sleep;
use tracing::{error, warn};

use super::kernel::relay::{self, Notes};
use crate::supervisor::{Exit, Instance};

/// How long zdr waits for what an instance wrote just before it ended, in steps.
const STEP: Duration = Duration::from_micros(100);
const STEPS: u32 = 100;

/// The relays of all instances.
#[derive(Debug, Default)]
pub(super) struct Relays {
    relays: HashMap<Instance, Relay>,
}

#[derive(Debug)]
struct Relay {
    process: Process,
    /// Where it reads. As long as this is held, nobody who writes is told that nobody reads.
    source: OwnedFd,
    notes: Notes,
    /// How many of its last lines are told.
    lines: usize,
    /// Nobody asks for its lines any more.
    is_forgotten: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Process {
    Running(i32),
    /// Another is to take over.
    Killed,
    /// Nobody is left that could write.
    Over,
}

/// Where an instance writes to.
#[derive(Debug)]
pub(super) struct Outlet {
    end: OwnedFd,
    /// Its standard output goes there as well.
    for_both: bool,
}

impl Outlet {
    /// Its standard output, where ours goes where our standard error goes, so that their order is kept; and its standard error.
    pub(super) fn ends(&self) -> [Option<BorrowedFd<'_>>; 2] {
        let end = self.end.as_fd();
        [self.for_both.then_some(end), Some(end)]
    }
}

impl Relays {
    /// Starts the relay of an instance that is to be started, which may belong to another user. An instance whose last lines
    /// cannot be had gets what we have.
    pub(super) fn start(&mut self, instance: Instance, user: Option<u32>, lines: usize) -> Option<Outlet> {
        if lines == 0 {
            return None;
        }
        match begin(user, lines) {
            Ok((outlet, relay)) => {
                self.relays.insert(instance, relay);
                Some(outlet)
            }
            Err(error) => {
                warn!(%instance, %error, "cannot note what it writes; if it fails, its last lines will not be told");
                None
            }
        }
    }

    /// Their process ids: they belong to no generation.
    pub(super) fn processes(&self) -> impl Iterator<Item = i32> {
        self.relays.values().filter_map(|relay| match relay.process {
            Process::Running(pid) => Some(pid),
            Process::Killed | Process::Over => None,
        })
    }

    /// True where this was a relay. One that was killed is followed by another.
    pub(super) fn ended(&mut self, pid: i32, exit: Exit) -> bool {
        let mut relays = self.relays.iter_mut();
        let Some((instance, relay)) = relays.find(|(_, relay)| relay.process == Process::Running(pid)) else {
            return false;
        };
        relay.process = Process::Over;
        if exit != Exit::Code(0) {
            warn!(%instance, "what passed on its output {exit}; another takes over");
            relay.process = Process::Killed;
        }
        self.tidy();
        true
    }

    /// Nobody will ask for the lines of this generation any more.
    pub(super) fn forget(&mut self, instance: Instance) {
        if let Some(relay) = self.relays.get_mut(&instance) {
            relay.is_forgotten = true;
        }
        self.tidy();
    }

    /// Replaces those that were killed; where that cannot be done, it is tried again at the next occasion.
    pub(super) fn tidy(&mut self) {
        self.relays.retain(|_, relay| !relay.is_forgotten || relay.process != Process::Over);
        for (instance, relay) in self.relays.iter_mut().filter(|(_, relay)| relay.process == Process::Killed) {
            match relay::start(relay.source.as_fd(), io::stderr().as_fd(), &relay.notes) {
                Ok(pid) => relay.process = Process::Running(pid),
                Err(error) => error!(%instance, %error, "cannot pass on its output"),
            }
        }
    }

    /// The last lines that an instance wrote. What it wrote just now may still be on its way: that is waited for, but only for a
    /// moment, because whoever takes it may be slow.
    pub(super) fn last_lines(&self, instance: Instance) -> Option<Vec<String>> {
        let relay = self.relays.get(&instance)?;
        for _ in 0..STEPS {
            if relay.has_passed_on_everything() {
                break;
            }
            std::thread::park_timeout(STEP);
        }
        let tail = relay.notes.tail();
        Some(lines::last(&tail.bytes, tail.is_cut, relay.lines))
    }

    /// Waits until everything that was written is passed on.
    pub(super) async fn have_passed_on_everything(&self) {
        while !self.relays.values().all(Relay::has_passed_on_everything) {
            sleep(Duration::from_millis(1)).await;
        }
    }
}

impl Relay {
    /// Looks at the source first: what the relay has taken from there it notes before it says that it is done.
    fn has_passed_on_everything(&self) -> bool {
        let mut asked = [PollFd::new(self.source.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut asked, PollTimeout::ZERO);
        let waits = asked[0].revents().is_some_and(|events| events.contains(PollFlags::POLLIN));
        !waits && self.notes.are_passed()
    }
}

fn begin(user: Option<u32>, lines: usize) -> io::Result<(Outlet, Relay)> {
    let stderr = io::stderr();
    let (source, end) = if stderr.is_terminal() { terminal(&stderr)? } else { pipe2(OFlag::O_CLOEXEC)? };
    if user.is_some() {
        // Who opens /dev/stderr asks for the right to. Where we may not give it away, it stays ours.
        let _ = fchown(&end, user, None);
    }
    let outlet = Outlet { end, for_both: is_one_place()? };
    let notes = Notes::new()?;
    let process = Process::Running(relay::start(source.as_fd(), stderr.as_fd(), &notes)?);
    Ok((outlet, Relay { process, source, notes, lines, is_forgotten: false }))
}

/// A terminal for the instance that looks like ours and changes nothing of what is written: ours does that.
fn terminal(ours: &Stderr) -> io::Result<(OwnedFd, OwnedFd)> {
    let source = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&source)?;
    unlockpt(&source)?;
    let end = ioctl_tiocgptpeer(&source, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    let mut modes = tcgetattr(ours)?;
    modes.output_modes.remove(OutputModes::OPOST);
    modes.local_modes.remove(LocalModes::ECHO | LocalModes::ECHONL);
    tcsetattr(&end, OptionalActions::Now, &modes)?;
    tcsetwinsize(&end, tcgetwinsize(ours)?)?;
    Ok((source, end))
}

/// Our standard output and our standard error are one file, pipe, socket or terminal.
fn is_one_place() -> io::Result<bool> {
    let (output, error) = (fstat(io::stdout())?, fstat(io::stderr())?);
    Ok((output.st_dev, output.st_ino, output.st_rdev) == (error.st_dev, error.st_ino, error.st_rdev))
}
