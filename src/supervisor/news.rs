//! The story of a supervisor, line by line, as events, logs and progress tell it.

use std::fmt;
use std::time::Duration;

use humantime::format_duration;
use serde::Serialize;

use super::generation::{Generation, Why};
use super::policy::Hook;
use super::status::Health;
use super::verdict::{Cause, Verdict};

/// One line of the story. The JSON has the variant's name as `event`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum News {
    /// The command runs.
    Spawned {
        /// Whose.
        generation: Generation,
        /// Which instance of it,
        instance: u32,
        /// of so many.
        of: u32,
        /// Its main process.
        pid: i32,
        /// What it was started for.
        why: Why,
    },
    /// A probe was answered, but not that it is ready.
    NotReady {
        /// Whose.
        generation: Generation,
        /// Which instance of it,
        instance: u32,
        /// of so many.
        of: u32,
        /// What came back.
        answer: String,
    },
    /// One of several instances has proved that it can serve.
    InstanceReady {
        /// Whose.
        generation: Generation,
        /// Which instance of it.
        instance: u32,
        /// How many are ready by now,
        ready: u32,
        /// of so many.
        of: u32,
    },
    /// One of several instances is gone, and the others serve on.
    InstanceLost {
        /// Whose.
        generation: Generation,
        /// Which instance of it.
        instance: u32,
        /// How it ended, or what it did not do.
        exit: String,
        /// What happens now.
        then: String,
        /// The last lines that it wrote.
        output: Vec<String>,
    },
    /// A part of the new connections goes to it now.
    Sharing {
        /// Which.
        generation: Generation,
        /// How many of its instances have their share,
        ready: u32,
        /// of so many.
        of: u32,
    },
    /// A command of the user's has ended.
    Hook {
        /// The generation it was about.
        generation: Generation,
        /// Which.
        hook: Hook,
        /// What went wrong; None where it did well.
        failure: Option<String>,
    },
    /// A watched file has changed.
    Changed {
        /// One of those that have.
        path: String,
    },
    /// New connections are held.
    Paused {
        /// For so long at most.
        #[serde(rename = "for_secs", serialize_with = "seconds")]
        time: Duration,
    },
    /// New connections are held no longer.
    Resumed,
    /// Something in the settings has no effect before zdr is started again.
    Unapplied {
        /// What, and why.
        reason: String,
    },
    /// What was asked for, or the configuration, cannot be had; nothing has changed.
    Refused {
        /// Why.
        reason: String,
    },
    /// It gets the new connections now.
    Serving {
        /// Which.
        generation: Generation,
        /// From the start to now.
        #[serde(rename = "after_secs", serialize_with = "seconds")]
        after: Duration,
    },
    /// It finishes what is open.
    Draining {
        /// Which.
        generation: Generation,
        /// Open connections.
        open: usize,
        /// Those with a request in flight.
        busy: usize,
    },
    /// It was sent the drain signal.
    Signalled {
        /// Which.
        generation: Generation,
    },
    /// Its time ran out.
    Killed {
        /// Which.
        generation: Generation,
        /// Why.
        reason: String,
    },
    /// It has ended.
    Ended {
        /// Which.
        generation: Generation,
        /// How.
        exit: String,
        /// Since it got nothing new.
        #[serde(rename = "after_secs", serialize_with = "seconds")]
        after: Duration,
    },
    /// It did not become ready.
    Failed {
        /// Which.
        generation: Generation,
        /// Why, in one word.
        cause: Cause,
        /// Why.
        reason: String,
        /// The last lines that it wrote.
        output: Vec<String>,
    },
    /// The serving generation died.
    Crashed {
        /// Which.
        generation: Generation,
        /// How.
        exit: String,
        /// What happens now.
        then: String,
        /// The last lines that it wrote.
        output: Vec<String>,
    },
    /// The old generation has the new connections back.
    Returned {
        /// Which.
        generation: Generation,
    },
    /// It does not do what one that is well would do.
    Stuck {
        /// Which.
        generation: Generation,
        /// What was seen.
        reason: String,
    },
    /// It has grown too large, or too old.
    Worn {
        /// Which.
        generation: Generation,
        /// What was seen.
        reason: String,
    },
    /// It is well again, or ready again.
    Recovered {
        /// Which.
        generation: Generation,
    },
    /// It has said that it is not ready.
    Unready {
        /// Which.
        generation: Generation,
    },
    /// It has said that it is about to end.
    Leaving {
        /// Which.
        generation: Generation,
    },
    /// A check of the user's has another state than before.
    Check {
        /// Its name.
        name: String,
        /// How well that is.
        state: Health,
        /// What came back.
        message: String,
    },
    /// Nothing serves, or what serves is to be replaced; the next try comes after a pause.
    Retrying {
        /// What serves meanwhile.
        #[serde(skip_serializing_if = "Option::is_none")]
        serving: Option<Generation>,
        /// The pause.
        #[serde(rename = "after_secs", serialize_with = "seconds")]
        after: Duration,
    },
    /// Nothing serves, and a change of the watched files is waited for.
    Waiting,
    /// Somebody's request got its verdict.
    Verdict(Verdict),
    /// zdr ends.
    Stopping,
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((duration.as_secs_f64() * 1e6).round() / 1e6)
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Spawned { generation, of: 1, pid, why, .. } => {
                write!(f, "generation {generation} started as process {pid}{why}")
            }
            Self::Spawned { generation, instance, pid, why, .. } => {
                write!(f, "instance {instance} of generation {generation} started as process {pid}{why}")
            }
            Self::NotReady { generation, of: 1, answer, .. } => {
                write!(f, "generation {generation} is not ready yet: {answer}")
            }
            Self::NotReady { generation, instance, answer, .. } => {
                write!(f, "instance {instance} of generation {generation} is not ready yet: {answer}")
            }
            Self::InstanceReady { generation, instance, ready, of } => {
                write!(f, "instance {instance} of generation {generation} is ready, {ready} of {of}")
            }
            Self::InstanceLost { generation, instance, exit, then, .. } => {
                write!(f, "instance {instance} of generation {generation} {exit}; {then}")
            }
            Self::Sharing { generation, ready, of } => {
                write!(f, "generation {generation} gets {ready} of {of} parts of the new connections")
            }
            Self::Hook { generation, hook, failure: None } => {
                write!(f, "the {hook} hook of generation {generation} did well")
            }
            Self::Hook { generation, hook, failure: Some(failure) } => {
                write!(f, "the {hook} hook of generation {generation} {failure}")
            }
            Self::Changed { path } => write!(f, "{path} has changed"),
            Self::Paused { time } => write!(f, "new connections are held for at most {}", format_duration(*time)),
            Self::Resumed => f.write_str("new connections are held no longer"),
            Self::Serving { generation, after } => {
                write!(f, "generation {generation} serves after {after:.1?}")
            }
            Self::Draining { generation, open, busy } => {
                write!(f, "generation {generation} drains: {open} connections left, {busy} busy")
            }
            Self::Signalled { generation } => {
                write!(f, "generation {generation} was asked to finish")
            }
            Self::Killed { generation, reason } => {
                write!(f, "generation {generation} is killed: {reason}")
            }
            Self::Ended { generation, exit, .. } => write!(f, "generation {generation} {exit}"),
            Self::Failed { reason, .. } | Self::Unapplied { reason } | Self::Refused { reason } => f.write_str(reason),
            Self::Crashed { generation, exit, then, .. } => {
                write!(f, "generation {generation} {exit} while serving; {then}")
            }
            Self::Returned { generation } => {
                write!(f, "generation {generation} has the new connections back")
            }
            Self::Stuck { generation, reason } => write!(f, "generation {generation} is stuck: {reason}"),
            Self::Worn { generation, reason } => write!(f, "generation {generation} {reason}"),
            Self::Recovered { generation } => write!(f, "generation {generation} is well again"),
            Self::Unready { generation } => write!(f, "generation {generation} has said that it is not ready"),
            Self::Leaving { generation } => write!(f, "generation {generation} has said that it is about to end"),
            Self::Check { name, state, message } => write!(f, "check {name} is {state}: {message}"),
            Self::Retrying { serving: None, after } => write!(f, "nothing serves; trying again in {after:.1?}"),
            Self::Retrying { serving: Some(generation), after } => {
                write!(f, "generation {generation} serves on; trying to replace it again in {after:.1?}")
            }
            Self::Waiting => f.write_str("nothing serves; waiting for a change"),
            Self::Verdict(verdict) => f.write_str(&verdict.reason),
            Self::Stopping => f.write_str("stopping"),
        }
    }
}

#[cfg(test)]
mod tests;
