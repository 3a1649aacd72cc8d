//! Going back to the release before: by order, or because a new one fails its trial.

use super::*;

const BAKE: Duration = Duration::from_secs(2);

fn rollback(ticket: u64) -> Event {
    Event::Rollback { ticket: Ticket(ticket) }
}

fn check(state: Health, critical: bool) -> Event {
    Event::Checked { name: "db".to_owned(), state, message: "no answer".to_owned(), critical, was_well: true }
}

fn goal(story: &Story) -> Option<(u64, bool)> {
    story.supervisor.goal_of_rollback().map(|goal| (goal.generation.0, goal.warm))
}

fn cause(story: &Story) -> Cause {
    story.supervisor.last_verdict.as_ref().unwrap().cause
}

/// With a trial time and no generation that is kept for it, "new" serves in place of "server".
fn on_trial_alone() -> Story {
    let mut story = Story::serving_by(Policy { bake: BAKE, ..policy() });
    story.settings.command = command("new");
    for event in [reload(), spawned(2), ready(2), quiet(1), exited(1)] {
        story.when(event);
    }
    story
}

/// Releases with the names of their generations serve, one after the other.
fn after_reloads(last: u64) -> Story {
    let mut story = Story::serving();
    for generation in 2..=last {
        story.settings.command = command(&format!("release {generation}"));
        for event in [reload(), spawned(generation), ready(generation), exited(generation - 1)] {
            story.when(event);
        }
        story.when(left(generation - 1, 0));
    }
    story
}

#[test]
fn a_rollback_starts_another_that_is_as_the_one_before_was() {
    let mut story = after_reloads(2);
    assert_eq!(goal(&story), Some((1, false)));
    story.when(rollback(2)).then(&[spawn_of("server", 3, Place::Beside)]).serves(Some(2));
    story.when(spawned(3));
    story.when(ready(3)).then(&[steer(3), quiesce(2), verdict(2, Outcome::Done, 3)]).serves(Some(3));
    assert_eq!((cause(&story), goal(&story)), (Cause::RolledBack, None));
    story.when(reload_by(3)).then(&[spawn_of("release 2", 4, Place::Beside)]);
}

#[test]
fn while_the_one_before_is_kept_a_rollback_gives_it_the_connections_at_once() {
    let mut story = Story::reloaded_with(BAKE);
    assert_eq!(goal(&story), Some((1, true)));
    story.when(rollback(2)).then(&[steer(1), quiesce(2), verdict(2, Outcome::Done, 1)]).serves(Some(1));
    assert_eq!((cause(&story), goal(&story)), (Cause::RolledBack, None));
    assert_eq!(story.wakes_in(), Some(DRAIN_TIMEOUT), "the new one drains, and no trial goes on");
}

#[test]
fn one_that_died_while_it_was_kept_is_started_again() {
    let mut story = Story::reloaded_with(BAKE);
    story.when(exited(1)).when(left(1, 0));
    assert_eq!(goal(&story), Some((1, false)));
    story.when(rollback(2)).then(&[spawn(3)]).serves(Some(2));
}

#[test]
fn with_nothing_before_there_is_nothing_to_go_back_to() {
    let mut story = Story::serving();
    story.when(rollback(1)).then(&[verdict(1, Outcome::Failed, None)]).serves(Some(1));
    story.when(Event::Stop { ticket: Ticket(2) });
    story.when(rollback(3)).then(&[verdict(3, Outcome::Failed, None)]);
}

#[test]
fn a_rollback_during_a_reload_gives_the_reload_up() {
    let mut story = Story::serving();
    story.when(reload_by(1)).when(spawned(2)).when(reload_by(2));
    let kept = [verdict(2, Outcome::Kept, None), kill(2), verdict(1, Outcome::Kept, 2)];
    story.when(rollback(3)).then(&[&kept[..], &[verdict(3, Outcome::Done, 1)]].concat()).serves(Some(1));
    assert_eq!(story.reason(), "generation 1 serves on, and generation 2 is given up");
    story.when(exited(2)).then(&[kill(2), release(2)]);
    assert_eq!(story.wakes_in(), None);
}

#[test]
fn one_can_go_back_step_by_step_but_not_for_ever() {
    let mut story = after_reloads(6);
    for (generation, name) in [(7, "release 5"), (8, "release 4"), (9, "release 3"), (10, "release 2")] {
        story.when(rollback(9)).then(&[spawn_of(name, generation, Place::Beside)]);
        story.when(spawned(generation)).when(ready(generation)).serves(Some(generation));
    }
    story.when(rollback(9)).then(&[verdict(9, Outcome::Failed, None)]);
}

#[test]
fn what_could_be_gone_back_to_is_remembered_and_the_rest_is_not() {
    let mut story = Story::serving();
    let remembered = |story: &Story| story.supervisor.remembered.iter().map(|it| it.0).collect::<Vec<u64>>();
    for (generation, wanted) in [(2, vec![1, 2]), (3, vec![1, 2, 3]), (4, vec![1, 2, 3, 4])] {
        story.when(reload()).when(spawned(generation)).when(ready(generation));
        story.when(quiet(generation - 1)).when(exited(generation - 1));
        assert_eq!(remembered(&story), wanted);
    }
    story.when(exited(4));
    assert_eq!(remembered(&story), [1, 2, 3, 4, 5], "it is made as it was");
    story.when(spawned(5)).when(ready(5)).when(left(4, 0));
    assert_eq!(remembered(&story), [1, 2, 3, 5], "another copy is no other release");
    story.when(rollback(9)).when(spawned(6)).when(ready(6));
    assert_eq!(remembered(&story), [1, 2, 5, 6], "it drains");
    story.when(exited(5)).when(left(5, 0));
    assert_eq!(remembered(&story), [1, 2, 6]);
    story.when(reload()).when(spawned(7)).when(exited(7));
    assert_eq!(remembered(&story), [1, 2, 6], "it never served");
}

#[test]
fn a_rollback_that_fails_leaves_the_one_that_serves() {
    let mut story = after_reloads(2);
    story.when(rollback(2)).when(spawned(3));
    story.when(exited(3)).then(&[kill(3), release(3), verdict(2, Outcome::Kept, 3)]).serves(Some(2));
    assert_eq!(goal(&story), Some((1, false)));
}

#[test]
fn of_a_restart_and_a_rollback_that_wait_the_later_one_is_done_and_both_are_told() {
    let mut story = after_reloads(2);
    story.when(Event::Restart { ticket: Ticket(1) });
    story.when(rollback(2)).then(&[release(3), verdict(1, Outcome::Kept, None)]);
    story.when(exited(2)).then(&[kill(2), release(2), spawn_of("server", 4, Place::Steered)]);
    story.when(spawned(4));
    story.when(ready(4)).then(&[steer(4), verdict(2, Outcome::Done, 4)]);
}

#[test]
fn one_that_dies_on_trial_is_followed_by_another_like_the_one_before() {
    let mut story = on_trial_alone();
    story.when(exited(2)).then(&[kill(2), release(2), spawn_of("server", 3, Place::Steered)]).serves(None);
    story.when(spawned(3));
    story.when(ready(3)).then(&[steer(3)]).serves(Some(3));
    assert_eq!(
        story.reason(),
        "generation 2 exited with code 1 0.0ns after its promotion; generation 3 serves, as the one before it was"
    );
    assert_eq!((cause(&story), goal(&story)), (Cause::Crashed, None));
    assert_eq!(story.wakes_in(), None, "what has served before is on no trial");
}

#[test]
fn one_that_dies_after_its_trial_is_started_again_itself() {
    let mut story = on_trial_alone();
    story.after(BAKE);
    story.when(exited(2)).then(&[kill(2), release(2), spawn_of("new", 3, Place::Steered)]);
}

#[test]
fn the_first_generation_is_on_no_trial() {
    let mut story = Story::serving_by(Policy { bake: BAKE, ..policy() });
    assert_eq!(story.wakes_in(), None);
    story.when(check(Health::Unhealthy, true)).then(&[]).serves(Some(1));
}

#[test]
fn a_critical_check_that_fails_on_trial_gives_the_connections_back() {
    let mut story = Story::reloaded_with(BAKE);
    story.when(check(Health::Degraded, true)).then(&[]);
    story.when(check(Health::Unhealthy, false)).then(&[]).serves(Some(2));
    story.when(check(Health::Unhealthy, true)).then(&[steer(1), quiesce(2)]).serves(Some(1));
    assert_eq!(story.reason(), "generation 2 made the check db fail: no answer; generation 1 serves again");
    assert_eq!(cause(&story), Cause::Unhealthy);
    story.when(quiet(2)).then(&[signal(2)]);
}

#[test]
fn after_the_trial_a_check_that_fails_changes_nothing() {
    let mut story = Story::serving_by(Policy { bake: BAKE, bake_keep: 10 * BAKE, ..policy() });
    for event in [reload(), spawned(2), ready(2)] {
        story.when(event);
    }
    story.after(BAKE).when(check(Health::Unhealthy, true)).then(&[]).serves(Some(2));
    assert_eq!(goal(&story), Some((1, true)), "it is kept longer than the trial lasts");
    story.after(9 * BAKE).then(&[quiesce(1)]);
}

#[test]
fn checks_are_asked_while_a_trial_goes_on() {
    let asked = |story: &Story| {
        let asked = story.done.iter().filter_map(|action| match action {
            Action::AskChecks(asked) => Some(*asked),
            _ => None,
        });
        asked.collect::<Vec<_>>()
    };
    let mut story = Story::serving_with(BAKE);
    story.when(reload()).when(spawned(2));
    assert_eq!(asked(story.when(ready(2))), [true]);
    assert_eq!(asked(story.after(BAKE)), [false]);
    let mut story = Story::reloaded_with(BAKE);
    assert_eq!(asked(story.when(rollback(2))), [false]);
    let mut story = Story::reloaded_with(BAKE);
    assert_eq!(asked(story.when(exited(2))), [false]);
}

#[test]
fn one_that_gets_stuck_on_trial_gives_the_connections_back() {
    let mut story = Story::reloaded_with(BAKE);
    let (generation, why) = (Generation(2), "no answer within 5s".to_owned());
    story.when(Event::Stuck { generation, sign: Sign::Answers, why }).then(&[steer(1), quiesce(2)]).serves(Some(1));
    assert_eq!(story.reason(), "generation 2 is stuck: no answer within 5s; generation 1 serves again");
    assert_eq!(cause(&story), Cause::Stuck);
}

#[test]
fn one_that_has_used_up_its_restarts_on_trial_gives_the_connections_back() {
    let budget = Budget { restarts: 1, window: STEADY };
    let policy = Policy { instances: 2, bake: BAKE, bake_keep: BAKE, max_restarts: Some(budget), ..policy() };
    let mut story = Story::serving_by(policy);
    story.when(reload());
    story.all_start(2);
    story.when(exited_at(2, 1)).when(spawned_at(2, 1)).when(ready_at(2, 1)).serves(Some(2));
    let old = Action::Steer(vec![portion(1, &[1, 2], 1)]);
    story.when(exited_at(2, 2)).then(&[Action::Bury(at(2, 2)), old, quiesce(2)]).serves(Some(1));
    assert_eq!(story.reason(), "generation 2 has used up its 1 restarts in 10s; generation 1 serves again");
}

#[test]
fn a_caller_who_waits_for_the_end_of_the_old_one_is_told_that_it_serves_again() {
    let drained = Event::Reload { ticket: Ticket(1), command: None, until: Until::Drained };
    for goes_back in [exited(2), rollback(2), check(Health::Unhealthy, true)] {
        let mut story = Story::serving_with(BAKE);
        for event in [drained.clone(), spawned(2), ready(2)] {
            story.when(event);
        }
        story.when(goes_back);
        let told = story.done.iter().any(|action| matches!(action, Action::Answer(Ticket(1), _)));
        assert!(told, "{:?}", story.done);
    }
}

#[test]
fn the_one_that_serves_again_has_as_many_instances_as_are_wanted_now() {
    let mut story = Story::reloaded_with(BAKE);
    story.when(Event::Scale { ticket: Ticket(2), scale: Scale::To(2) });
    story.when(spawned_at(2, 2)).when(ready_at(2, 2));
    let back = [steer(1), quiesce(2), verdict(3, Outcome::Done, 1), spawn_at(1, 2, Place::Beside)];
    story.when(rollback(3)).then(&back);
    story.when(spawned_at(1, 2)).when(ready_at(1, 2)).serves(Some(1));
}

#[test]
fn one_that_serves_again_with_more_instances_than_its_settings_say_keeps_that_number() {
    let mut story = Story::serving_with(BAKE);
    story.when(Event::Scale { ticket: Ticket(1), scale: Scale::To(2) });
    story.when(spawned_at(1, 2)).when(ready_at(1, 2));
    story.settings.policy.instances = 3;
    story.when(reload());
    story.all_start(2);
    story.when(rollback(2)).serves(Some(1));
    story.settings.policy.instances = 1;
    story.when(reload()).when(spawned_at(3, 1));
    assert!(story.done.contains(&spawn_at(3, 2, Place::Beside)), "{:?}", story.done);
}

#[test]
fn one_that_did_not_do_well_is_not_kept() {
    let mut story = Story::serving_with(BAKE);
    let why = "no answer within 5s".to_owned();
    story.when(reload()).when(spawned(2));
    story.when(Event::Stuck { generation: Generation(1), sign: Sign::Answers, why });
    story.when(ready(2)).then(&[steer(2), quiesce(1), verdict(1, Outcome::Done, 2)]);
    assert_eq!(goal(&story), Some((1, false)));
}
