//! One question over the admin socket, in HTTP/1.0: the answer ends where the connection does, so lines can be read as
//! they come.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::error::{ANSWER, ClientError};
use super::time::Patience;

/// A connection to a supervisor.
#[derive(Debug)]
pub(super) struct Connection {
    path: PathBuf,
    socket: UnixStream,
    /// What has come and was not asked for yet.
    unread: Vec<u8>,
}

/// What came while the next line was waited for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The line, without its end.
    Line(String),
    /// The answer has ended.
    End,
    /// Nothing, in the time that was given.
    Late,
    /// Something is with the other descriptor.
    Interrupted,
}

impl Connection {
    pub(super) fn open(path: &Path) -> Result<Self, ClientError> {
        let socket =
            UnixStream::connect(path).map_err(|source| ClientError::Nobody { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), socket, unread: Vec::new() })
    }

    /// Sends the question and reads the head of the answer; one that is no success is an error with its words.
    ///
    /// A supervisor answers at once, though the rest of the answer may take its time.
    pub(super) fn ask(&mut self, method: &str, target: &str, body: &str, user: Patience) -> Result<(), ClientError> {
        let status = self.ask_whatever(method, target, body, user)?;
        if status.split(' ').nth(1).is_some_and(|code| code.starts_with('2')) {
            return Ok(());
        }
        let patience = Patience::of(Some(user.left().unwrap_or(ANSWER).min(ANSWER)));
        let body = self.next_line(patience)?.unwrap_or_default();
        let told = serde_json::from_str::<serde_json::Value>(&body).unwrap_or_default();
        let why = told["error"].as_str().or(told["state"].as_str());
        Err(ClientError::Refused(why.unwrap_or(&status).to_owned()))
    }

    /// The same, whatever the answer; answers with its first line.
    pub(super) fn ask_whatever(
        &mut self,
        method: &str,
        target: &str,
        body: &str,
        user: Patience,
    ) -> Result<String, ClientError> {
        let head = format!("{method} {target} HTTP/1.0\r\nHost: zdr\r\nContent-Length: {}\r\n\r\n", body.len());
        let sent = self.socket.write_all(format!("{head}{body}").as_bytes());
        sent.map_err(|source| self.broken(source))?;
        let patience = Patience::of(Some(user.left().unwrap_or(ANSWER).min(ANSWER)));
        let path = self.path.clone();
        let silent = |error| match error {
            ClientError::TimedOut if !user.is_over() => ClientError::Silent { path: path.clone() },
            other => other,
        };
        let status = self.next_line(patience).map_err(silent)?.ok_or(ClientError::Ended)?;
        while self.next_line(patience).map_err(silent)?.is_some_and(|line| !line.is_empty()) {}
        Ok(status)
    }

    /// The next line, without its end; None where the answer ends.
    pub(super) fn next_line(&mut self, patience: Patience) -> Result<Option<String>, ClientError> {
        match self.next(patience.left(), None)? {
            Next::Line(line) => Ok(Some(line)),
            Next::End => Ok(None),
            Next::Late | Next::Interrupted => Err(ClientError::TimedOut),
        }
    }

    /// The next line, unless the time passes or something is with the other descriptor before.
    pub(super) fn next(&mut self, within: Option<Duration>, other: Option<&PollFd<'_>>) -> Result<Next, ClientError> {
        let patience = Patience::of(within);
        let mut searched = 0;
        loop {
            if let Some(at) = self.unread[searched..].iter().position(|byte| *byte == b'\n') {
                let rest = self.unread.split_off(searched + at + 1);
                return Ok(Next::Line(text(&std::mem::replace(&mut self.unread, rest))));
            }
            searched = self.unread.len();
            match self.wait(patience, other).map_err(|error| self.broken(error.into()))? {
                None => return Ok(Next::Late),
                Some(Ready::Other) => return Ok(Next::Interrupted),
                Some(Ready::Socket) => {}
            }
            let mut chunk = [0; 16 * 1024];
            // A connection that was cut is one that has ended.
            match self.socket.read(&mut chunk).unwrap_or(0) {
                0 if self.unread.is_empty() => return Ok(Next::End),
                0 => return Ok(Next::Line(text(&std::mem::take(&mut self.unread)))),
                length => self.unread.extend_from_slice(&chunk[..length]),
            }
        }
    }

    fn wait(&self, patience: Patience, other: Option<&PollFd<'_>>) -> Result<Option<Ready>, Errno> {
        loop {
            let answer = PollFd::new(self.socket.as_fd(), PollFlags::POLLIN);
            let mut asked: Vec<PollFd<'_>> = [Some(answer), other.cloned()].into_iter().flatten().collect();
            // Rounded up, so that it is not asked again and again in the last millisecond.
            let limit = patience.left().map(|left| left.as_millis() + u128::from(!left.is_zero()));
            let limit = limit.map_or(PollTimeout::NONE, |limit| {
                i32::try_from(limit).map_or(PollTimeout::MAX, |it| it.try_into().unwrap_or(PollTimeout::MAX))
            });
            let number = match poll(&mut asked, limit) {
                Err(Errno::EINTR) => continue,
                result => result?,
            };
            let other = asked.get(1).is_some_and(|it| it.any().unwrap_or(false));
            return Ok((number > 0).then_some(if other { Ready::Other } else { Ready::Socket }));
        }
    }

    fn broken(&self, source: io::Error) -> ClientError {
        ClientError::Nobody { path: self.path.clone(), source }
    }
}

enum Ready {
    Socket,
    Other,
}

fn text(line: &[u8]) -> String {
    String::from_utf8_lossy(line).trim_end().to_owned()
}
