//! The reporter: counts for everybody who looks, once, and remembers the result for a while.
//!
//! Ten thousand connections take tens of milliseconds to count, and answers to probes may not wait for that. Never counts
//! when nobody looks, never twice at a time, and on no thread that anything else waits for.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use crate::edges::counting::count_aside;
use crate::edges::figures::{Figures, Subject};
use crate::edges::task::Task;

/// Figures are as good as new for this long, however little they cost.
const AT_LEAST: Duration = Duration::from_millis(200);

/// They are as good as new for so many times as long as they took: counting never takes more of a processor than this share.
const SHARE: u32 = 10;

/// Older ones are of no use to anybody.
const TOO_OLD: Duration = Duration::from_secs(10);

/// What takes no longer can be waited for.
const CHEAP: Duration = Duration::from_millis(1);

/// How new figures must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// What is known at once, if it is known at all.
    AtOnce,
    /// As good as new.
    Recent,
    /// Counted from now on.
    Fresh,
}

/// The way to the reporter.
#[derive(Clone, Debug)]
pub(super) struct Reporter(mpsc::UnboundedSender<Look>);

#[derive(Debug)]
struct Look {
    subject: Subject,
    wanted: Wanted,
    reply: oneshot::Sender<Arc<Figures>>,
}

impl Reporter {
    /// A reporter that counts in this way, as long as the task lives.
    pub(super) fn start(count: fn(&Subject) -> Figures) -> (Self, Task) {
        let (looks, asked) = mpsc::unbounded_channel();
        (Self(looks), Task::start(run(asked, count)))
    }

    /// The figures of these generations.
    pub(super) async fn look(&self, subject: Subject, wanted: Wanted) -> Arc<Figures> {
        let (reply, figures) = oneshot::channel();
        let _ = self.0.send(Look { subject, wanted, reply });
        figures.await.unwrap_or_default()
    }
}

/// What was counted last.
struct Last {
    figures: Arc<Figures>,
    at: Instant,
    cost: Duration,
}

impl Last {
    fn is_as_new(&self) -> bool {
        self.at.elapsed() <= AT_LEAST.max(self.cost * SHARE)
    }

    /// Whether this look is answered with it.
    fn will_do(&self, wanted: Wanted) -> bool {
        match wanted {
            Wanted::AtOnce => self.is_as_new() || (self.cost > CHEAP && self.at.elapsed() <= TOO_OLD),
            Wanted::Recent => self.is_as_new(),
            Wanted::Fresh => false,
        }
    }
}

/// A count under way.
struct Counting {
    begun: Instant,
    figures: oneshot::Receiver<Figures>,
    /// Who waits for it.
    waiting: Vec<oneshot::Sender<Arc<Figures>>>,
}

async fn run(mut asked: mpsc::UnboundedReceiver<Look>, count: fn(&Subject) -> Figures) {
    let mut last: Option<Last> = None;
    let mut counting: Option<Counting> = None;
    // Those who came too late for the count under way.
    let mut next: Vec<Look> = Vec::new();
    loop {
        let look = tokio::select! {
            figures = counted(&mut counting) => {
                let Some(Counting { begun, waiting, .. }) = counting.take() else { continue };
                let figures = Arc::new(figures);
                for reply in waiting {
                    let _ = reply.send(Arc::clone(&figures));
                }
                last = Some(Last { figures, at: begun, cost: begun.elapsed() });
                let Some(newest) = next.last() else { continue };
                let mut started = Counting::start(newest.subject.clone(), count);
                started.waiting = next.drain(..).map(|look| look.reply).collect();
                counting = Some(started);
                continue;
            }
            look = asked.recv() => look,
        };
        let Some(Look { subject, wanted, reply }) = look else { return };
        let known = last.as_ref().filter(|last| last.will_do(wanted));
        let due = !known.is_some_and(Last::is_as_new);
        match (&mut counting, wanted) {
            (Some(_), Wanted::Fresh) => {
                next.push(Look { subject, wanted, reply });
                continue;
            }
            (None, _) if due => counting = Some(Counting::start(subject, count)),
            _ => {}
        }
        match (known, &mut counting) {
            (None, Some(counting)) => counting.waiting.push(reply),
            (Some(known), _) => drop(reply.send(Arc::clone(&known.figures))),
            (None, None) => {}
        }
    }
}

/// Waits for the count under way, for ever if there is none. Cancel safe, as a oneshot channel is.
async fn counted(counting: &mut Option<Counting>) -> Figures {
    match counting {
        // A thread that could not be had has counted nothing.
        Some(counting) => (&mut counting.figures).await.unwrap_or_default(),
        None => std::future::pending().await,
    }
}

impl Counting {
    fn start(subject: Subject, count: fn(&Subject) -> Figures) -> Self {
        Self { begun: Instant::now(), figures: count_aside(move || count(&subject)), waiting: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::thread;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn many_who_look_at_once_share_one_count() {
        static COUNTS: AtomicUsize = AtomicUsize::new(0);
        let (reporter, _task) = Reporter::start(|_| {
            COUNTS.fetch_add(1, Ordering::SeqCst);
            Figures::default()
        });
        for _ in 0..100 {
            reporter.look(Subject::default(), Wanted::AtOnce).await;
        }
        assert!(COUNTS.load(Ordering::SeqCst) < 10);
    }

    #[tokio::test]
    async fn a_look_for_something_fresh_gets_what_was_counted_after_it() {
        static COUNTS: AtomicUsize = AtomicUsize::new(0);
        let (reporter, _task) = Reporter::start(|_| {
            COUNTS.fetch_add(1, Ordering::SeqCst);
            Figures::default()
        });
        for looks in 1..=10 {
            reporter.look(Subject::default(), Wanted::Fresh).await;
            assert_eq!(COUNTS.load(Ordering::SeqCst), looks);
        }
    }

    /// Whether a count may end.
    static OPEN: AtomicBool = AtomicBool::new(true);

    #[tokio::test]
    async fn a_count_that_takes_long_makes_only_those_wait_who_want_it_fresh() {
        let (reporter, _task) = Reporter::start(|_| {
            thread::park_timeout(CHEAP * 5);
            while !OPEN.load(Ordering::SeqCst) {
                thread::park_timeout(CHEAP);
            }
            Figures::default()
        });
        reporter.look(Subject::default(), Wanted::Fresh).await;
        OPEN.store(false, Ordering::SeqCst);
        let waiting = reporter.clone();
        let fresh = tokio::spawn(async move { waiting.look(Subject::default(), Wanted::Fresh).await });
        tokio::task::yield_now().await;
        let soon = timeout(Duration::from_secs(5), reporter.look(Subject::default(), Wanted::AtOnce));
        assert!(soon.await.is_ok() && !fresh.is_finished());
        OPEN.store(true, Ordering::SeqCst);
        timeout(Duration::from_secs(5), fresh).await.unwrap().unwrap();
    }
}
