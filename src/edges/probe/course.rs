//! How the asking has gone so far, and what follows from it for the next question.
//!
//! Knows no socket: it counts, and keeps words from changing too often.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::Taken;
use super::aside::Remains;
use super::connection::Connection;

/// Probes come at intervals of this share of the time that has passed: a start is noticed at most 3 % late.
const SHARE: u32 = 32;

/// On a shared socket whoever is quicker gets the connection: several at once reach most servers.
const SOME: usize = 4;

/// A server that takes all it finds in one turn, as nginx does with `multi_accept`, must be offered more.
const MANY: usize = 16;

/// So many polls that reached others alone call for more connections.
const PATIENCE: u32 = 8;

/// Looking through /proc costs more than a probe, and words that change with every probe tell nobody anything.
const FRESH: Duration = Duration::from_secs(1);

/// The asking of one generation.
#[derive(Debug)]
pub(super) struct Course {
    started: Instant,
    longest: Duration,
    misses: u32,
    has_likes: bool,
    /// What it has taken of what others were offered.
    taken: Taken,
    /// Those of other listeners than the one that was asked.
    kept: Vec<(usize, Connection)>,
    /// The listeners, by their numbers, on which it has accepted a connection: where others take from the same queues, it does
    /// not have that luck on all of them in one round.
    pub(super) proved: BTreeSet<usize>,
    pub(super) hint: Words,
    pub(super) others: Words,
    /// A question to the resolver that was not answered in time.
    pub(super) unanswered: Option<Remains>,
}

/// Words that were found and are kept for a while.
#[derive(Debug, Default)]
pub(super) struct Words(Option<(Instant, String)>);

impl Course {
    /// It begins now; questions come at least this often.
    pub(super) fn begin(longest: Duration, taken: Taken) -> Self {
        let (hint, others) = (Words::default(), Words::default());
        Self {
            started: Instant::now(),
            longest,
            misses: 0,
            has_likes: false,
            taken,
            kept: Vec::new(),
            proved: BTreeSet::new(),
            hint,
            others,
            unanswered: None,
        }
    }

    /// How long to wait until the next look, if the first come so close together.
    pub(super) fn pause(&self, first: Duration) -> Duration {
        (self.started.elapsed() / SHARE).clamp(first, self.longest.max(first))
    }

    /// It takes longer than most servers need to start.
    pub(super) fn is_slow(&self) -> bool {
        self.started.elapsed() >= FRESH
    }

    /// How many connections a shared socket is offered at once.
    pub(super) fn crowd(&self) -> usize {
        match self.misses {
            // Nothing is wasted: whoever takes it is told so.
            _ if self.has_likes => 1,
            ..PATIENCE => SOME,
            _ => MANY,
        }
    }

    /// Another instance of its generation has taken what it was offered.
    pub(super) fn was_outrun(&mut self) {
        self.has_likes = true;
    }

    /// True where others of its generation answer in the same queue.
    pub(super) fn has_likes(&self) -> bool {
        self.has_likes
    }

    /// True where its likes have been quicker so often that their answers are as good as its own.
    pub(super) fn was_patient(&self) -> bool {
        self.misses >= PATIENCE
    }

    /// A connection to this listener that it has taken from its likes.
    pub(super) fn taken(&mut self, listener: usize) -> Option<Connection> {
        while let Ok(taken) = self.taken.try_recv() {
            self.kept.push(taken);
        }
        let at = self.kept.iter().position(|(of, _)| *of == listener)?;
        Some(self.kept.swap_remove(at).1)
    }

    /// Others alone have taken what was offered.
    pub(super) fn missed(&mut self) {
        self.misses += 1;
    }
}

impl Words {
    /// Those that are kept, if they are fresh.
    pub(super) fn kept(&self) -> Option<&str> {
        self.0.as_ref().filter(|(since, _)| since.elapsed() < FRESH).map(|(_, words)| words.as_str())
    }

    /// Keeps these, unless there are fresh ones; those that count are returned.
    pub(super) fn keep(&mut self, words: String) -> String {
        if let Some(kept) = self.kept() {
            return kept.to_owned();
        }
        self.0 = Some((Instant::now(), words.clone()));
        words
    }
}
