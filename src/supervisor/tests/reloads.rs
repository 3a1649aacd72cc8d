//! Reloads that succeed, the drain of the old generation, and requests that meet.

use super::*;

#[test]
fn a_first_start_serves_once_it_is_ready() {
    let mut story = Story::new();
    story.when(Event::Boot).then(&[spawn_steered(1)]).serves(None);
    story.when(spawned(1)).then(&[probe(1)]).serves(None);
    story.when(ready(1)).then(&[steer(1)]).serves(Some(1));
    assert_eq!(story.wakes_in(), None, "nothing is left to wait for");
}

#[test]
fn a_reload_replaces_the_generation_once_the_new_one_is_ready() {
    let mut story = Story::serving();
    story.when(reload()).then(&[spawn(2)]).serves(Some(1));
    story.when(spawned(2)).then(&[probe(2)]).serves(Some(1));
    story.when(ready(2)).then(&[steer(2), quiesce(1), verdict(1, Outcome::Done, 2)]).serves(Some(2));
    story.when(quiet(1)).then(&[signal(1)]).serves(Some(2));
    story.when(exited(1)).then(&[kill(1), release(1)]).serves(Some(2));
    assert_eq!(story.wakes_in(), None);
}

#[test]
fn the_old_generation_is_kept_for_the_bake_time_before_it_drains() {
    let mut story = Story::serving_with(Duration::from_secs(2));
    for event in [reload(), spawned(2)] {
        story.when(event);
    }
    story.when(ready(2)).then(&[steer(2), verdict(1, Outcome::Done, 2)]);
    story.after(Duration::from_millis(1999)).then(&[]);
    story.after(Duration::from_millis(1)).then(&[quiesce(1)]).serves(Some(2));
}

#[test]
fn only_the_last_generation_is_kept_warm() {
    let mut story = Story::reloaded_with(Duration::from_secs(2));
    story.when(reload_by(2)).then(&[spawn(3)]);
    story.when(spawned(3));
    story.when(ready(3)).then(&[steer(3), quiesce(1), verdict(2, Outcome::Done, 3)]).serves(Some(3));
}

#[test]
fn a_generation_that_is_not_quiet_in_time_is_signalled_all_the_same() {
    let mut story = Story::reloaded_with(Duration::ZERO);
    story.after(DRAIN_TIMEOUT).then(&[signal(1)]);
    story.when(quiet(1)).then(&[]);
}

#[test]
fn a_generation_that_does_not_end_after_its_signal_is_killed_once() {
    let mut story = Story::reloaded_with(Duration::ZERO);
    story.when(quiet(1)).then(&[signal(1)]);
    story.after(DRAIN_TIMEOUT).then(&[kill(1)]);
    assert_eq!(story.wakes_in(), None, "there is nothing more to do but reap it");
    story.after(DRAIN_TIMEOUT).then(&[]);
    story.when(exited(1)).then(&[kill(1), release(1)]);
}

#[test]
fn many_generations_drain_at_once_while_reloads_go_on() {
    let mut story = Story::serving();
    for generation in 2..=6 {
        story.when(reload()).then(&[spawn(generation)]);
        story.when(spawned(generation));
        story.when(ready(generation)).serves(Some(generation));
    }
    assert_eq!(story.supervisor.draining.len(), 5);
    story.when(quiet(3)).then(&[signal(3)]);
    story.when(quiet(1)).then(&[signal(1)]);
}

#[test]
fn a_reload_asked_for_while_one_is_starting_runs_next_and_every_caller_gets_a_verdict() {
    let mut story = Story::serving();
    story.when(reload_by(1)).then(&[spawn(2)]);
    story.when(spawned(2));
    story.when(reload_by(2)).then(&[]);
    story.when(reload_by(3)).then(&[]);
    story.when(ready(2)).then(&[steer(2), quiesce(1), verdict(1, Outcome::Done, 2), spawn(3)]);
    story.when(spawned(3));
    let both = [verdict(2, Outcome::Done, 3), verdict(3, Outcome::Done, 3)];
    story.when(ready(3)).then(&[&[steer(3), quiesce(2)][..], &both].concat()).serves(Some(3));
}

#[test]
fn a_reload_that_was_remembered_runs_even_if_the_one_before_it_failed() {
    let mut story = Story::serving();
    for event in [reload_by(1), spawned(2), reload_by(2)] {
        story.when(event);
    }
    story.when(exited(2)).then(&[kill(2), release(2), verdict(1, Outcome::Kept, 2), spawn(3)]).serves(Some(1));
}

#[test]
fn the_last_command_asked_for_wins() {
    let mut story = Story::serving();
    for event in [reload_by(1), spawned(2), reload_to(2, "b"), reload_to(3, "c"), reload_by(4)] {
        story.when(event);
    }
    story.when(ready(2));
    assert!(story.done.contains(&spawn_of("c", 3, Place::Beside)));
}

#[test]
fn a_new_command_is_kept_only_if_it_served() {
    let mut story = Story::serving();
    story.when(reload_to(1, "bad")).then(&[spawn_of("bad", 2, Place::Beside)]);
    story.when(spawned(2)).when(exited(2));
    story.when(reload_to(2, "good")).then(&[spawn_of("good", 3, Place::Beside)]);
    story.when(spawned(3)).when(ready(3));
    story.when(reload_by(3)).then(&[spawn_of("good", 4, Place::Beside)]);
}

#[test]
fn a_caller_may_wait_until_the_old_generation_is_gone() {
    let mut story = Story::serving();
    story.when(Event::Reload { ticket: Ticket(1), command: None, until: Until::Drained });
    story.when(spawned(2));
    story.when(ready(2)).then(&[steer(2), quiesce(1)]);
    story.when(quiet(1)).then(&[signal(1)]);
    story.when(exited(1)).then(&[kill(1), release(1), verdict(1, Outcome::Done, 2)]);
    assert_eq!(story.reason(), "generation 2 serves and generation 1 is gone");
}

#[test]
fn news_of_generations_that_are_no_more_changes_nothing() {
    let mut story = Story::reloaded_with(Duration::ZERO);
    story.when(quiet(1)).when(exited(1));
    for event in [ready(1), quiet(1), exited(1), not_ready(1, "no"), spawned(1), ready(2), quiet(2), ready(9)] {
        story.when(event.clone()).then(&[]).serves(Some(2));
    }
}

#[test]
fn what_a_probe_answers_is_told_when_it_changes() {
    let mut story = Story::serving();
    story.when(reload()).when(spawned(2));
    let told = |story: &Story| story.done.iter().filter(|action| matches!(action, Action::Tell(_))).count();
    for (answer, times) in [("503", 1), ("503", 0), ("500", 1)] {
        assert_eq!(told(story.when(not_ready(2, answer))), times);
    }
}
