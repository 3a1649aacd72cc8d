//! One question over the admin socket, in HTTP/1.0: the answer ends where the connection does, so lines can be read as
//! they come.

use std::fmt;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use humantime::format_duration;

use super::patience::Patience;

/// How long a supervisor may take to begin its answer; it takes milliseconds.
const ANSWER: Duration = Duration::from_secs(10);

/// A connection to a supervisor.
#[derive(Debug)]
pub(super) struct Connection {
    path: PathBuf,
    reader: BufReader<UnixStream>,
}

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
    /// The verdict is that it failed.
    Verdict {
        /// The exit code.
        code: u8,
        /// Why.
        reason: String,
    },
}

impl ClientError {
    /// What the command exits with.
    pub fn code(&self) -> u8 {
        match self {
            Self::Nobody { .. } | Self::NoneHere { .. } | Self::Silent { .. } | Self::Ended => 4,
            Self::Several { .. } => 2,
            Self::Refused(_) | Self::TimedOut | Self::NotServing { .. } => 1,
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
            Self::Verdict { reason, .. } => f.write_str(reason),
        }
    }
}

impl std::error::Error for ClientError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Nobody { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl Connection {
    pub(super) fn open(path: &Path) -> Result<Self, ClientError> {
        let stream =
            UnixStream::connect(path).map_err(|source| ClientError::Nobody { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), reader: BufReader::new(stream) })
    }

    /// Sends the question and reads the head of the answer; one that is no success is an error with its words.
    ///
    /// A supervisor answers at once, though the rest of the answer may take its time.
    pub(super) fn ask(&mut self, method: &str, target: &str, body: &str, user: Patience) -> Result<(), ClientError> {
        let head = format!("{method} {target} HTTP/1.0\r\nHost: zdr\r\nContent-Length: {}\r\n\r\n", body.len());
        let broken = |source| ClientError::Nobody { path: self.path.clone(), source };
        let sent = self.reader.get_mut().write_all(format!("{head}{body}").as_bytes());
        sent.map_err(broken)?;
        let patience = Patience::of(Some(user.left().unwrap_or(ANSWER).min(ANSWER)));
        let path = self.path.clone();
        let silent = |error| match error {
            ClientError::TimedOut if !user.is_over() => ClientError::Silent { path: path.clone() },
            other => other,
        };
        let status = self.next_line(patience).map_err(silent)?.ok_or(ClientError::Ended)?;
        while self.next_line(patience).map_err(silent)?.is_some_and(|line| !line.is_empty()) {}
        if status.split(' ').nth(1).is_some_and(|code| code.starts_with('2')) {
            return Ok(());
        }
        let body = self.next_line(patience)?.unwrap_or_default();
        let told = serde_json::from_str::<serde_json::Value>(&body).unwrap_or_default();
        let why = told["error"].as_str().or(told["state"].as_str());
        Err(ClientError::Refused(why.unwrap_or(&status).to_owned()))
    }

    /// The next line, without its end; None where the answer ends.
    pub(super) fn next_line(&mut self, patience: Patience) -> Result<Option<String>, ClientError> {
        let left = patience.left();
        if left == Some(Duration::ZERO) {
            return Err(ClientError::TimedOut);
        }
        let broken = |source| ClientError::Nobody { path: self.path.clone(), source };
        self.reader.get_ref().set_read_timeout(left).map_err(broken)?;
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => Ok(None),
            Ok(_) => Ok(Some(line.trim_end().to_owned())),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Err(ClientError::TimedOut)
            }
            Err(_) => Ok(None),
        }
    }
}
