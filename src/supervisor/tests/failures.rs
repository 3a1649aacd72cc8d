//! Generations that cannot start, are not ready, or die.

use super::*;

fn failed_spawn(generation: u64, code: Option<i32>) -> Event {
    Event::SpawnFailed { instance: first(generation), why: "`server`: no such file".to_owned(), code }
}

#[test]
fn a_generation_that_is_not_ready_in_time_is_killed_and_the_old_one_serves_on() {
    let mut story = Story::serving();
    story.when(reload()).when(spawned(2)).when(not_ready(2, "last probe of /health: 503"));
    story.after(READY_TIMEOUT).then(&[kill(2), verdict(1, Outcome::Kept, 2)]).serves(Some(1));
    assert_eq!(
        story.reason(),
        "generation 2 was not ready after 30s: last probe of /health: 503; generation 1 serves on"
    );
    story.when(exited(2)).then(&[kill(2), release(2)]).serves(Some(1));
    assert_eq!(story.wakes_in(), None);
}

#[test]
fn a_generation_that_exits_before_it_is_ready_leaves_the_old_one_untouched() {
    let mut story = Story::serving();
    story.when(reload()).when(spawned(2));
    story.when(exited(2)).then(&[kill(2), release(2), verdict(1, Outcome::Kept, 2)]).serves(Some(1));
    assert_eq!(story.reason(), "generation 2 exited with code 1 before it was ready; generation 1 serves on");
}

#[test]
fn a_command_that_cannot_be_executed_leaves_the_old_one_untouched() {
    let mut story = Story::serving();
    story.when(reload());
    story.when(failed_spawn(2, Some(127))).then(&[release(2), verdict(1, Outcome::Kept, 2)]).serves(Some(1));
    assert_eq!(story.reason(), "generation 2 could not be started: `server`: no such file; generation 1 serves on");
}

#[test]
fn at_boot_a_command_that_cannot_be_executed_ends_zdr_as_a_shell_would() {
    let mut story = Story::new();
    story.when(Event::Boot);
    story.when(failed_spawn(1, Some(127))).then(&[release(1), Action::Exit(127)]);
}

#[test]
fn five_failures_in_a_row_with_nothing_ever_served_end_zdr() {
    let mut story = Story::new();
    story.when(Event::Boot);
    for (generation, pause) in [(1, 0), (2, 100), (3, 200), (4, 400)] {
        story.when(spawned(generation)).when(exited(generation));
        story.after(Duration::from_millis(pause));
    }
    story.when(spawned(5));
    story.when(exited(5)).then(&[kill(5), release(5), Action::Exit(1)]);
}

#[test]
fn once_something_has_served_zdr_never_gives_up_and_tries_more_slowly_each_time() {
    let mut story = Story::serving();
    story.when(exited(1)).then(&[kill(1), release(1), spawn_steered(2)]).serves(None);
    let mut pauses = Vec::new();
    for generation in 2..12 {
        story.when(spawned(generation)).when(exited(generation));
        pauses.push(story.wakes_in().unwrap());
        story.after(*pauses.last().unwrap());
    }
    assert_eq!(pauses[0], Duration::from_millis(100));
    assert!(pauses.is_sorted());
    assert_eq!(pauses[9], Duration::from_secs(10));
}

#[test]
fn a_reload_ends_the_pause_before_the_next_try() {
    let mut story = Story::serving();
    story.when(exited(1)).when(spawned(2)).when(exited(2)).then(&[kill(2), release(2)]);
    story.when(reload_to(7, "fixed")).then(&[spawn_of("fixed", 3, Place::Steered)]);
    story.when(spawned(3));
    story.when(ready(3)).then(&[steer(3), verdict(7, Outcome::Done, 3)]).serves(Some(3));
    assert_eq!(story.wakes_in(), None);
}

#[test]
fn a_generation_that_served_long_is_started_again_at_once_when_it_dies() {
    let mut story = Story::serving();
    for generation in 2..20 {
        story.after(Duration::from_secs(11));
        story.when(exited(generation - 1));
        story.then(&[kill(generation - 1), release(generation - 1), spawn_steered(generation)]);
        story.when(spawned(generation)).when(ready(generation)).serves(Some(generation));
    }
}

#[test]
fn a_new_generation_that_dies_within_the_bake_time_gives_the_connections_back_to_the_old_one() {
    let mut story = Story::reloaded_with(Duration::from_secs(2));
    story.after(Duration::from_secs(1));
    story.when(exited(2)).then(&[steer(1), kill(2), look_behind(2)]).serves(Some(1));
    assert_eq!(story.reason(), "generation 2 exited with code 1 1.0s after its promotion; generation 1 serves again");
    assert_eq!(story.wakes_in(), None, "the old one is not drained after all");
    story.when(left(2, 0)).then(&[release(2)]);
    story.when(reload_by(2)).then(&[spawn(3)]);
}

#[test]
fn connections_that_wait_for_a_dead_generation_are_finished_by_one_more_instance_of_it() {
    let mut story = Story::serving_with(Duration::from_secs(2));
    for event in [reload_to(1, "new"), spawned(2), ready(2)] {
        story.when(event);
    }
    let finisher = spawn_of("new", 3, Place::Of(Generation(2)));
    story.when(exited(2)).then(&[steer(1), kill(2), look_behind(2)]).serves(Some(1));
    story.when(left(2, 5)).then(&[finisher]).serves(Some(1));
    story.when(spawned(3)).then(&[quiesce(3), release(2)]).serves(Some(1));
    story.when(quiet(3)).then(&[signal(3)]);
    story.when(exited(3)).then(&[kill(3), release(3)]).serves(Some(1));
}

#[test]
fn a_command_that_gave_the_connections_back_is_not_the_one_that_later_reloads_use() {
    let mut story = Story::serving_with(Duration::from_secs(2));
    for event in [reload_to(1, "new"), spawned(2), ready(2), exited(2)] {
        story.when(event);
    }
    story.when(reload_by(2)).then(&[spawn(3)]).serves(Some(1));
}

#[test]
fn a_finisher_that_dies_as_well_is_not_followed_by_another() {
    let mut story = Story::reloaded_with(Duration::from_secs(2));
    story.when(exited(2)).when(left(2, 5)).when(spawned(3));
    story.when(exited(3)).then(&[kill(3), release(3)]).serves(Some(1));
    let mut story = Story::reloaded_with(Duration::from_secs(2));
    story.when(exited(2)).when(left(2, 5));
    story.when(failed_spawn(3, Some(127))).then(&[release(3), release(2)]).serves(Some(1));
    assert_eq!(story.wakes_in(), None);
}

#[test]
fn a_generation_that_dies_while_it_is_quiesced_leaves_no_connection_behind() {
    let mut story = Story::reloaded_with(Duration::ZERO);
    story.when(exited(1)).then(&[kill(1), look_behind(1)]);
    story.when(left(1, 2)).then(&[spawn_of("server", 3, Place::Of(Generation(1)))]);
    story.serves(Some(2));
}

#[test]
fn if_the_old_one_dies_during_a_reload_connections_wait_for_the_new_one() {
    let mut story = Story::serving();
    story.when(reload()).when(spawned(2));
    story.when(exited(1)).then(&[steer(2), kill(1), look_behind(1)]).serves(None);
    story.when(left(1, 0)).then(&[release(1)]);
    story.when(ready(2)).then(&[steer(2), verdict(1, Outcome::Done, 2)]).serves(Some(2));
}

#[test]
fn if_both_die_the_next_try_takes_the_connections_that_wait() {
    let mut story = Story::serving();
    story.when(reload()).when(spawned(2)).when(exited(1));
    story.when(exited(2)).then(&[kill(2), release(2), verdict(1, Outcome::Failed, 2), spawn_steered(3)]);
    assert_eq!(story.reason(), "generation 2 exited with code 1 before it was ready; nothing serves, connections wait");
}

#[test]
fn the_last_lines_of_one_that_failed_are_in_its_verdict_and_in_the_story() {
    let mut story = Story::serving();
    story.when(reload()).when(spawned(2)).when(wrote(2, &["Traceback", "ImportError"])).when(exited(2));
    let wanted = ["Traceback", "ImportError"];
    let told = story.done.iter().filter(|action| match action {
        Action::Tell(News::Failed { cause: Cause::Exited, output, .. }) => *output == wanted,
        Action::Answer(_, verdict) => verdict.cause == Cause::Exited && verdict.output == wanted,
        _ => false,
    });
    assert_eq!(told.count(), 2);
    story.when(reload()).when(spawned(3)).when(ready(3));
    assert!(story.supervisor.last_verdict.as_ref().unwrap().output.is_empty());
}

#[test]
fn one_that_is_late_and_one_that_dies_after_its_promotion_are_told_with_their_last_lines() {
    let mut story = Story::serving();
    story.when(reload()).when(spawned(2)).when(wrote(2, &["waiting for the database"])).after(READY_TIMEOUT);
    let verdict = story.supervisor.last_verdict.clone().unwrap();
    assert_eq!((verdict.cause, verdict.output), (Cause::TimedOut, vec!["waiting for the database".to_owned()]));
    let mut story = Story::reloaded_with(DRAIN_TIMEOUT);
    story.when(wrote(2, &["panic"])).when(exited(2));
    let verdict = story.supervisor.last_verdict.clone().unwrap();
    assert_eq!((verdict.cause, verdict.output), (Cause::Crashed, vec!["panic".to_owned()]));
}

#[test]
fn a_generation_is_told_with_what_it_was_started_for() {
    let mut story = Story::new();
    let mut whys = Vec::new();
    let mut tell = |story: &mut Story| {
        whys.extend(story.done.iter().filter_map(|action| match action {
            Action::Tell(News::Spawned { why, .. }) => Some(*why),
            _ => None,
        }));
    };
    for event in [Event::Boot, spawned(1)] {
        tell(story.when(event));
    }
    for event in [ready(1), reload(), spawned(2), exited(2), exited(1), spawned(3), exited(3)] {
        tell(story.when(event));
    }
    story.after(Duration::from_secs(10));
    tell(story.when(spawned(4)));
    for event in [ready(4), Event::Restart { ticket: Ticket(9) }, exited(4), spawned(5)] {
        tell(story.when(event));
    }
    assert_eq!(whys, [Why::Boot, Why::Reload, Why::Crash, Why::Retry, Why::Restart]);
}

#[test]
fn settings_that_cannot_be_had_change_nothing_and_what_serves_on_is_told_behind_their_mistakes() {
    let mut story = Story::serving();
    for (why, reason) in [
        ("no address is left", "no address is left; generation 1 serves on"),
        ("there is no key `a`\n --> zdr.toml:1:1", "there is no key `a`\n --> zdr.toml:1:1\ngeneration 1 serves on"),
    ] {
        story.broken = Some(why);
        story.when(reload()).then(&[verdict(1, Outcome::Kept, None)]).serves(Some(1));
        assert_eq!(story.reason(), reason);
    }
}
