//! Commands of the user's at the turns of a reload.

use super::*;

fn with(hook: Hook) -> Policy {
    Policy { hooks: vec![hook], ..policy() }
}

fn run(hook: Hook, generation: u64, other: Option<u64>, why: impl Into<Option<Why>>) -> Action {
    let why = why.into();
    Action::RunHook { hook, generation: Generation(generation), other: other.map(Generation), why }
}

fn ended(hook: Hook, generation: u64) -> Event {
    Event::HookEnded { hook, generation: Generation(generation), failure: None }
}

fn failed(hook: Hook, generation: u64) -> Event {
    Event::HookEnded { hook, generation: Generation(generation), failure: Some("exited with code 9".to_owned()) }
}

/// Generation 1 serves, and a reload has just been asked for by the first ticket.
fn reloading(hook: Hook, until: Until) -> Story {
    let mut story = Story::with(with(hook));
    for event in [Event::Boot, ended(Hook::BeforeStart, 1), spawned(1), ready(1), ended(Hook::BeforeCutOver, 1)] {
        story.when(event);
    }
    story.when(ended(Hook::AfterServing, 1)).serves(Some(1));
    story.when(Event::Reload { ticket: Ticket(1), command: None, until });
    story
}

#[test]
fn nothing_is_started_before_the_command_that_comes_first_has_ended_well() {
    let mut story = Story::with(with(Hook::BeforeStart));
    story.when(Event::Boot).then(&[run(Hook::BeforeStart, 1, None, Why::Boot)]);
    assert_eq!(story.wakes_in(), None, "the time in which it must be ready has not begun");
    story.when(ended(Hook::BeforeStart, 1)).then(&[spawn_steered(1)]);
    story.when(spawned(1)).when(ready(1)).then(&[steer(1)]);
    story.when(reload()).then(&[run(Hook::BeforeStart, 2, Some(1), Why::Reload)]);
    story.when(ended(Hook::BeforeStart, 2)).then(&[spawn(2)]);
}

#[test]
fn a_command_that_fails_before_the_start_keeps_the_old_generation() {
    let mut story = reloading(Hook::BeforeStart, Until::Serving);
    story.when(failed(Hook::BeforeStart, 2)).then(&[kill(2), release(2), verdict(1, Outcome::Kept, 2)]);
    story.serves(Some(1));
    assert_eq!(
        story.reason(),
        "generation 2 does not serve: its before-start hook exited with code 9; generation 1 serves on"
    );
}

#[test]
fn a_command_before_the_cut_over_may_say_no() {
    let mut story = reloading(Hook::BeforeCutOver, Until::Serving);
    story.when(spawned(2)).then(&[probe(2)]);
    story.when(ready(2)).then(&[run(Hook::BeforeCutOver, 2, Some(1), Why::Reload)]).serves(Some(1));
    assert_eq!(story.wakes_in(), None);
    story.when(failed(Hook::BeforeCutOver, 2)).then(&[kill(2), verdict(1, Outcome::Kept, 2)]).serves(Some(1));
    story.when(exited(2)).then(&[kill(2), release(2)]);
    let mut story = reloading(Hook::BeforeCutOver, Until::Serving);
    story.when(spawned(2)).when(ready(2));
    let served = [steer(2), quiesce(1), verdict(1, Outcome::Done, 2)];
    story.when(ended(Hook::BeforeCutOver, 2)).then(&served).serves(Some(2));
}

#[test]
fn where_instances_come_by_and_by_it_is_asked_once_before_the_first_share() {
    let mut story = Story::with(Policy { instances: 2, surge: Some(1), ..with(Hook::BeforeCutOver) });
    for event in [Event::Boot, spawned_at(1, 1), ready_at(1, 1), ended(Hook::BeforeCutOver, 1)] {
        story.when(event);
    }
    story.when(spawned_at(1, 2)).when(ready_at(1, 2)).serves(Some(1));
    story.when(reload()).when(spawned_at(2, 1));
    story.when(ready_at(2, 1)).then(&[run(Hook::BeforeCutOver, 2, Some(1), Why::Reload)]);
    let shares = Action::Steer(vec![portion(1, &[1, 2], 1), portion(2, &[1], 1)]);
    story.when(ended(Hook::BeforeCutOver, 2)).then(&[shares, spawn_at(2, 2, Place::Beside)]);
    story.when(spawned_at(2, 2));
    let all = Action::Steer(vec![portion(2, &[1, 2], 1)]);
    story.when(ready_at(2, 2)).then(&[all, quiesce(1), verdict(1, Outcome::Done, 2)]);
}

#[test]
fn one_that_dies_while_the_command_before_the_cut_over_runs_never_serves() {
    let mut story = reloading(Hook::BeforeCutOver, Until::Serving);
    story.when(spawned(2)).when(ready(2));
    story.when(exited(2)).then(&[kill(2), release(2), verdict(1, Outcome::Kept, 2)]);
    story.when(ended(Hook::BeforeCutOver, 2)).then(&[]).serves(Some(1));
}

#[test]
fn the_verdict_waits_for_the_command_after_the_cut_over_and_so_does_the_next_reload() {
    let mut story = reloading(Hook::AfterServing, Until::Serving);
    story.when(spawned(2));
    let served = [steer(2), quiesce(1), run(Hook::AfterServing, 2, Some(1), Why::Reload)];
    story.when(ready(2)).then(&served).serves(Some(2));
    story.when(reload_by(2)).then(&[]);
    story.when(ended(Hook::AfterServing, 2)).then(&[verdict(1, Outcome::Done, 2), spawn(3)]);
}

#[test]
fn what_waits_for_the_command_after_the_cut_over_goes_on_where_the_old_one_serves_again() {
    let mut story = Story::with(Policy { bake: STEADY, bake_keep: STEADY, ..with(Hook::AfterServing) });
    for event in [Event::Boot, spawned(1), ready(1), ended(Hook::AfterServing, 1), reload(), spawned(2), ready(2)] {
        story.when(event);
    }
    story.when(Event::Scale { ticket: Ticket(2), scale: Scale::To(2) }).then(&[]);
    story.when(Event::Rollback { ticket: Ticket(3) }).serves(Some(1));
    assert!(story.done.contains(&spawn_at(1, 2, Place::Beside)), "{:?}", story.done);
}

#[test]
fn a_command_that_fails_after_the_cut_over_is_told_while_the_new_one_serves() {
    let mut story = reloading(Hook::AfterServing, Until::Serving);
    story.when(spawned(2)).when(ready(2));
    story.when(failed(Hook::AfterServing, 2)).then(&[verdict(1, Outcome::Failed, 2)]).serves(Some(2));
    assert_eq!(story.reason(), "generation 2 serves after 0.0ns, but its after-serving hook exited with code 9");
}

#[test]
fn one_that_dies_before_its_command_has_ended_has_no_good_verdict() {
    let mut story = reloading(Hook::AfterServing, Until::Serving);
    for event in [spawned(2), ready(2), exited(1)] {
        story.when(event);
    }
    story.when(left(1, 0)).when(exited(2));
    story.then(&[verdict(1, Outcome::Failed, 2), kill(2), release(2), spawn_steered(3)]);
    story.when(ended(Hook::AfterServing, 2)).then(&[]);
}

#[test]
fn who_waits_for_the_command_after_the_cut_over_is_told_of_a_stop() {
    for lame_duck in [Duration::ZERO, STEADY] {
        let mut story = Story::with(Policy { lame_duck, ..with(Hook::AfterServing) });
        for event in [Event::Boot, spawned(1), ready(1), ended(Hook::AfterServing, 1), reload(), spawned(2), ready(2)] {
            story.when(event);
        }
        let mut told = Vec::new();
        for ticket in [8, 9] {
            story.when(Event::Stop { ticket: Ticket(ticket) });
            told.extend(story.done.clone().into_iter().map(without_words));
        }
        assert!(told.contains(&verdict(1, Outcome::Failed, 2)), "{told:?}");
    }
}

#[test]
fn the_command_after_the_drain_runs_once_the_old_one_is_gone() {
    let mut story = reloading(Hook::AfterDrain, Until::Drained);
    story.when(spawned(2));
    story.when(ready(2)).then(&[steer(2), quiesce(1)]);
    story.when(quiet(1)).then(&[signal(1)]);
    story.when(exited(1)).then(&[kill(1), release(1), run(Hook::AfterDrain, 1, Some(2), Why::Reload)]);
    story.when(ended(Hook::AfterDrain, 1)).then(&[verdict(1, Outcome::Done, 2)]);
    let mut story = reloading(Hook::AfterDrain, Until::Drained);
    for event in [spawned(2), ready(2), quiet(1), exited(1)] {
        story.when(event);
    }
    story.when(failed(Hook::AfterDrain, 1)).then(&[verdict(1, Outcome::Failed, 2)]).serves(Some(2));
    assert_eq!(
        story.reason(),
        "generation 2 serves and generation 1 is gone, but its after-drain hook exited with code 9"
    );
}

#[test]
fn one_that_never_served_has_no_command_after_its_drain() {
    let mut story = reloading(Hook::AfterDrain, Until::Serving);
    story.when(spawned(2)).after(READY_TIMEOUT).when(exited(2)).then(&[kill(2), release(2)]);
}

#[test]
fn zdr_ends_only_when_the_command_after_the_last_drain_has_ended() {
    let mut story = Story::serving_by(with(Hook::AfterDrain));
    story.when(Event::Stop { ticket: Ticket(1) }).when(quiet(1));
    story.when(exited(1)).then(&[kill(1), release(1), run(Hook::AfterDrain, 1, None, None)]);
    story.when(ended(Hook::AfterDrain, 1)).then(&[verdict(1, Outcome::Done, None), Action::Exit(0)]);
}

#[test]
fn at_boot_a_command_that_always_says_no_ends_zdr_after_five_tries() {
    let mut story = Story::with(with(Hook::BeforeStart));
    story.when(Event::Boot);
    for generation in 1..5 {
        story.when(failed(Hook::BeforeStart, generation));
        let pause = story.wakes_in().unwrap_or_default();
        story.after(pause);
    }
    story.when(failed(Hook::BeforeStart, 5)).then(&[kill(5), release(5), Action::Exit(1)]);
}
