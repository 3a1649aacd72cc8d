//! Generations that live and do not do well.

use super::*;

fn stuck(generation: u64) -> Event {
    stuck_by(generation, Sign::Answers)
}

fn stuck_by(generation: u64, sign: Sign) -> Event {
    Event::Stuck { generation: Generation(generation), sign, why: "no answer within 5s".to_owned() }
}

fn recovered(generation: u64, sign: Sign) -> Event {
    Event::Recovered { generation: Generation(generation), sign }
}

fn leaving(generation: u64) -> Event {
    Event::Leaving { instance: first(generation) }
}

#[test]
fn a_stuck_generation_is_replaced_by_one_that_starts_beside_it() {
    let mut story = Story::serving_with(Duration::from_secs(2));
    story.when(stuck(1)).then(&[spawn(2)]).serves(Some(1));
    assert_eq!(story.told(), ["generation 1 is stuck: no answer within 5s"]);
    story.when(spawned(2)).then(&[probe(2)]);
    assert_eq!(story.told(), ["generation 2 started as process 1002 in place of one that is stuck"]);
    story.when(ready(2)).then(&[steer(2), quiesce(1)]).serves(Some(2));
    story.after(DRAIN_TIMEOUT).then(&[signal(1)]);
    story.after(DRAIN_TIMEOUT).then(&[kill(1)]);
    story.when(exited(1)).then(&[kill(1), look_behind(1)]);
    story.when(left(1, 0)).then(&[release(1)]);
    assert_eq!(story.wakes_in(), None);
}

#[test]
fn what_waits_for_a_stuck_generation_when_it_is_killed_is_finished_by_another() {
    let mut story = Story::serving();
    for event in [stuck(1), spawned(2), ready(2)] {
        story.when(event);
    }
    story.after(DRAIN_TIMEOUT).after(DRAIN_TIMEOUT).then(&[kill(1)]);
    story.when(exited(1)).then(&[kill(1), look_behind(1)]);
    story.when(left(1, 3)).then(&[spawn_of("server", 3, Place::Of(Generation(1)))]).serves(Some(2));
}

#[test]
fn if_the_replacement_fails_the_stuck_one_serves_on_and_it_is_tried_again_more_slowly_each_time() {
    let mut story = Story::serving();
    story.after(Duration::from_secs(11));
    story.when(stuck(1)).then(&[spawn(2)]);
    let mut pauses = Vec::new();
    for generation in 2..8 {
        story.when(spawned(generation));
        story.when(exited(generation)).then(&[kill(generation), release(generation)]).serves(Some(1));
        pauses.push(story.wakes_in().unwrap());
        story.after(*pauses.last().unwrap()).then(&[spawn(generation + 1)]);
    }
    assert_eq!(pauses[..3], [100, 200, 400].map(Duration::from_millis));
}

#[test]
fn a_generation_that_is_stuck_soon_after_another_was_is_replaced_after_a_pause() {
    let mut story = Story::serving();
    for event in [stuck(1), spawned(2), ready(2)] {
        story.when(event);
    }
    story.after(Duration::from_secs(3)).when(stuck(2)).then(&[]).serves(Some(2));
    assert_eq!(story.wakes_in(), Some(Duration::from_millis(100)));
    assert_eq!(story.told()[1], "generation 2 serves on; trying to replace it again in 100.0ms");
    story.after(Duration::from_millis(100)).then(&[spawn(3)]);
}

#[test]
fn one_that_recovers_is_not_tried_to_be_replaced_any_more() {
    let mut story = Story::serving();
    for event in [stuck(1), stuck_by(1, Sign::Watchdog(1)), spawned(2), exited(2)] {
        story.when(event);
    }
    story.when(recovered(1, Sign::Watchdog(1)));
    assert!(story.told().is_empty() && story.wakes_in().is_some(), "it still does not answer");
    story.when(recovered(1, Sign::Answers)).then(&[]).serves(Some(1));
    assert_eq!((story.told(), story.wakes_in()), (vec!["generation 1 is well again".to_owned()], None));
}

#[test]
fn a_reload_that_is_under_way_is_the_replacement_and_if_it_fails_another_follows() {
    let mut story = Story::serving();
    story.when(reload()).when(spawned(2));
    story.when(stuck(1)).then(&[]);
    story.when(exited(2)).then(&[kill(2), release(2), verdict(1, Outcome::Kept, 2), spawn(3)]).serves(Some(1));
    story.when(reload_by(2)).then(&[]);
}

#[test]
fn nobody_is_replaced_who_does_not_serve_and_nobody_while_zdr_stops() {
    let mut story = Story::reloaded_with(Duration::from_secs(2));
    story.when(stuck(1)).then(&[]).when(leaving(1)).then(&[]);
    story.when(Event::Stop { ticket: Ticket(9) }).when(stuck(2)).then(&[]);
    let mut story = Story::serving();
    for event in [stuck(1), spawned(2), exited(2), Event::Stop { ticket: Ticket(9) }, quiet(1)] {
        story.when(event);
    }
    assert_eq!(story.wakes_in(), Some(DRAIN_TIMEOUT));
}

#[test]
fn a_stuck_generation_that_dies_is_one_that_crashed() {
    let mut story = Story::serving();
    for event in [stuck(1), spawned(2)] {
        story.when(event);
    }
    story.when(exited(1)).then(&[steer(2), kill(1), look_behind(1)]).serves(None);
    let mut story = Story::serving();
    for event in [stuck(1), spawned(2), exited(2)] {
        story.when(event);
    }
    story.when(exited(1)).then(&[kill(1), release(1)]).serves(None);
    assert_eq!(story.wakes_in(), Some(Duration::from_millis(200)), "one pause, not two");
}

#[test]
fn one_that_is_about_to_end_is_replaced_before_it_does_and_kept_warm_for_nobody() {
    let mut story = Story::serving_with(Duration::from_secs(2));
    story.when(leaving(1)).then(&[spawn(2)]).serves(Some(1));
    story.when(leaving(1)).then(&[]);
    story.when(spawned(2)).when(ready(2)).then(&[steer(2), quiesce(1)]);
    story.when(exited(1)).then(&[kill(1), look_behind(1)]).serves(Some(2));
}

#[test]
fn readiness_says_no_while_the_serving_generation_says_so() {
    let mut story = Story::serving();
    let unready = |generation| Event::Unready { instance: first(generation) };
    let is_ready = |story: &Story| story.supervisor.status(story.now).ready;
    story.when(unready(1)).then(&[]).serves(Some(1));
    assert!(!is_ready(&story));
    story.when(Event::ReadyAgain { instance: first(1) });
    assert!(is_ready(&story));
    assert_eq!(story.told(), ["generation 1 is well again"]);
    story.when(unready(1)).when(reload()).when(spawned(2)).when(unready(2));
    assert_eq!(story.told(), ["generation 2 is not ready yet: it has sent READY=0"]);
    story.when(ready(2));
    assert!(is_ready(&story));
}
