//! Files that are watched: a change is a reload that nobody waits for.

use super::*;

fn changed() -> Event {
    Event::Changed { path: "src/main.rs".into() }
}

fn watching() -> Policy {
    Policy { watched: true, ..policy() }
}

fn failed_spawn(generation: u64) -> Event {
    Event::SpawnFailed { instance: first(generation), why: "`server`: no such file".to_owned(), code: Some(127) }
}

#[test]
fn a_change_is_a_reload() {
    let mut story = Story::serving_by(watching());
    story.when(changed()).then(&[spawn(2)]).serves(Some(1));
    story.when(spawned(2));
    story.when(ready(2)).then(&[steer(2), quiesce(1)]).serves(Some(2));
}

#[test]
fn a_change_while_something_starts_is_not_lost_and_several_are_one() {
    let mut story = Story::serving_by(watching());
    story.when(changed()).when(spawned(2));
    story.when(changed()).when(changed()).then(&[]);
    story.when(ready(2)).then(&[steer(2), quiesce(1), spawn(3)]);
    story.when(spawned(3));
    story.when(ready(3)).then(&[steer(3), quiesce(2)]);
    story.when(quiet(1)).when(quiet(2)).when(exited(1)).then(&[kill(1), release(1)]);
}

#[test]
fn a_change_joins_the_reload_that_somebody_waits_for() {
    let mut story = Story::serving_by(watching());
    story.when(changed()).when(spawned(2)).when(reload_to(1, "new")).when(changed());
    story.when(ready(2)).then(&[steer(2), quiesce(1), spawn_of("new", 3, Place::Beside)]);
    story.when(spawned(3));
    story.when(ready(3)).then(&[steer(3), quiesce(2), verdict(1, Outcome::Done, 3)]);
}

#[test]
fn a_change_that_fails_leaves_the_old_one_and_is_not_tried_again() {
    let mut story = Story::serving_by(watching());
    story.when(changed()).when(spawned(2));
    story.when(exited(2)).then(&[kill(2), release(2)]).serves(Some(1));
    assert_eq!(story.reason(), "generation 2 exited with code 1 before it was ready; generation 1 serves on");
    assert_eq!(story.wakes_in(), None);
    story.when(changed()).then(&[spawn(3)]);
}

#[test]
fn where_nothing_serves_yet_the_next_try_waits_for_a_change_and_zdr_does_not_give_up() {
    let mut story = Story::with(watching());
    story.when(Event::Boot).when(failed_spawn(1)).then(&[release(1)]);
    for generation in 2..12 {
        assert_eq!(story.wakes_in(), None);
        story.when(changed()).then(&[spawn_steered(generation)]);
        story.when(spawned(generation)).when(exited(generation)).then(&[kill(generation), release(generation)]);
        assert!(story.done.contains(&Action::Tell(News::Waiting)));
    }
    story.when(changed()).when(spawned(12)).when(ready(12)).serves(Some(12));
}

#[test]
fn one_that_served_and_died_is_started_again_without_a_change() {
    let mut story = Story::serving_by(watching());
    story.when(exited(1)).then(&[kill(1), release(1), spawn_steered(2)]);
    story.when(spawned(2)).when(exited(2)).then(&[kill(2), release(2)]);
    assert_eq!(story.wakes_in(), None, "now it waits for one");
}

#[test]
fn a_change_while_zdr_stops_starts_nothing() {
    let mut story = Story::serving_by(watching());
    story.when(Event::Stop { ticket: Ticket(1) });
    story.when(changed()).then(&[]);
}
