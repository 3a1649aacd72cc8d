//! A strict load client: it sends requests to one address, over a new connection each and over connections
//! kept alive, and counts every request that was not answered whole, in time and with a 2xx status.
//!
//! It never retries in silence, never forgives, and names nothing of zdr's, so that tests can include this file by
//! `#[path]`. It works on a thread of its own; starting, marking and stopping are plain calls.

#![expect(clippy::disallowed_methods, reason = "measuring time is what it is for")]

// Explicit paths, because a file that is itself included by `#[path]` looks for its modules beside it, not below.
#[path = "load/answer.rs"]
mod answer;
#[path = "load/client.rs"]
mod client;
#[path = "load/report.rs"]
pub mod report;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use std::{io, panic};

use tokio::runtime;
use tokio::sync::watch;

use client::Client;
use report::Report;

/// What the load looks like.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Clients that open a connection for every request and ask for it to be closed.
    pub new_connection_clients: usize,
    /// Clients that send all their requests over one connection, as long as the server lets them.
    pub keep_alive_clients: usize,
    /// Requests a second of each client; `None` sends the next one as soon as the last is answered.
    pub rate_per_client: Option<f64>,
    /// The path asked for.
    pub path: String,
    /// A request that takes longer, from the moment it is sent, has failed.
    pub limit: Duration,
}

/// What is going on while requests are sent, so that their latencies can be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing but the load.
    Steady,
    /// A request counts here when any part of it fell into this phase.
    Reload,
}

/// Load on its way. Dropped without [`Load::stop`], it ends by itself and its report is lost.
#[derive(Debug)]
pub struct Load {
    progress: Arc<Progress>,
    news: mpsc::Receiver<FirstAnswer>,
    first_answers: BTreeMap<u64, Instant>,
    stop: watch::Sender<bool>,
    thread: JoinHandle<Report>,
}

/// The little that the clients and the owner of the load share while it runs.
#[derive(Debug, Default)]
struct Progress {
    answered: AtomicU64,
    /// Counts the changes of phase: odd within [`Phase::Reload`]. A request that began and ended at the same even
    /// number saw no reload, not even one shorter than itself.
    phase_changes: AtomicU64,
}

/// A generation has answered for the first time, as one client saw it.
#[derive(Debug)]
struct FirstAnswer {
    generation: u64,
    at: Instant,
}

impl Load {
    /// Starts to send requests to `target`.
    pub fn start(target: SocketAddr, shape: &Shape) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let progress = Arc::new(Progress::default());
        let (tell, news) = mpsc::channel();
        let (stop, stopped) = watch::channel(false);
        let clients = Client::all(target, shape, &progress, &tell, &stopped);
        let thread =
            thread::Builder::new().name("load".to_owned()).spawn(move || runtime.block_on(send_requests(clients)))?;
        Ok(Self { progress, news, first_answers: BTreeMap::new(), stop, thread })
    }

    /// From now on requests belong to `phase`.
    pub fn mark(&self, phase: Phase) {
        let in_reload = self.progress.phase_changes.load(Ordering::SeqCst) % 2 == 1;
        if in_reload != (phase == Phase::Reload) {
            self.progress.phase_changes.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Requests answered well up to now.
    pub fn answered(&self) -> u64 {
        self.progress.answered.load(Ordering::Relaxed)
    }

    /// Waits until that many more requests are answered well; false when they were not within the time.
    pub fn wait_for_answers(&self, more: u64, within: Duration) -> bool {
        let enough = self.answered() + more;
        let deadline = Instant::now() + within;
        while self.answered() < enough {
            if Instant::now() >= deadline {
                return false;
            }
            thread::park_timeout(Duration::from_millis(1));
        }
        true
    }

    /// When the first answer of a wanted generation came, as told by its `X-Generation` header, if one came up to now.
    pub fn first_answer_of(&mut self, wanted: impl Fn(u64) -> bool) -> Option<Instant> {
        while let Ok(first) = self.news.try_recv() {
            self.note(&first);
        }
        self.first_answers.iter().filter(|(generation, _)| wanted(**generation)).map(|(_, at)| *at).min()
    }

    /// The same, waiting for it.
    pub fn wait_for_answer_of(&mut self, wanted: impl Fn(u64) -> bool, within: Duration) -> Option<Instant> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(at) = self.first_answer_of(&wanted) {
                return Some(at);
            }
            let first = self.news.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()?;
            self.note(&first);
        }
    }

    /// Sends no more requests, waits for those under way, and reports.
    pub fn stop(self) -> Report {
        self.stop.send_replace(true);
        self.thread.join().unwrap_or_else(|cause| panic::resume_unwind(cause))
    }

    fn note(&mut self, first: &FirstAnswer) {
        let at = self.first_answers.entry(first.generation).or_insert(first.at);
        *at = first.at.min(*at);
    }
}

async fn send_requests(clients: Vec<Client>) -> Report {
    let tasks: Vec<_> = clients.into_iter().map(|client| tokio::spawn(client.run())).collect();
    let mut report = Report::default();
    for task in tasks {
        match task.await {
            Ok((kind, found)) => report.add(kind, found),
            Err(cause) => panic::resume_unwind(cause.into_panic()),
        }
    }
    report
}
