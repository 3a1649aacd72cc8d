//! Generations of several instances: how they come, and what becomes of one that dies.

use super::*;

fn of(instances: u32) -> Policy {
    Policy { instances, ..policy() }
}

/// One after the other, and each has its share at once.
fn by_and_by(instances: u32) -> Policy {
    Policy { surge: Some(1), ..of(instances) }
}

/// Each has a queue of its own.
fn apart(instances: u32) -> Policy {
    Policy { queue: QueueMode::PerInstance, ..of(instances) }
}

fn beside(generation: u64, number: u32) -> Action {
    spawn_at(generation, number, Place::Beside)
}

fn probe_at(generation: u64, number: u32) -> Action {
    Action::Probe(at(generation, number))
}

fn bury(generation: u64, number: u32) -> Action {
    Action::Bury(at(generation, number))
}

fn steer_to(portions: &[Portion]) -> Action {
    Action::Steer(portions.to_vec())
}

#[test]
fn a_generation_serves_once_all_of_its_instances_are_ready_and_they_are_executed_one_by_one() {
    let mut story = Story::with(of(3));
    story.when(Event::Boot).then(&[spawn_at(1, 1, Place::Steered)]);
    story.when(spawned_at(1, 1)).then(&[probe_at(1, 1), spawn_at(1, 2, Place::Steered)]);
    story.when(ready_at(1, 1)).then(&[]);
    story.when(spawned_at(1, 2)).then(&[probe_at(1, 2), spawn_at(1, 3, Place::Steered)]);
    story.when(spawned_at(1, 3)).then(&[probe_at(1, 3)]);
    story.when(ready_at(1, 3)).then(&[]).serves(None);
    story.when(ready_at(1, 2)).then(&[steer_to(&[portion(1, &[1, 2, 3], 1)])]).serves(Some(1));
}

#[test]
fn one_that_dies_before_all_are_ready_takes_the_new_generation_with_it() {
    let mut story = Story::serving_by(of(2));
    story.when(reload()).when(spawned_at(2, 1)).when(spawned_at(2, 2)).when(ready_at(2, 1));
    story.when(exited_at(2, 2)).then(&[kill(2), verdict(1, Outcome::Kept, 2)]).serves(Some(1));
    assert_eq!(
        story.reason(),
        "instance 2 of generation 2 exited with code 1 before it was ready; generation 1 serves on"
    );
    story.when(exited_at(2, 1)).then(&[kill(2), release(2)]);
    let mut story = Story::serving_by(of(2));
    story.when(reload()).when(spawned_at(2, 1)).when(ready_at(2, 1)).when(spawned_at(2, 2));
    story.when(exited_at(2, 1)).then(&[kill(2), verdict(1, Outcome::Kept, 2)]);
    assert_eq!(
        story.reason(),
        "instance 1 of generation 2 exited with code 1 before all were ready; generation 1 serves on"
    );
}

#[test]
fn a_surge_starts_so_many_at_a_time_and_gives_them_their_share() {
    let mut story = Story::serving_by(by_and_by(3));
    story.when(reload()).then(&[beside(2, 1)]);
    story.when(spawned_at(2, 1)).then(&[probe_at(2, 1)]);
    let shares = steer_to(&[portion(1, &[1, 2, 3], 2), portion(2, &[1], 1)]);
    story.when(ready_at(2, 1)).then(&[shares, beside(2, 2)]).serves(Some(1));
    story.when(spawned_at(2, 2)).then(&[probe_at(2, 2)]);
    let shares = steer_to(&[portion(1, &[1, 2, 3], 1), portion(2, &[1, 2], 2)]);
    story.when(ready_at(2, 2)).then(&[shares, beside(2, 3)]).serves(Some(1));
    story.when(spawned_at(2, 3)).then(&[probe_at(2, 3)]);
    let all = steer_to(&[portion(2, &[1, 2, 3], 1)]);
    story.when(ready_at(2, 3)).then(&[all, quiesce(1), verdict(1, Outcome::Done, 2)]).serves(Some(2));
}

#[test]
fn a_surge_of_as_many_as_there_are_shares_nothing() {
    let mut story = Story::serving_by(Policy { surge: Some(2), ..of(2) });
    story.when(reload()).when(spawned_at(2, 1)).then(&[probe_at(2, 1), beside(2, 2)]);
    story.when(ready_at(2, 1)).then(&[]);
}

#[test]
fn a_surge_stops_at_the_first_that_fails_and_what_it_has_begun_to_answer_it_finishes() {
    let mut story = Story::serving_by(by_and_by(3));
    story.when(reload()).when(spawned_at(2, 1)).when(ready_at(2, 1)).when(spawned_at(2, 2));
    let back = steer_to(&[portion(1, &[1, 2, 3], 1)]);
    let kept = [back, Action::Bury(at(2, 2)), quiesce(2), verdict(1, Outcome::Kept, 2)];
    story.after(READY_TIMEOUT).then(&kept).serves(Some(1));
    story.when(quiet(2)).then(&[signal(2)]);
    story.when(exited_at(2, 1)).then(&[kill(2), release(2)]);
}

#[test]
fn what_waits_for_a_surge_of_which_nobody_is_left_that_can_serve_is_finished_at_once() {
    let mut story = Story::serving_by(by_and_by(3));
    story.when(reload()).when(spawned_at(2, 1)).when(ready_at(2, 1)).when(spawned_at(2, 2));
    let back = steer_to(&[portion(1, &[1, 2, 3], 1)]);
    let kept = [back, Action::Bury(at(2, 2)), kill(2), look_behind(2), verdict(1, Outcome::Kept, 2)];
    story.when(exited_at(2, 1)).then(&kept).serves(Some(1));
    story.when(left(2, 1)).then(&[Action::Spawn {
        instance: at(3, 1),
        command: vec!["server".into()],
        place: Place::Of(Generation(2)),
        like: Some(Generation(2)),
    }]);
}

#[test]
fn if_the_old_one_dies_during_a_surge_those_that_are_there_get_everything() {
    let mut story = Story::serving_by(by_and_by(2));
    for event in [reload(), spawned_at(2, 1), ready_at(2, 1), spawned_at(2, 2), exited_at(1, 1)] {
        story.when(event);
    }
    story.when(spawned_at(1, 1)).serves(Some(1));
    let all = steer_to(&[portion(2, &[1, 2], 1)]);
    story.when(exited_at(1, 2)).then(&[all, quiesce(1)]).serves(None);
    story.when(quiet(1)).then(&[signal(1)]);
    story.when(exited_at(1, 1)).then(&[kill(1), look_behind(1)]);
}

#[test]
fn one_of_several_that_dies_is_started_again_alone_under_its_number() {
    let mut story = Story::serving_by(of(3));
    story.when(exited_at(1, 2)).then(&[bury(1, 2), beside(1, 2)]).serves(Some(1));
    assert_eq!(story.supervisor.crashes, 1);
    story.when(spawned_at(1, 2)).then(&[probe_at(1, 2)]);
    story.when(ready_at(1, 2)).then(&[]).serves(Some(1));
    assert_eq!(story.wakes_in(), None);
}

#[test]
fn where_each_has_its_own_queue_what_is_new_goes_to_those_that_can_serve() {
    let mut story = Story::serving_by(apart(3));
    story.when(exited_at(1, 2)).then(&[bury(1, 2), steer_to(&[portion(1, &[1, 3], 1)]), beside(1, 2)]);
    story.when(spawned_at(1, 2)).then(&[probe_at(1, 2)]);
    story.when(ready_at(1, 2)).then(&[steer_to(&[portion(1, &[1, 2, 3], 1)])]);
}

#[test]
fn the_shares_of_a_surge_stay_while_an_old_instance_is_started_again() {
    let mut story = Story::serving_by(Policy { surge: Some(1), ..apart(2) });
    story.when(reload()).when(spawned_at(2, 1)).when(ready_at(2, 1)).when(spawned_at(2, 2));
    let shares = |old: &[u32]| steer_to(&[portion(1, old, 1), portion(2, &[1], 1)]);
    story.when(exited_at(1, 1)).then(&[bury(1, 1), shares(&[2]), beside(1, 1)]);
    story.when(spawned_at(1, 1)).when(ready_at(1, 1)).then(&[shares(&[1, 2])]);
}

#[test]
fn one_that_dies_soon_each_time_comes_more_slowly_and_one_that_served_long_at_once() {
    let mut story = Story::serving_by(of(2));
    story.when(exited_at(1, 2)).then(&[bury(1, 2), beside(1, 2)]);
    for pause in [100, 200, 400].map(Duration::from_millis) {
        story.when(spawned_at(1, 2)).when(ready_at(1, 2));
        story.when(exited_at(1, 2)).then(&[bury(1, 2)]);
        assert_eq!(story.wakes_in(), Some(pause));
        story.after(pause).then(&[beside(1, 2)]);
    }
    story.when(spawned_at(1, 2)).when(ready_at(1, 2)).after(STEADY);
    story.when(exited_at(1, 2)).then(&[bury(1, 2), beside(1, 2)]);
    story.when(exited_at(1, 1)).serves(None);
}

#[test]
fn one_that_is_not_ready_again_in_time_is_buried_and_started_once_more() {
    let mut story = Story::serving_by(of(2));
    story.when(exited_at(1, 1)).when(spawned_at(1, 1));
    story.after(READY_TIMEOUT).then(&[bury(1, 1)]).serves(Some(1));
    assert_eq!(story.wakes_in(), Some(Duration::from_millis(100)));
    story.after(Duration::from_millis(100)).then(&[beside(1, 1)]);
    let failure = Event::SpawnFailed { instance: at(1, 1), why: "no".to_owned(), code: Some(127) };
    story.when(failure).then(&[bury(1, 1)]).serves(Some(1));
    assert_eq!(story.wakes_in(), Some(Duration::from_millis(200)));
}

#[test]
fn with_the_last_that_can_serve_the_generation_starts_again_with_those_that_are_on_their_way() {
    let mut story = Story::serving_by(of(2));
    story.when(exited_at(1, 1)).when(spawned_at(1, 1));
    story.when(exited_at(1, 2)).then(&[bury(1, 2), spawn_at(1, 2, Place::Steered)]).serves(None);
    assert_eq!((story.supervisor.crashes, story.supervisor.status(story.now).state), (2, State::Waiting));
    story.when(spawned_at(1, 2)).then(&[probe_at(1, 2)]);
    story.when(ready_at(1, 1)).then(&[]).serves(None);
    story.when(ready_at(1, 2)).then(&[steer_to(&[portion(1, &[1, 2], 1)])]).serves(Some(1));
    assert_eq!(story.wakes_in(), None);
}

#[test]
fn a_generation_that_starts_again_waits_as_long_as_each_of_its_instances_has_to() {
    let mut story = Story::serving_by(of(2));
    story.when(exited_at(1, 1)).when(spawned_at(1, 1)).when(exited_at(1, 1));
    story.when(exited_at(1, 2)).then(&[bury(1, 2), spawn_at(1, 2, Place::Steered)]).serves(None);
    story.when(spawned_at(1, 2)).when(ready_at(1, 2)).then(&[]);
    assert_eq!(story.wakes_in(), Some(Duration::from_millis(100)));
    story.after(Duration::from_millis(100)).then(&[spawn_at(1, 1, Place::Steered)]);
    story.when(spawned_at(1, 1));
    story.when(exited_at(1, 1)).then(&[kill(1), spawn_at(2, 1, Place::Steered)]).serves(None);
    story.when(exited_at(1, 2)).then(&[kill(1), release(1)]);
}

#[test]
fn one_that_is_not_to_be_started_again_is_missing_when_its_generation_does() {
    let mut story = Story::serving_by(Policy { restart: Restart::OnFailure, ..of(2) });
    story.when(exited_at(1, 1)).when(spawned_at(1, 1));
    story.when(Event::Exited { instance: at(1, 2), exit: Exit::Code(0) }).then(&[]).serves(None);
    story.when(ready_at(1, 1)).then(&[steer(1)]).serves(Some(1));
}

#[test]
fn what_waits_for_one_that_did_not_do_well_and_died_is_left_to_the_next() {
    let mut story = Story::with(Policy { hooks: vec![Hook::BeforeStart], ..of(2) });
    let hook = |generation| Event::HookEnded { hook: Hook::BeforeStart, generation, failure: None };
    story.when(Event::Boot).when(hook(Generation(1)));
    story.all_start(1);
    let why = "no answer within 5s".to_owned();
    story.when(Event::Stuck { generation: Generation(1), sign: Sign::Answers, why });
    story.when(exited_at(1, 1)).when(spawned_at(1, 1));
    story.when(exited_at(1, 2)).then(&[kill(1)]).serves(None);
    story.when(exited_at(1, 1)).then(&[kill(1), release(1)]);
    story.when(hook(Generation(2))).then(&[spawn_at(2, 1, Place::Steered)]);
}

#[test]
fn an_old_generation_is_gone_with_its_last_instance() {
    let mut story = Story::serving_by(of(2));
    story.when(reload());
    story.all_start(2);
    story.when(quiet(1)).then(&[signal(1)]);
    story.when(exited_at(1, 1)).then(&[]);
    story.when(exited_at(1, 2)).then(&[kill(1), release(1)]);
}

#[test]
fn one_of_several_that_dies_during_a_stop_is_not_started_again() {
    let mut story = Story::serving_by(Policy { lame_duck: Duration::from_secs(5), ..of(2) });
    story.when(Event::Stop { ticket: Ticket(1) });
    story.when(exited_at(1, 1)).then(&[bury(1, 1)]).serves(Some(1));
}

#[test]
fn readiness_says_no_only_when_no_instance_can_serve_by_its_own_word() {
    let mut story = Story::serving_by(of(2));
    let unready = |number| Event::Unready { instance: at(1, number) };
    let is_ready = |story: &Story| story.supervisor.status(story.now).ready;
    assert!(is_ready(story.when(unready(1))) && !is_ready(story.when(unready(2))));
    story.when(exited_at(1, 2)).when(spawned_at(1, 2)).when(ready_at(1, 2));
    assert!(is_ready(&story), "what one said is gone with it");
}

#[test]
fn one_of_several_that_is_about_to_end_is_not_replaced_before_it_has() {
    let mut story = Story::serving_by(of(2));
    story.when(Event::Leaving { instance: at(1, 1) }).then(&[]);
    story.when(exited_at(1, 1)).then(&[bury(1, 1), beside(1, 1)]);
    story.when(Event::Leaving { instance: at(1, 2) }).then(&[]);
    let mut alone = Story::serving_by(of(2));
    alone.when(exited_at(1, 1)).when(spawned_at(1, 1));
    alone.when(Event::Leaving { instance: at(1, 2) }).then(&[beside(2, 1)]).serves(Some(1));
}

#[test]
fn what_waits_in_many_queues_is_finished_by_as_many_instances() {
    let mut story = Story::serving_by(apart(2));
    story.when(reload());
    story.all_start(2);
    story.when(exited_at(1, 1)).when(exited_at(1, 2)).then(&[kill(1), look_behind(1)]);
    let finisher = |number| {
        let (place, like) = (Place::Of(Generation(1)), Some(Generation(1)));
        Action::Spawn { instance: at(3, number), command: command("server"), place, like }
    };
    story.when(left(1, 4)).then(&[finisher(1)]);
    story.when(spawned_at(3, 1)).then(&[finisher(2)]);
    story.when(spawned_at(3, 2)).then(&[quiesce(3), release(1)]).serves(Some(2));
}

#[test]
fn what_waits_for_one_that_was_to_be_started_again_is_looked_for_when_its_generation_is_gone() {
    let mut story = Story::serving_by(apart(2));
    story.when(exited_at(1, 1)).when(spawned_at(1, 1)).when(exited_at(1, 1));
    story.when(reload());
    story.all_start(2);
    story.when(quiet(1)).then(&[signal(1)]);
    story.when(exited_at(1, 2)).then(&[kill(1), look_behind(1)]).serves(Some(2));
}
