//! The streams: the report again and again, for everybody who wants to see it change.
//!
//! One task makes each report once, whoever reads it: a reader costs a write. A slow one misses reports, and is never waited
//! for. Nothing is made while nobody reads.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::report::For;
use super::reporter::Wanted;
use super::routes::Routes;
use super::story::{HEARTBEAT, STILL_HERE};
use crate::edges::http_server::{Live, Reader};
use crate::edges::task::Task;

/// Readers whose times are so close together are told the same.
const AS_ONE: Duration = Duration::from_millis(50);

/// Whoever comes is told at once, and that may be as old as this.
const GREETING: Duration = Duration::from_millis(200);

/// The way to the streams.
#[derive(Clone, Debug)]
pub(super) struct Streams(mpsc::UnboundedSender<Join>);

#[derive(Debug)]
struct Join {
    every: Duration,
    reply: oneshot::Sender<Joined>,
}

/// What a new reader is told first, and where the rest comes.
#[derive(Debug)]
struct Joined {
    first: Bytes,
    next: watch::Receiver<Bytes>,
}

/// Those who read in the same rhythm.
struct Rhythm {
    readers: watch::Sender<Bytes>,
    due: Instant,
}

impl Streams {
    /// The way to a task that has yet to be started, because it needs the routes and they need the way.
    pub(super) fn new() -> (Self, Joins) {
        let (joins, joining) = mpsc::unbounded_channel();
        (Self(joins), Joins(joining))
    }

    /// The report, every so often.
    pub(super) async fn follow(&self, every: Duration) -> Option<Live> {
        let (reply, joined) = oneshot::channel();
        self.0.send(Join { every, reply }).ok()?;
        let joined = joined.await.ok()?;
        Some(Live::new(move |reader| read(joined, every, reader)))
    }
}

async fn read(Joined { first, mut next }: Joined, every: Duration, mut reader: Reader) {
    if reader.tell(b"retry: 1000\n").await.is_err() || reader.tell(&first).await.is_err() {
        return;
    }
    drop(first);
    // A heart beats only where it is needed: every one is a timer.
    let longest = if every > HEARTBEAT { HEARTBEAT } else { Duration::MAX };
    loop {
        let told = match reader.until(timeout(longest, next.changed())).await {
            Some(Ok(Ok(()))) => {
                let report = next.borrow_and_update().clone();
                reader.tell(&report).await
            }
            Some(Ok(Err(_))) => return reader.farewell().await,
            Some(Err(_)) => reader.tell(STILL_HERE).await,
            None => return,
        };
        if told.is_err() {
            return;
        }
    }
}

/// Where those who join are waiting.
pub(super) struct Joins(mpsc::UnboundedReceiver<Join>);

/// The report that was made last, as an event.
struct Made {
    event: Bytes,
    at: Instant,
}

/// Makes the reports.
struct Maker {
    routes: Routes,
    made: u64,
    last: Option<Made>,
}

impl Joins {
    /// Serves them as long as the task lives.
    pub(super) fn serve(self, routes: Routes) -> Task {
        let maker = Maker { routes, made: 0, last: None };
        Task::start(run(self.0, maker))
    }
}

async fn run(mut joining: mpsc::UnboundedReceiver<Join>, mut maker: Maker) {
    let mut rhythms: BTreeMap<Duration, Rhythm> = BTreeMap::new();
    loop {
        let due = rhythms.values().map(|rhythm| rhythm.due).min();
        // Both are cancel safe: who has joined is in the channel until it is returned.
        tokio::select! {
            joined = joining.recv() => {
                let Some(Join { every, reply }) = joined else { return };
                let Some(first) = maker.event(Wanted::AtOnce, GREETING).await else { return };
                let rhythm = rhythms.entry(every).or_insert_with(|| Rhythm::new(every));
                let _ = reply.send(Joined { first, next: rhythm.readers.subscribe() });
            }
            () = at(due) => {
                rhythms.retain(|_, rhythm| rhythm.readers.receiver_count() > 0);
                if rhythms.is_empty() {
                    maker.last = None;
                    continue;
                }
                let Some(event) = maker.event(Wanted::Recent, AS_ONE).await else { return };
                let now = Instant::now();
                for (every, rhythm) in rhythms.iter_mut().filter(|(_, rhythm)| rhythm.due <= now) {
                    rhythm.readers.send_replace(event.clone());
                    // What was missed, because the machine had no time for it, is not made up for.
                    rhythm.due = (rhythm.due + *every).max(now);
                }
            }
        }
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

impl Rhythm {
    fn new(every: Duration) -> Self {
        Self { readers: watch::Sender::new(Bytes::new()), due: Instant::now() + every }
    }
}

impl Maker {
    /// The last report if it is not older than this, or a new one; None when zdr is ending.
    async fn event(&mut self, wanted: Wanted, oldest: Duration) -> Option<Bytes> {
        if let Some(made) = self.last.as_ref().filter(|made| made.at.elapsed() < oldest) {
            return Some(made.event.clone());
        }
        let picture = self.routes.picture().await?;
        let report = self.routes.report(&picture, For::Everybody, wanted).await;
        let report = serde_json::to_string(&report).unwrap_or_default();
        self.made += 1;
        let event = Bytes::from(format!("id: {}\nevent: health\ndata: {report}\n\n", self.made));
        self.last = Some(Made { event: event.clone(), at: Instant::now() });
        Some(event)
    }
}
