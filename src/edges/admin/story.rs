//! The story: what happened, kept for those who come later, and told as NDJSON and as Server-Sent Events.
//!
//! Every reader has a place in it and takes what comes next when it can; none is waited for, and none makes it longer.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::edges::http_server::{Live, Reader};
use crate::supervisor::{News, Verdict};

/// How many lines are kept.
const LINES: usize = 1000;

/// How many bytes they may have in all: a server that fails again and again may have much to say each time.
const BYTES: usize = 1024 * 1024;

/// Lines are written in pieces of about this size.
const PIECE: usize = 16 * 1024;

/// The longest that clients and proxies see nothing on a stream; nginx gives up after 60 s.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(15);

/// What is written then: a comment, which clients ignore.
pub(super) const STILL_HERE: &[u8] = b": still here\n\n";

/// One line of the story, written once for all readers.
#[derive(Clone, Debug)]
pub struct Line {
    number: u64,
    /// As a Server-Sent Event: the fields of HTML Living Standard §9.2. Its data holds no line end, as JSON escapes them.
    event: Bytes,
    /// Where the data begins.
    data: usize,
}

impl Line {
    /// Writes it.
    pub fn new(number: u64, news: &News, at: SystemTime) -> Self {
        let mut value = serde_json::to_value(news).unwrap_or_default();
        if let Value::Object(fields) = &mut value {
            fields.insert("id".to_owned(), number.into());
            fields.insert("message".to_owned(), news.to_string().into());
            fields.insert("time".to_owned(), humantime::format_rfc3339_millis(at).to_string().into());
        }
        let name = value.get("event").and_then(Value::as_str).unwrap_or_default();
        let head = format!("id: {number}\nevent: {name}\ndata: ");
        let event = format!("{head}{value}\n\n");
        Self { number, event: event.into_bytes().into_boxed_slice().into(), data: head.len() }
    }

    /// True for the verdict of some request, which is not everybody's.
    pub(super) fn is_verdict(&self) -> bool {
        self.event[..self.data].ends_with(b"\nevent: verdict\ndata: ")
    }

    /// The data and one line end.
    pub(super) fn ndjson(&self) -> Bytes {
        self.event.slice(self.data..self.event.len() - 1)
    }
}

/// The last lines, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Story {
    told: u64,
    lines: VecDeque<Line>,
    bytes: usize,
}

impl Story {
    pub(super) fn add(&mut self, news: &News, at: SystemTime) {
        self.told += 1;
        let line = Line::new(self.told, news, at);
        self.bytes += line.event.len();
        self.lines.push_back(line);
        while self.lines.len() > LINES || self.bytes > BYTES {
            let Some(oldest) = self.lines.pop_front() else { return };
            self.bytes -= oldest.event.len();
        }
    }

    /// The number of the last line.
    pub(super) fn told(&self) -> u64 {
        self.told
    }

    /// The next lines after this number, and how many between are not kept any more.
    pub(super) fn after(&self, number: u64) -> (u64, impl Iterator<Item = &Line>) {
        let first = self.lines.front().map_or(self.told + 1, |line| line.number);
        let missed = first.saturating_sub(number + 1);
        let skip = usize::try_from((number + 1).saturating_sub(first)).unwrap_or(usize::MAX);
        (missed, self.lines.iter().skip(skip))
    }
}

/// Where somebody is in the story.
#[derive(Debug)]
pub(super) struct Place {
    story: watch::Receiver<Story>,
    last: u64,
}

impl Place {
    /// Behind everything that was told.
    pub(super) fn at_the_end(story: &watch::Sender<Story>) -> Self {
        let story = story.subscribe();
        let last = story.borrow().told();
        Self { story, last }
    }

    /// Behind the line with this number. One that was not told yet is of a zdr before this one: that reader missed all.
    pub(super) fn behind(story: &watch::Sender<Story>, number: u64) -> Self {
        let story = story.subscribe();
        let last = Some(number).filter(|number| *number <= story.borrow().told()).unwrap_or(0);
        Self { story, last }
    }

    /// The next line, at once if there is one; None when nothing will be told any more. Cancel safe.
    pub(super) async fn next(&mut self) -> Option<Line> {
        let last = self.last;
        let line = self.story.wait_for(|story| story.told() > last).await.ok()?.after(last).1.next().cloned()?;
        self.last = line.number;
        Some(line)
    }

    /// What has come, as much as is written at once, and how many lines before it are lost; None if nothing has come.
    fn piece(&mut self) -> Option<(u64, Vec<u8>)> {
        let story = self.story.borrow_and_update();
        let (missed, lines) = story.after(self.last);
        let mut piece = Vec::new();
        for line in lines {
            piece.extend_from_slice(&line.event);
            self.last = line.number;
            if piece.len() >= PIECE {
                break;
            }
        }
        (!piece.is_empty()).then_some((missed, piece))
    }

    /// Waits until there is more than there was at the last look; false when nothing will be told any more. Cancel safe.
    async fn has_more(&mut self) -> bool {
        self.story.changed().await.is_ok()
    }
}

/// All of the story from a place on, and then, if it is wanted, what happens.
pub(super) fn follow(place: Place, on_and_on: bool) -> Live {
    Live::new(move |reader| tell(place, on_and_on, reader))
}

async fn tell(mut place: Place, on_and_on: bool, mut reader: Reader) {
    let mut first = true;
    let opening = b"retry: 1000\n: the story\n\n";
    if reader.tell(opening).await.is_err() {
        return;
    }
    loop {
        while let Some((missed, piece)) = place.piece() {
            if missed > 0 && first {
                let comment = format!(": {missed} events before these are not kept any more\n\n");
                if reader.tell(comment.as_bytes()).await.is_err() {
                    return;
                }
            } else if missed > 0 {
                let comment = format!(": too slow, {missed} events were missed; reconnect with Last-Event-ID\n\n");
                let _ = reader.tell(comment.as_bytes()).await;
                return reader.farewell().await;
            }
            first = false;
            if reader.tell(&piece).await.is_err() {
                return;
            }
        }
        first = false;
        if !on_and_on {
            return reader.farewell().await;
        }
        match reader.until(timeout(HEARTBEAT, place.has_more())).await {
            Some(Ok(true)) => {}
            Some(Ok(false)) => return reader.farewell().await,
            Some(Err(_)) => {
                if reader.tell(STILL_HERE).await.is_err() {
                    return;
                }
            }
            None => return,
        }
    }
}

/// The last line of an order's answer.
pub(super) fn verdict(verdict: &Verdict) -> Value {
    let mut value = json!({ "event": "verdict", "code": verdict.outcome.code(), "message": verdict.reason });
    if let (Value::Object(all), Ok(Value::Object(fields))) = (&mut value, serde_json::to_value(verdict)) {
        all.extend(fields);
    }
    value
}

#[cfg(test)]
mod tests;
