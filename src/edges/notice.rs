//! What the tasks of the edges tell their owner, and ask of it.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::connections::{Doors, Holder};
use super::errands::Purpose;
use super::listeners::{Aimed, Front, Queue, Reach, Watched};
use super::probe::{Alive, Connection};
use super::words::Words;
use crate::supervisor::{Event, Exit, Generation, Instance, Scale, SeatName, Status, Ticket, Until, Verdict};

/// From a task to the owner of everything.
#[derive(Debug)]
pub enum Notice {
    /// Something happened that the rules want to know.
    Happened(Event),
    /// An instance said something on its notify socket.
    Said {
        /// Whose socket.
        instance: Instance,
        /// Who sent it.
        pid: i32,
        /// What it said.
        words: Words,
    },
    /// A probe wants a socket that reaches this generation.
    Aim {
        /// Which.
        instance: Instance,
        /// The position of the listener.
        listener: usize,
        /// Where the socket goes.
        reply: oneshot::Sender<io::Result<Aimed>>,
    },
    /// A probe wants to know how this generation can be reached by now.
    Reach {
        /// Which.
        instance: Instance,
        /// Where that goes.
        reply: oneshot::Sender<Reach>,
    },
    /// System calls of this generation wait for an answer.
    Calls {
        /// Which.
        instance: Instance,
        /// Dropped when all of them were answered.
        done: oneshot::Sender<()>,
    },
    /// An instance has taken a connection that another one of its generation was offered.
    Taken {
        /// Which.
        instance: Instance,
        /// The number of the listener.
        listener: usize,
        /// It.
        connection: Connection,
    },
    /// A generation has accepted a connection of a probe.
    Accepted {
        /// Which.
        instance: Instance,
    },
    /// A probe wants to look at the sockets of this generation.
    Watch {
        /// Which.
        instance: Instance,
        /// Where copies of them go.
        reply: oneshot::Sender<Vec<Watched>>,
    },
    /// A server has shut a socket of ours down.
    Mend,
    /// The probe is over; the next one aims anew.
    Unaim {
        /// Of this instance.
        instance: Instance,
    },
    /// A probe wants to know whose processes are whose.
    Roots {
        /// Where the main processes go.
        reply: oneshot::Sender<Vec<(Instance, i32)>>,
    },
    /// Somebody wants to know what belongs to the instances of this generation.
    Holders {
        /// Which.
        generation: Generation,
        /// Where they go, with the processes that are nobody's orphans.
        reply: oneshot::Sender<(Vec<Holder>, Vec<i32>)>,
    },
    /// Somebody wants to ask the first stream listener as any client does.
    Front {
        /// Where it goes.
        reply: oneshot::Sender<io::Result<Option<Front>>>,
    },
    /// A shell command is to be run.
    Errand {
        /// What for.
        purpose: Purpose,
        /// The command.
        command: String,
        /// Its output and errors; None for zdr's own.
        output: Option<OwnedFd>,
        /// Kept until it has ended with all it has started.
        alive: Alive,
        /// Where its end is told.
        reply: oneshot::Sender<Result<Exit, String>>,
    },
    /// Nobody waits any more for the errand that was run for this.
    EndErrand {
        /// What for.
        purpose: Purpose,
    },
    /// A client asked something.
    Asked(Question),
}

/// What clients ask of the owner.
#[derive(Debug)]
pub enum Question {
    /// How things are.
    Status {
        /// Where the picture goes.
        reply: oneshot::Sender<Picture>,
    },
    /// Something is to be done.
    Order {
        /// What.
        order: Order,
        /// Where the verdict goes.
        reply: oneshot::Sender<Verdict>,
    },
}

/// What clients can have done.
#[derive(Debug, PartialEq, Eq)]
pub enum Order {
    /// A new generation beside the old.
    Reload {
        /// A new command, if one was given.
        command: Option<Vec<String>>,
        /// When the verdict is due.
        until: Until,
    },
    /// Back to the generation before.
    Rollback,
    /// Another number of instances.
    Scale(Scale),
    /// Hold new connections, for so long at most.
    Pause(Duration),
    /// Hold them no longer.
    Resume,
    /// Stop and start.
    Restart,
    /// Drain and end.
    Stop,
}

impl Order {
    /// The event that the rules are told.
    pub fn event(self, ticket: Ticket) -> Event {
        match self {
            Self::Reload { command, until } => Event::Reload {
                ticket,
                command: command.map(|words| words.into_iter().map(Into::into).collect()),
                until,
            },
            Self::Rollback => Event::Rollback { ticket },
            Self::Scale(scale) => Event::Scale { ticket, scale },
            Self::Pause(time) => Event::Pause { ticket, time },
            Self::Resume => Event::Resume { ticket },
            Self::Restart => Event::Restart { ticket },
            Self::Stop => Event::Stop { ticket },
        }
    }
}

/// The rules' picture, with what only the edges know.
#[derive(Clone, Debug)]
pub struct Picture {
    /// Seats and verdicts.
    pub status: Status,
    /// Every listener with its queue.
    pub queues: Vec<Queue>,
    /// The generations that live, by their processes.
    pub holders: Vec<Holder>,
    /// Processes that are nobody's orphans.
    pub known: Vec<i32>,
    /// Where their connections are counted.
    pub doors: Doors,
    /// What instances have said last of their status, for people.
    pub status_texts: HashMap<Generation, String>,
    /// How long zdr runs, in seconds.
    pub uptime_secs: f64,
}

impl Picture {
    /// The newest generation that sits there.
    pub fn seated(&self, seat: SeatName) -> Option<Generation> {
        let mut seats = self.status.generations.iter();
        seats.find(|at| at.seat == seat).map(|at| at.generation)
    }
}

/// The way to the owner.
pub type Owner = mpsc::UnboundedSender<Notice>;

/// Tells the owner; one that is gone has no use for it.
pub fn tell(owner: &Owner, event: Event) {
    let _ = owner.send(Notice::Happened(event));
}
