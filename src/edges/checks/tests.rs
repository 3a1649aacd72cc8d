//! Checks whose commands are run by a pretended owner: what is asked, and when.

use std::sync::{Arc, Mutex};

use tokio::time::timeout;

use super::*;
use crate::edges::errands::Purpose;
use crate::edges::notice::Notice;
use crate::edges::probe::Alive;
use crate::supervisor::{Event, Exit};

/// Only a failure waits this long.
const DEADLINE: Duration = Duration::from_secs(20);

/// A command that is run, as the owner has it.
type Run = (Purpose, oneshot::Sender<Result<Exit, String>>, Alive);

/// The owner of the commands that checks run, and what he was told.
#[derive(Clone, Default)]
struct Owned {
    runs: Arc<Mutex<Vec<Run>>>,
    begun: Arc<Mutex<usize>>,
    ended: Arc<Mutex<Vec<Purpose>>>,
    told: Arc<Mutex<Vec<String>>>,
}

impl Owned {
    fn of(given: &[&str]) -> (Self, Checks) {
        let (owner, mut notices) = mpsc::unbounded_channel();
        let checks = given.iter().map(|given| Check::parse(given).unwrap()).collect();
        let this = Self::default();
        let its = this.clone();
        tokio::spawn(async move {
            while let Some(notice) = notices.recv().await {
                match notice {
                    Notice::Errand { purpose, reply, alive, .. } => {
                        *its.begun.lock().unwrap() += 1;
                        its.runs.lock().unwrap().push((purpose, reply, alive));
                    }
                    Notice::EndErrand { purpose } => its.ended.lock().unwrap().push(purpose),
                    Notice::Happened(Event::Checked { name, state, .. }) => {
                        its.told.lock().unwrap().push(format!("{name} {state}"));
                    }
                    other => panic!("{other:?}"),
                }
            }
        });
        (this, Checks::start(checks, &owner))
    }

    fn begun(&self) -> usize {
        *self.begun.lock().unwrap()
    }

    async fn until_begun(&self, count: usize) {
        until(|| self.begun() >= count).await;
    }

    /// The command that has run longest ends.
    fn ends(&self, code: i32) {
        let (_, reply, _alive) = self.runs.lock().unwrap().remove(0);
        reply.send(Ok(Exit::Code(code))).unwrap();
    }
}

async fn until(condition: impl Fn() -> bool) {
    let polled = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(DEADLINE, polled).await.unwrap();
}

#[tokio::test]
async fn nothing_is_asked_before_somebody_looks_and_looks_share_an_answer_for_its_interval() {
    let (owned, checks) = Owned::of(&["a=exec:x,interval=1h"]);
    let look = tokio::spawn({
        let checks = checks.clone();
        async move { checks.look().await }
    });
    owned.until_begun(1).await;
    let other = tokio::spawn({
        let checks = checks.clone();
        async move { checks.look().await }
    });
    owned.ends(0);
    let found = look.await.unwrap();
    assert_eq!((found[0].state, found[0].message.as_str()), (Health::Healthy, "exited with code 0"));
    other.await.unwrap();
    for _ in 0..10 {
        checks.look().await;
    }
    assert_eq!(owned.begun(), 1);
    assert!(owned.told.lock().unwrap().is_empty(), "good news at first is no news");
}

#[tokio::test]
async fn a_first_look_waits_one_second_at_most_and_one_is_never_asked_twice_at_once() {
    let (owned, checks) = Owned::of(&["a=exec:x,interval=100ms,timeout=1h", "b=exec:y,interval=1h"]);
    let begun = Instant::now();
    let look = tokio::spawn({
        let checks = checks.clone();
        async move { checks.look().await }
    });
    owned.until_begun(2).await;
    let place = owned.runs.lock().unwrap().iter().position(|(purpose, ..)| *purpose == Purpose::Check(1)).unwrap();
    owned.runs.lock().unwrap().swap(0, place);
    owned.ends(7);
    let found = look.await.unwrap();
    assert!((Duration::from_secs(1)..Duration::from_secs(5)).contains(&begun.elapsed()));
    assert_eq!((found[0].state, found[0].message.as_str()), (Health::Degraded, "not checked yet"));
    assert_eq!((found[1].state, found[1].message.as_str()), (Health::Degraded, "exited with code 7"));
    assert_eq!(owned.begun(), 2, "ten intervals are over");
}

#[tokio::test]
async fn one_that_hangs_is_unhealthy_and_keeps_nobody_waiting_and_is_asked_again_when_it_is_gone() {
    let (owned, checks) = Owned::of(&["a=exec:x,interval=100ms,timeout=100ms,critical"]);
    let found = checks.look().await;
    assert_eq!((found[0].state, found[0].message.as_str()), (Health::Unhealthy, "no answer within 100ms"));
    let begun = Instant::now();
    for _ in 0..20 {
        checks.look().await;
    }
    assert!(begun.elapsed() < Duration::from_millis(500), "{:?}", begun.elapsed());
    until(|| owned.ended.lock().unwrap().as_slice() == [Purpose::Check(0)]).await;
    assert_eq!(owned.begun(), 1);
    drop(owned.runs.lock().unwrap().remove(0));
    owned.until_begun(2).await;
    owned.ends(0);
    until(|| owned.told.lock().unwrap().len() == 2).await;
    assert_eq!(*owned.told.lock().unwrap(), ["a unhealthy", "a healthy"]);
}

#[tokio::test]
async fn without_checks_nothing_is_found() {
    let (_, checks) = Owned::of(&[]);
    assert!(checks.look().await.is_empty());
}
