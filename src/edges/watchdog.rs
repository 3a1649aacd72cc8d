//! The watchdog of a serving generation: it sends WATCHDOG=1 in time, or it is told to be stuck (sd_watchdog_enabled(3)).
//!
//! Wakes up when the time is over, and never before.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::notice::{Owner, tell};
use super::task::Task;
use super::words;
use crate::supervisor::{Event, Instance, Sign};

/// One that is armed; dropping it ends it.
#[derive(Debug)]
pub struct Watchdog {
    way: mpsc::UnboundedSender<Heard>,
    _task: Task,
}

/// What it is told.
#[derive(Clone, Copy, Debug)]
enum Heard {
    Word(words::Watchdog),
    Time(Duration),
}

impl Watchdog {
    /// Its time begins now; zero is for ever.
    pub fn arm(instance: Instance, time: Duration, owner: Owner) -> Self {
        let (way, heard) = mpsc::unbounded_channel();
        Self { way, _task: Task::start(watch(heard, instance, time, owner)) }
    }

    /// It was told something.
    pub fn hear(&self, word: words::Watchdog) {
        let _ = self.way.send(Heard::Word(word));
    }

    /// The time is another from now on.
    pub fn set(&self, time: Duration) {
        let _ = self.way.send(Heard::Time(time));
    }
}

async fn watch(mut heard: mpsc::UnboundedReceiver<Heard>, instance: Instance, mut time: Duration, owner: Owner) {
    let (generation, sign) = (instance.generation, Sign::Watchdog(instance.number));
    let stuck = |why: String| tell(&owner, Event::Stuck { generation, sign, why });
    let mut is_stuck = false;
    let mut due = due_after(time);
    loop {
        tokio::select! {
            word = heard.recv() => match word {
                Some(Heard::Word(words::Watchdog::Alive)) => {
                    if is_stuck {
                        tell(&owner, Event::Recovered { generation, sign });
                    }
                    is_stuck = false;
                    due = due_after(time);
                }
                Some(Heard::Word(words::Watchdog::Trigger)) => {
                    is_stuck = true;
                    stuck("it has sent WATCHDOG=trigger".to_owned());
                }
                Some(Heard::Time(new)) => {
                    time = new;
                    due = due_after(time);
                }
                None => return,
            },
            () = at(due), if !is_stuck => {
                is_stuck = true;
                stuck(format!("it has not sent WATCHDOG=1 for {}", humantime::format_duration(time)));
            }
        }
    }
}

/// Never where the time is zero, or beyond all clocks.
fn due_after(time: Duration) -> Option<Instant> {
    (!time.is_zero()).then(|| Instant::now().checked_add(time)).flatten()
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
    use tokio::time::timeout;

    use super::*;
    use crate::edges::notice::Notice;

    use crate::supervisor::Generation;

    const LONG: Duration = Duration::from_secs(3600);
    const SHORT: Duration = Duration::from_millis(10);

    fn armed(time: Duration) -> (Watchdog, UnboundedReceiver<Notice>) {
        let (owner, notices) = unbounded_channel();
        (Watchdog::arm(Instance { generation: Generation(1), number: 1 }, time, owner), notices)
    }

    /// What is told next; only a failure waits so long.
    async fn told(notices: &mut UnboundedReceiver<Notice>) -> Event {
        match timeout(Duration::from_secs(20), notices.recv()).await.unwrap().unwrap() {
            Notice::Happened(event) => event,
            other => panic!("{other:?}"),
        }
    }

    fn stuck(why: &str) -> Event {
        Event::Stuck { generation: Generation(1), sign: Sign::Watchdog(1), why: why.to_owned() }
    }

    const RECOVERED: Event = Event::Recovered { generation: Generation(1), sign: Sign::Watchdog(1) };

    #[tokio::test]
    async fn one_that_is_silent_for_too_long_is_stuck_and_one_that_speaks_again_is_not() {
        let (watchdog, mut notices) = armed(SHORT);
        for _ in 0..3 {
            assert_eq!(told(&mut notices).await, stuck("it has not sent WATCHDOG=1 for 10ms"));
            watchdog.hear(words::Watchdog::Alive);
            assert_eq!(told(&mut notices).await, RECOVERED);
        }
    }

    #[tokio::test]
    async fn it_may_say_itself_that_it_is_stuck_and_choose_another_time() {
        let (watchdog, mut notices) = armed(LONG);
        watchdog.hear(words::Watchdog::Alive);
        watchdog.hear(words::Watchdog::Trigger);
        assert_eq!(told(&mut notices).await, stuck("it has sent WATCHDOG=trigger"));
        watchdog.hear(words::Watchdog::Alive);
        assert_eq!(told(&mut notices).await, RECOVERED);
        watchdog.set(SHORT);
        assert_eq!(told(&mut notices).await, stuck("it has not sent WATCHDOG=1 for 10ms"));
    }

    #[test]
    fn no_time_and_a_time_beyond_all_clocks_are_for_ever() {
        assert_eq!((due_after(Duration::ZERO), due_after(Duration::MAX)), (None, None));
        assert!(due_after(LONG).is_some());
    }
}
