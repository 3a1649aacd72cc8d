//! Restarts and stops.

use super::*;

fn stop(ticket: u64) -> Event {
    Event::Stop { ticket: Ticket(ticket) }
}

fn restart(ticket: u64) -> Event {
    Event::Restart { ticket: Ticket(ticket) }
}

#[test]
fn a_restart_stops_the_generation_and_starts_the_next_in_its_place() {
    let mut story = Story::serving();
    story.when(restart(1)).then(&[signal(1)]).serves(None);
    story.when(exited(1)).then(&[kill(1), release(1), spawn_steered(2)]);
    story.when(spawned(2));
    story.when(ready(2)).then(&[steer(2), verdict(1, Outcome::Done, 2)]).serves(Some(2));
}

#[test]
fn a_restart_lets_the_generation_that_was_kept_warm_drain() {
    let mut story = Story::reloaded_with(Duration::from_secs(2));
    story.when(restart(1)).then(&[signal(2), quiesce(1)]).serves(None);
}

#[test]
fn a_restart_of_a_server_that_does_not_end_kills_it_in_time() {
    let mut story = Story::serving();
    story.when(restart(1));
    story.after(DRAIN_TIMEOUT).then(&[kill(1)]);
    story.when(exited(1)).then(&[kill(1), release(1), spawn_steered(2)]);
}

#[test]
fn a_restart_takes_over_the_requests_of_a_reload_that_is_starting() {
    let mut story = Story::serving();
    story.when(reload_to(1, "new")).when(spawned(2));
    story.when(restart(2)).then(&[kill(2), signal(1)]).serves(None);
    story.when(exited(2)).then(&[kill(2), release(2)]);
    story.when(exited(1)).then(&[kill(1), release(1), spawn_of("new", 3, Place::Steered)]);
    story.when(spawned(3));
    let both = [verdict(1, Outcome::Done, 3), verdict(2, Outcome::Done, 3)];
    story.when(ready(3)).then(&[&[steer(3)][..], &both].concat());
}

#[test]
fn a_reload_asked_for_during_a_restart_is_the_same_start_with_the_settings_of_then() {
    let mut story = Story::serving();
    story.when(restart(1)).when(reload_by(2)).then(&[release(2)]);
    story.when(exited(1)).then(&[kill(1), release(1), spawn_steered(3)]);
    story.when(spawned(3));
    let both = [verdict(1, Outcome::Done, 3), verdict(2, Outcome::Done, 3)];
    story.when(ready(3)).then(&[&[steer(3)][..], &both].concat());
    assert_eq!(story.wakes_in(), None);
}

#[test]
fn a_restart_with_broken_settings_stops_nothing() {
    let mut story = Story::serving();
    story.broken = Some("zdr.toml: no");
    story.when(restart(1)).then(&[verdict(1, Outcome::Kept, None)]).serves(Some(1));
    assert_eq!(story.reason(), "zdr.toml: no; generation 1 serves on");
    assert_eq!(story.wakes_in(), None);
}

#[test]
fn a_restart_with_broken_settings_leaves_a_reload_that_is_starting() {
    let mut story = Story::serving();
    story.when(reload_by(1)).when(spawned(2));
    story.broken = Some("zdr.toml: no");
    story.when(restart(2)).then(&[verdict(2, Outcome::Kept, None)]);
    story.when(ready(2)).then(&[steer(2), quiesce(1), verdict(1, Outcome::Done, 2)]);
}

#[test]
fn a_stop_gives_up_a_restart_that_waits_for_the_old_one_to_end() {
    let mut story = Story::serving();
    story.when(restart(1));
    story.when(stop(2)).then(&[release(2), verdict(1, Outcome::Failed, None)]);
    let last = [kill(1), release(1), verdict(2, Outcome::Done, None), Action::Exit(0)];
    story.when(exited(1)).then(&last);
}

#[test]
fn a_stop_drains_and_then_ends_zdr() {
    let mut story = Story::serving();
    story.when(stop(1)).then(&[Action::Hold, quiesce(1)]).serves(None);
    story.when(quiet(1)).then(&[signal(1)]);
    story.when(exited(1)).then(&[kill(1), release(1), verdict(1, Outcome::Done, None), Action::Exit(0)]);
}

#[test]
fn a_stop_waits_for_every_generation_that_drains() {
    let mut story = Story::reloaded_with(Duration::from_secs(2));
    story.when(stop(9)).then(&[Action::Hold, quiesce(1), quiesce(2)]);
    story.when(exited(2)).then(&[kill(2), release(2)]);
    story.when(exited(1)).then(&[kill(1), release(1), verdict(9, Outcome::Done, None), Action::Exit(0)]);
}

#[test]
fn a_stop_asked_for_twice_kills_at_once() {
    let mut story = Story::reloaded_with(Duration::ZERO);
    story.when(stop(1));
    story.when(stop(2)).then(&[kill(1), kill(2)]);
    story.when(stop(3)).then(&[]);
    story.when(exited(1));
    let all = [1, 2, 3].map(|ticket| verdict(ticket, Outcome::Done, None));
    let wanted = [&[kill(2), release(2)][..], &all, &[Action::Exit(0)]].concat();
    story.when(exited(2)).then(&wanted);
}

#[test]
fn while_the_lame_duck_time_lasts_it_serves_but_is_not_ready() {
    let mut story = Story::with(Policy { lame_duck: Duration::from_secs(5), ..policy() });
    story.when(Event::Boot).when(spawned(1)).when(ready(1));
    story.when(stop(1)).then(&[]).serves(Some(1));
    assert!(!story.supervisor.status(story.now).ready);
    story.after(Duration::from_secs(5)).then(&[Action::Hold, quiesce(1)]).serves(None);
}

#[test]
fn a_stop_tells_everybody_who_waits_that_nothing_more_starts() {
    let mut story = Story::serving();
    story.when(reload_by(1)).when(spawned(2)).when(reload_by(2));
    let told = [2, 1].map(|ticket| verdict(ticket, Outcome::Failed, None));
    story.when(stop(3)).then(&[&told[..], &[signal(2), Action::Hold, quiesce(1)]].concat());
    story.when(reload_by(4)).then(&[verdict(4, Outcome::Failed, None)]);
    story.when(restart(5)).then(&[verdict(5, Outcome::Failed, None)]);
    story.when(exited(2)).then(&[kill(2), release(2)]);
}

#[test]
fn a_generation_that_dies_during_a_stop_is_not_started_again() {
    let mut story = Story::with(Policy { lame_duck: Duration::from_secs(5), ..policy() });
    story.when(Event::Boot).when(spawned(1)).when(ready(1)).when(stop(1));
    story.when(exited(1)).then(&[kill(1), release(1), verdict(1, Outcome::Done, None), Action::Exit(0)]);
}

#[test]
fn a_stop_while_nothing_serves_ends_zdr_at_once() {
    let mut story = Story::serving();
    story.when(exited(1)).when(spawned(2)).when(exited(2));
    story.when(stop(1)).then(&[verdict(1, Outcome::Done, None), Action::Exit(0)]);
}

#[test]
fn a_stop_does_not_wait_for_connections_on_their_way_to_a_dead_generation() {
    let mut story = Story::reloaded_with(Duration::from_secs(2));
    story.when(exited(2)).when(stop(2)).when(left(2, 5)).then(&[release(2)]);
    story.when(quiet(1)).when(exited(1)).then(&[kill(1), release(1), verdict(2, Outcome::Done, None), Action::Exit(0)]);
}
