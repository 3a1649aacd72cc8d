//! Why a client command failed, in the words that its user reads, and the exit code that a script reads.
//!
//! Judges nothing: a verdict comes from the supervisor.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use humantime::format_duration;

/// How long a supervisor may take to begin its answer; it takes milliseconds.
pub(super) const ANSWER: Duration = Duration::from_secs(10);

/// Why a client command failed.
#[derive(Debug)]
pub enum ClientError {
    /// Nobody listens on the admin socket.
    Nobody {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No supervisor runs here.
    NoneHere {
        /// Where it was looked for.
        directory: PathBuf,
    },
    /// More than one runs here.
    Several {
        /// Their names.
        names: Vec<String>,
    },
    /// The supervisor refused the question.
    Refused(String),
    /// The supervisor ended before it answered.
    Ended,
    /// Somebody took the question and said nothing.
    Silent {
        /// Where.
        path: PathBuf,
    },
    /// The user's time limit passed.
    TimedOut,
    /// No generation served in time.
    NotServing {
        /// The time that was given.
        limit: Duration,
        /// What there was instead.
        state: String,
    },
    /// The terminal cannot be drawn on.
    Terminal(io::Error),
    /// The verdict is that it failed.
    Verdict {
        /// The exit code.
        code: u8,
        /// Why.
        reason: String,
        /// What the generation wrote last.
        output: Vec<String>,
    },
}

impl ClientError {
    /// What the command exits with.
    pub fn code(&self) -> u8 {
        match self {
            Self::Nobody { .. } | Self::NoneHere { .. } | Self::Silent { .. } | Self::Ended => 4,
            Self::Several { .. } => 2,
            Self::Refused(_) | Self::Terminal(_) | Self::TimedOut | Self::NotServing { .. } => 1,
            Self::Verdict { code, .. } => *code,
        }
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody { path, source } if source.kind() == io::ErrorKind::PermissionDenied => {
                write!(f, "not allowed to talk to {}: run this as the user that runs zdr", path.display())
            }
            Self::Nobody { path, source } => {
                write!(f, "no supervisor answers at {}: {source}; `zdr list` shows who runs here", path.display())
            }
            Self::NoneHere { directory } => write!(
                f,
                "no supervisor runs in {}; start one with `zdr run`, or name it by --admin PATH",
                directory.display()
            ),
            Self::Several { names } => {
                write!(f, "several supervisors run here; choose one by --name: {}", names.join(", "))
            }
            Self::Refused(why) => f.write_str(why),
            Self::Ended => f.write_str("the supervisor ended before it answered"),
            Self::Silent { path } => write!(
                f,
                "no answer from {} within {}; `zdr list` shows who runs here",
                path.display(),
                format_duration(ANSWER)
            ),
            Self::TimedOut => f.write_str("no verdict in the time given; it goes on, `zdr status` shows how"),
            Self::NotServing { limit, state } => {
                write!(f, "nothing served within {}: {state}", format_duration(*limit))
            }
            Self::Terminal(source) => write!(f, "cannot draw on this terminal: {source}"),
            Self::Verdict { reason, output, .. } => {
                f.write_str(reason)?;
                output.iter().try_for_each(|line| write!(f, "\n  | {line}"))
            }
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Nobody { source, .. } | Self::Terminal(source) => Some(source),
            _ => None,
        }
    }
}
