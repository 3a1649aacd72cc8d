//! A shell command that is run to answer a question, and the last line of what it writes.
//!
//! Runs nothing itself: that is the owner's. Holds no more of what is written than a line, however much that is.

use std::os::fd::OwnedFd;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::pipe;
use tokio::sync::oneshot;
use tokio::task::yield_now;

use super::aside::Alive;
use crate::edges::errands::Purpose;
use crate::edges::notice::{Notice, Owner};
use crate::edges::plain_text::plain;
use crate::supervisor::Exit;

/// A pipe holds as much (pipe(7)).
const PIECE: usize = 64 * 1024;

/// Of a line that does not end, so much is kept.
const LINE: usize = 2048;

/// A command and what it is for.
#[derive(Debug)]
pub(super) struct Errand<'a> {
    pub(super) purpose: Purpose,
    pub(super) command: &'a str,
    pub(super) owner: &'a Owner,
    pub(super) alive: Alive,
}

impl Errand<'_> {
    /// Runs it to its end, with this as its output and errors or else with zdr's own. Where nobody waits for its end any more,
    /// it is ended with all it has started.
    pub(super) async fn run(self, output: Option<OwnedFd>) -> Result<Exit, String> {
        let (reply, done) = oneshot::channel();
        let mut abandoned = Abandoned(Some((self.owner.clone(), self.purpose)));
        let command = self.command.to_owned();
        let _ = self.owner.send(Notice::Errand { purpose: self.purpose, command, output, alive: self.alive, reply });
        let exit = done.await.map_err(|_| "zdr is ending".to_owned())?;
        abandoned.0 = None;
        exit
    }

    /// Runs it to its end: how that was, and the last line that it wrote, which may be empty.
    pub(super) async fn last_line(self) -> Result<(Exit, String), String> {
        let cannot = |error| format!("cannot make a pipe: {error}");
        let (writer, mut reader) = pipe().map_err(cannot)?;
        let running = self.run(Some(writer.into_blocking_fd().map_err(cannot)?));
        tokio::pin!(running);
        let (mut lines, mut piece, mut open) = (LastLine::default(), vec![0; PIECE], true);
        let exit = loop {
            tokio::select! {
                exit = &mut running => break exit?,
                read = reader.read(&mut piece), if open => match read {
                    Ok(amount @ 1..) => {
                        lines.add(&piece[..amount]);
                        // One that writes without end must not keep the loop from anybody else.
                        yield_now().await;
                    }
                    _ => open = false,
                },
            }
        };
        // What was written before it ended. Somebody whom zdr may not kill could go on writing.
        // The event loop may not have noticed yet that there is something, so the pipe itself is asked.
        if open {
            let rest = reader.into_nonblocking_fd().map_err(|error| format!("cannot read what it wrote: {error}"))?;
            let amount = nix::unistd::read(&rest, &mut piece).unwrap_or(0);
            lines.add(&piece[..amount]);
        }
        Ok((exit, lines.last()))
    }
}

/// Dropped before an errand is done, it has the errand ended.
struct Abandoned(Option<(Owner, Purpose)>);

impl Drop for Abandoned {
    fn drop(&mut self) {
        if let Some((owner, purpose)) = self.0.take() {
            let _ = owner.send(Notice::EndErrand { purpose });
        }
    }
}

/// The last line that is not empty, of text that comes in pieces.
#[derive(Debug, Default)]
struct LastLine {
    complete: Vec<u8>,
    begun: Vec<u8>,
}

impl LastLine {
    fn add(&mut self, piece: &[u8]) {
        // A carriage return ends what programs write to show how far they are.
        for part in piece.split_inclusive(|byte| matches!(byte, b'\n' | b'\r')) {
            let room = LINE.saturating_sub(self.begun.len());
            self.begun.extend_from_slice(&part[..part.len().min(room)]);
            if part.ends_with(b"\n") || part.ends_with(b"\r") {
                let line = std::mem::take(&mut self.begun);
                if !is_blank(&line) {
                    self.complete = line;
                }
            }
        }
    }

    fn last(&self) -> String {
        plain(if is_blank(&self.begun) { &self.complete } else { &self.begun })
    }
}

fn is_blank(line: &[u8]) -> bool {
    line.iter().all(u8::is_ascii_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last_of(pieces: &[&[u8]]) -> String {
        let mut lines = LastLine::default();
        for piece in pieces {
            lines.add(piece);
        }
        assert!(lines.begun.len() <= LINE && lines.complete.len() <= LINE);
        lines.last()
    }

    #[test]
    fn the_last_line_that_is_not_empty_counts_however_it_comes() {
        assert_eq!(last_of(&[]), "");
        assert_eq!(last_of(&[b"one\ntwo\n\n  \n"]), "two");
        assert_eq!(last_of(&[b"one\nt", b"w", b"o"]), "two");
        assert_eq!(last_of(&[b"10 %\r50 %\r100 %\r"]), "100 %");
        assert_eq!(last_of(&[&vec![b'x'; 100_000], b"\n"]).len(), 200);
        assert_eq!(last_of(&[b"\xff\x00\x01\n"]), "\u{fffd}");
    }
}
