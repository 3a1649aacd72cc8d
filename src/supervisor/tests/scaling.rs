//! Another number of instances.

use super::*;

fn scale(ticket: u64, scale: Scale) -> Event {
    Event::Scale { ticket: Ticket(ticket), scale }
}

fn serving(instances: u32) -> Story {
    Story::serving_by(Policy { instances, ..policy() })
}

fn beside(generation: u64, number: u32) -> Action {
    spawn_at(generation, number, Place::Beside)
}

/// This many instances of this generation become ready, one after the other.
fn come(story: &mut Story, generation: u64, numbers: std::ops::RangeInclusive<u32>) {
    for number in numbers {
        story.when(spawned_at(generation, number)).when(ready_at(generation, number));
    }
}

fn number(story: &Story) -> usize {
    story.supervisor.status(story.now).generations[0].instances.len()
}

#[test]
fn more_instances_join_the_generation_that_serves() {
    let mut story = serving(1);
    story.when(scale(1, Scale::To(3))).then(&[beside(1, 2)]).serves(Some(1));
    story.when(spawned_at(1, 2)).then(&[Action::Probe(at(1, 2)), beside(1, 3)]);
    story.when(ready_at(1, 2)).then(&[]);
    story.when(spawned_at(1, 3));
    story.when(ready_at(1, 3)).then(&[verdict(1, Outcome::Done, 1)]);
    assert_eq!(story.reason(), "3 instances serve");
}

#[test]
fn where_each_has_its_own_queue_one_that_joins_gets_its_part_once_it_is_ready() {
    let mut story = Story::serving_by(Policy { queue: QueueMode::PerInstance, ..policy() });
    story.when(scale(1, Scale::By(1))).when(spawned_at(1, 2));
    let both = Action::Steer(vec![portion(1, &[1, 2], 1)]);
    story.when(ready_at(1, 2)).then(&[both, verdict(1, Outcome::Done, 1)]);
}

#[test]
fn fewer_instances_are_a_new_generation_of_the_same_release() {
    let mut story = serving(3);
    story.settings.command = command("newer");
    story.when(scale(1, Scale::By(-2))).then(&[beside(2, 1)]).serves(Some(1));
    story.when(spawned_at(2, 1));
    story.when(ready_at(2, 1)).then(&[steer(2), quiesce(1), verdict(1, Outcome::Done, 2)]).serves(Some(2));
    assert_eq!(story.supervisor.goal_of_rollback(), None, "it is no other release");
}

#[test]
fn as_many_as_there_are_is_done_at_once() {
    let mut story = serving(2);
    story.when(scale(1, Scale::To(2))).then(&[verdict(1, Outcome::Done, 1)]);
    assert_eq!(story.reason(), "2 instances serve");
}

#[test]
fn a_number_that_cannot_be_changes_nothing() {
    let mut story = serving(2);
    let verdict = |ticket| verdict(ticket, Outcome::Failed, None);
    for (ticket, wanted) in [(1, Scale::To(0)), (2, Scale::To(257)), (3, Scale::By(-2)), (4, Scale::By(255))] {
        story.when(scale(ticket, wanted)).then(&[verdict(ticket)]);
    }
    story.when(reload()).when(spawned_at(2, 1)).then(&[Action::Probe(at(2, 1)), beside(2, 2)]);
}

#[test]
fn the_number_holds_for_reloads_until_the_settings_say_another() {
    let mut story = serving(1);
    story.when(scale(1, Scale::To(2)));
    come(&mut story, 1, 2..=2);
    story.when(reload());
    come(&mut story, 2, 1..=2);
    story.serves(Some(2));
    assert_eq!(number(&story), 2);
    story.settings.policy.instances = 3;
    story.when(reload());
    come(&mut story, 3, 1..=3);
    story.serves(Some(3));
    story.settings.policy.instances = 1;
    story.when(reload());
    come(&mut story, 4, 1..=1);
    story.serves(Some(4));
}

#[test]
fn a_reload_that_fails_leaves_the_number_that_somebody_asked_for() {
    let mut story = serving(1);
    story.when(scale(1, Scale::To(2)));
    come(&mut story, 1, 2..=2);
    story.settings.policy.instances = 3;
    story.when(reload()).when(spawned(2)).when(exited(2)).serves(Some(1));
    story.settings.policy.instances = 1;
    story.when(reload());
    come(&mut story, 3, 1..=2);
    story.serves(Some(3));
}

#[test]
fn what_is_asked_for_while_other_settings_start_holds_for_those() {
    let mut story = serving(1);
    story.settings.policy.instances = 2;
    story.when(reload()).when(scale(1, Scale::To(3)));
    come(&mut story, 2, 1..=3);
    story.when(reload());
    come(&mut story, 3, 1..=2);
    story.serves(Some(2));
    come(&mut story, 3, 3..=3);
    story.serves(Some(3));
}

#[test]
fn while_something_starts_it_waits_and_the_last_number_counts_for_everybody() {
    let mut story = serving(1);
    story.when(reload()).when(spawned(2));
    story.when(scale(2, Scale::By(1))).when(scale(3, Scale::By(1))).then(&[]);
    story.when(ready(2)).then(&[steer(2), quiesce(1), verdict(1, Outcome::Done, 2), beside(2, 2)]);
    story.when(spawned_at(2, 2)).when(ready_at(2, 2)).when(spawned_at(2, 3));
    let both = [verdict(2, Outcome::Done, 2), verdict(3, Outcome::Done, 2)];
    story.when(ready_at(2, 3)).then(&both);
}

#[test]
fn one_that_cannot_join_is_not_tried_again_and_the_others_serve_on() {
    let mut story = serving(1);
    story.when(scale(1, Scale::To(3)));
    story.when(spawned_at(1, 2));
    story.when(exited_at(1, 2)).then(&[Action::Bury(at(1, 2))]).serves(Some(1));
    story.when(spawned_at(1, 3));
    story.when(ready_at(1, 3)).then(&[verdict(1, Outcome::Kept, 1)]);
    assert_eq!(story.reason(), "instance 2 exited with code 1; 2 instances serve");
    assert_eq!(story.wakes_in(), None);
    story.when(reload());
    come(&mut story, 2, 1..=2);
    story.serves(Some(2));
}

#[test]
fn one_that_was_there_before_and_dies_meanwhile_is_started_again() {
    let mut story = serving(2);
    story.when(scale(1, Scale::To(3))).when(spawned_at(1, 3));
    story.when(exited_at(1, 1)).then(&[Action::Bury(at(1, 1)), beside(1, 1)]);
    story.when(ready_at(1, 3)).then(&[]);
    story.when(spawned_at(1, 1));
    story.when(ready_at(1, 1)).then(&[verdict(1, Outcome::Done, 1)]);
}

#[test]
fn who_asked_for_more_is_told_when_that_generation_serves_no_more() {
    let mut story = serving(1);
    story.when(scale(1, Scale::To(2))).when(spawned_at(1, 2));
    let told = verdict(1, Outcome::Failed, None);
    story.when(exited_at(1, 1)).then(&[told, Action::Bury(at(1, 1)), spawn_at(1, 1, Place::Steered)]).serves(None);
    story.when(spawned_at(1, 1)).when(ready_at(1, 1)).when(ready_at(1, 2)).serves(Some(1));
}

#[test]
fn while_nothing_serves_it_is_noted_for_the_next_start() {
    let mut story = serving(1);
    story.when(exited(1)).when(spawned(2)).when(exited(2));
    story.when(scale(1, Scale::To(2))).then(&[verdict(1, Outcome::Done, None)]);
    story.after(Duration::from_millis(100)).then(&[spawn_at(3, 1, Place::Steered)]);
    story.when(spawned_at(3, 1)).then(&[Action::Probe(at(3, 1)), spawn_at(3, 2, Place::Steered)]);
}

#[test]
fn before_anything_was_started_and_after_a_stop_it_is_refused() {
    let mut story = Story::new();
    story.when(scale(1, Scale::To(2))).then(&[verdict(1, Outcome::Failed, None)]);
    let mut story = serving(1);
    story.when(Event::Stop { ticket: Ticket(9) });
    story.when(scale(1, Scale::To(2))).then(&[verdict(1, Outcome::Failed, None)]);
}
