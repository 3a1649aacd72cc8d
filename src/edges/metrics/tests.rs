//! What every line of a story counts as.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::*;

const NOON: u64 = 1_795_000_000;

/// A story told a second apart.
fn told(story: &[News]) -> Counted {
    let mut metrics = Metrics::default();
    for (second, news) in (0_u64..).zip(story) {
        metrics.tell(news, at(second));
    }
    metrics.counted().clone()
}

fn at(second: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOON + second)
}

fn spawned(generation: u64, why: Why) -> News {
    News::Spawned { generation: Generation(generation), instance: 1, of: 1, pid: 1, why }
}

fn serving(generation: u64) -> News {
    News::Serving { generation: Generation(generation), after: Duration::from_millis(20) }
}

fn failed(generation: u64, cause: Cause) -> News {
    News::Failed { generation: Generation(generation), cause, reason: String::new(), output: Vec::new() }
}

fn verdict(outcome: Outcome, cause: Cause, generation: u64) -> News {
    let generation = Some(Generation(generation));
    News::Verdict(Verdict { outcome, cause, generation, reason: String::new(), output: Vec::new() })
}

fn ended(generation: u64) -> News {
    News::Ended { generation: Generation(generation), exit: String::new(), after: Duration::from_secs(3) }
}

fn crashed(generation: u64) -> News {
    let (exit, then) = (String::new(), String::new());
    News::Crashed { generation: Generation(generation), exit, then, output: Vec::new() }
}

impl Counted {
    /// All reloads that were counted.
    fn all_reloads(&self) -> Vec<(Outcome, Cause, u64)> {
        let all = OUTCOMES.map(|(outcome, cause)| {
            (outcome, cause, self.reloads.get_or_create_owned(&outcome_and_reason(outcome, cause)).get())
        });
        assert_eq!(self.reloads.len(), OUTCOMES.len(), "a combination was not expected");
        all.into_iter().filter(|(_, _, times)| *times > 0).collect()
    }

    /// Whether the last attempt went well, and the seconds of the last good one and the last one.
    fn last(&self) -> (bool, f64, f64) {
        let seconds = |at: f64| if at > 0.0 { at - Duration::from_secs(NOON).as_secs_f64() } else { -1.0 };
        (self.succeeded.get() == 1, seconds(self.success_at.get()), seconds(self.attempt_at.get()))
    }
}

#[test]
fn before_anything_happens_every_outcome_is_there_and_nothing_is_counted() {
    let counted = told(&[]);
    assert_eq!(counted.all_reloads(), []);
    assert_eq!((counted.starts.len(), counted.failures.len()), (STARTS.len(), FAILURES.len()));
    assert_eq!(counted.last(), (false, -1.0, -1.0));
}

#[test]
fn a_boot_is_a_start_and_no_reload() {
    let counted = told(&[spawned(1, Why::Boot), serving(1)]);
    assert_eq!(counted.all_reloads(), []);
    assert_eq!(counted.starts.get_or_create_owned(&reason(Why::Boot)).get(), 1);
    assert_eq!((counted.start.count(), counted.last()), (1, (true, 1.0, 1.0)));
}

#[test]
fn a_reload_counts_once_when_it_serves_however_many_asked_and_wait_for_the_drain() {
    let story = [
        spawned(1, Why::Boot),
        serving(1),
        spawned(2, Why::Reload),
        serving(2),
        verdict(Outcome::Done, Cause::Ready, 2),
        ended(1),
        verdict(Outcome::Done, Cause::Drained, 2),
    ];
    let counted = told(&story);
    assert_eq!(counted.all_reloads(), [(Outcome::Done, Cause::Ready, 1)]);
    assert_eq!((counted.drain.count(), counted.drain.sum()), (1, 3.0));
    assert_eq!(counted.last(), (true, 3.0, 3.0));
}

#[test]
fn a_reload_that_fails_counts_by_its_reason_and_the_killed_newcomer_has_drained_nothing() {
    let killed = News::Killed { generation: Generation(2), reason: String::new() };
    let story = [
        spawned(1, Why::Boot),
        serving(1),
        spawned(2, Why::Reload),
        killed,
        failed(2, Cause::TimedOut),
        verdict(Outcome::Kept, Cause::TimedOut, 2),
        ended(2),
    ];
    let counted = told(&story);
    assert_eq!(counted.all_reloads(), [(Outcome::Kept, Cause::TimedOut, 1)]);
    assert_eq!(counted.failures.get_or_create_owned(&reason(Cause::TimedOut)).get(), 1);
    assert_eq!((counted.kills.get(), counted.drain.count()), (1, 0));
    assert_eq!(counted.last(), (false, 1.0, 4.0));
}

#[test]
fn a_reload_that_dies_in_its_bake_time_counts_as_done_and_then_as_kept() {
    let story = [
        spawned(1, Why::Boot),
        serving(1),
        spawned(2, Why::Reload),
        serving(2),
        verdict(Outcome::Done, Cause::Ready, 2),
        crashed(2),
        News::Returned { generation: Generation(1) },
        verdict(Outcome::Kept, Cause::Crashed, 2),
    ];
    let counted = told(&story);
    assert_eq!(counted.all_reloads(), [(Outcome::Done, Cause::Ready, 1), (Outcome::Kept, Cause::Crashed, 1)]);
    assert_eq!(counted.last(), (false, 3.0, 6.0));
}

fn returned(generation: u64) -> News {
    News::Returned { generation: Generation(generation) }
}

#[test]
fn a_rollback_that_somebody_asked_for_is_done_and_leaves_no_failure_behind() {
    let asked = || verdict(Outcome::Done, Cause::RolledBack, 1);
    let before = || vec![spawned(1, Why::Boot), serving(1), spawned(2, Why::Reload), serving(2)];
    let both = vec![(Outcome::Done, Cause::Ready, 1), (Outcome::Done, Cause::RolledBack, 1)];
    let warm = told(&[before(), vec![returned(1), asked()]].concat());
    assert_eq!((warm.all_reloads(), warm.last()), (both.clone(), (true, 5.0, 5.0)));
    let cold = told(&[before(), vec![spawned(3, Why::Rollback), serving(3), asked()]].concat());
    assert_eq!((cold.all_reloads(), cold.last()), (both, (true, 6.0, 6.0)));
}

#[test]
fn a_release_that_is_left_for_another_start_of_the_one_before_counts_as_kept_and_has_failed() {
    let story = [
        spawned(1, Why::Boot),
        serving(1),
        spawned(2, Why::Reload),
        serving(2),
        ended(1),
        crashed(2),
        spawned(3, Why::Rollback),
        serving(3),
    ];
    let counted = told(&story);
    assert_eq!(counted.all_reloads(), [(Outcome::Done, Cause::Ready, 1), (Outcome::Kept, Cause::Crashed, 1)]);
    assert_eq!(counted.last(), (false, 3.0, 7.0));
}

#[test]
fn a_reload_that_is_given_up_for_a_rollback_was_kept_from_serving() {
    let story = [
        spawned(1, Why::Boot),
        serving(1),
        spawned(2, Why::Reload),
        failed(2, Cause::Superseded),
        verdict(Outcome::Kept, Cause::Superseded, 2),
        verdict(Outcome::Done, Cause::RolledBack, 1),
    ];
    let counted = told(&story);
    let wanted = [(Outcome::Done, Cause::RolledBack, 1), (Outcome::Kept, Cause::Superseded, 1)];
    assert_eq!((counted.all_reloads().as_slice(), counted.last().0), (wanted.as_slice(), true));
}

#[test]
fn several_instances_are_one_start_and_one_that_is_lost_is_no_crash() {
    let instance =
        |generation, instance, why| News::Spawned { generation: Generation(generation), instance, of: 3, pid: 1, why };
    let lost = News::InstanceLost {
        generation: Generation(1),
        instance: 2,
        exit: String::new(),
        then: String::new(),
        output: Vec::new(),
    };
    let mut story: Vec<News> = (1..=3).map(|number| instance(1, number, Why::Boot)).collect();
    story.extend([serving(1), lost, instance(1, 2, Why::Crash)]);
    let counted = told(&story);
    let starts = |why| counted.starts.get_or_create_owned(&reason(why)).get();
    assert_eq!((starts(Why::Boot), starts(Why::Crash), counted.lost.get()), (1, 0, 1));
}

#[test]
fn what_zdr_does_by_itself_after_a_crash_is_no_reload() {
    let story = [
        spawned(1, Why::Boot),
        serving(1),
        crashed(1),
        spawned(2, Why::Crash),
        failed(2, Cause::Exited),
        News::Retrying { after: Duration::from_secs(1), serving: None },
        spawned(3, Why::Retry),
        serving(3),
    ];
    let counted = told(&story);
    assert_eq!(counted.all_reloads(), []);
    let starts = |why| counted.starts.get_or_create_owned(&reason(why)).get();
    assert_eq!((starts(Why::Crash), starts(Why::Retry)), (1, 1));
    assert_eq!(counted.failures.get_or_create_owned(&reason(Cause::Exited)).get(), 1);
    assert_eq!((counted.last(), counted.drain.count()), ((true, 7.0, 7.0), 0));
}

#[test]
fn the_replacement_of_a_stuck_generation_is_no_reload_even_if_it_dies_at_once() {
    let story = [
        spawned(1, Why::Boot),
        serving(1),
        spawned(2, Why::Stuck),
        serving(2),
        crashed(2),
        News::Returned { generation: Generation(1) },
    ];
    let counted = told(&story);
    assert_eq!((counted.all_reloads(), counted.last()), (vec![], (false, 3.0, 5.0)));
    assert_eq!(counted.starts.get_or_create_owned(&reason(Why::Stuck)).get(), 1);
}

#[test]
fn a_restart_counts_as_a_reload_and_one_that_finishes_for_the_dead_as_a_drain() {
    let story = [
        spawned(1, Why::Boot),
        serving(1),
        ended(1),
        spawned(2, Why::Restart),
        failed(2, Cause::Exited),
        verdict(Outcome::Failed, Cause::Exited, 2),
        spawned(3, Why::Finish),
        ended(3),
    ];
    let counted = told(&story);
    assert_eq!(counted.all_reloads(), [(Outcome::Failed, Cause::Exited, 1)]);
    assert_eq!(counted.drain.count(), 2);
}

/// Does not compile where a word is new; it belongs into the list as well.
#[test]
fn every_reason_for_a_start_is_there_from_the_start() {
    let position = |why| match why {
        Why::Boot => 0,
        Why::Reload => 1,
        Why::Restart => 2,
        Why::Crash => 3,
        Why::Retry => 4,
        Why::Stuck => 5,
        Why::Leaving => 6,
        Why::Finish => 7,
        Why::Change => 8,
        Why::Rollback => 9,
        Why::Scale => 10,
        Why::Memory => 11,
        Why::Lifetime => 12,
    };
    assert_eq!(STARTS.map(position), std::array::from_fn(|at| at));
    let words = ["boot", "reload", "restart", "crash", "retry", "stuck", "leaving", "finish"];
    let more = ["change", "rollback", "scale", "memory", "lifetime"];
    assert_eq!(STARTS.map(word).as_slice(), [words.as_slice(), &more].concat());
}

#[test]
fn processor_time_is_added_up_over_generations_and_never_falls() {
    let time = TreeTime::default();
    let millis = |millis| Duration::from_millis(millis);
    for (generation, used, total) in
        [(1, 100, 100), (1, 150, 150), (1, 120, 150), (1, 130, 160), (2, 200, 360), (2, 200, 360)]
    {
        assert_eq!(time.add(generation, millis(used)), millis(total));
    }
    assert_eq!(time.so_far(), millis(360));
}
