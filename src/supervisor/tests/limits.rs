//! How much, how long and how often: what is replaced when it has reached a limit.

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

fn too_large(generation: u64, number: u32) -> Event {
    Event::TooLarge { instance: at(generation, number), why: "uses 600 MiB, more than its 512 MiB".to_owned() }
}

fn ended_well(generation: u64) -> Event {
    Event::Exited { instance: first(generation), exit: Exit::Code(0) }
}

#[test]
fn one_that_has_grown_too_large_is_replaced_by_one_that_starts_beside_it() {
    let mut story = Story::serving();
    story.when(too_large(1, 1)).then(&[spawn(2)]).serves(Some(1));
    assert_eq!(story.told(), ["generation 1 uses 600 MiB, more than its 512 MiB"]);
    story.when(too_large(1, 1)).then(&[]);
    story.when(spawned(2));
    assert_eq!(story.told(), ["generation 2 started as process 1002 in place of one that uses too much memory"]);
    story.when(ready(2)).then(&[steer(2), quiesce(1)]).serves(Some(2));
    assert_eq!(story.supervisor.goal_of_rollback(), None, "it is no other release");
}

#[test]
fn one_of_several_that_is_too_large_is_named() {
    let mut story = Story::serving_by(Policy { instances: 2, ..policy() });
    story.when(too_large(1, 2)).then(&[spawn_at(2, 1, Place::Beside)]);
    let wanted = "generation 1 has an instance 2 that uses 600 MiB, more than its 512 MiB";
    assert_eq!(story.told(), [wanted]);
}

#[test]
fn a_generation_that_is_too_large_soon_after_another_was_is_replaced_after_a_pause() {
    let mut story = Story::serving();
    for event in [too_large(1, 1), spawned(2), ready(2)] {
        story.when(event);
    }
    story.when(too_large(2, 1)).then(&[]);
    assert_eq!(story.wakes_in(), Some(Duration::from_millis(100)));
    story.after(Duration::from_millis(100)).then(&[spawn(3)]);
}

#[test]
fn one_that_has_lived_as_long_as_it_may_is_replaced_and_so_is_the_next() {
    let lifetime = Lifetime { time: DAY, jitter: Duration::ZERO };
    let mut story = Story::serving_by(Policy { max_lifetime: Some(lifetime), ..policy() });
    for generation in 1..4 {
        assert_eq!(story.wakes_in(), Some(DAY));
        story.after(DAY).then(&[spawn(generation + 1)]).serves(Some(generation));
        let wanted = format!("generation {generation} has served for 1day, as long as it may");
        assert_eq!(story.told(), [wanted]);
        for event in [spawned(generation + 1), ready(generation + 1), quiet(generation), exited(generation)] {
            story.when(event);
        }
        story.when(left(generation, 0)).serves(Some(generation + 1));
    }
}

#[test]
fn lifetimes_vary_by_chance_within_what_was_asked_for() {
    let lifetime = Lifetime { time: DAY, jitter: DAY / 2 };
    let policy = Policy { max_lifetime: Some(lifetime), ..policy() };
    let mut story = Story::with(policy);
    let plan = story.settings.clone();
    let lifetime_of = |generation| story.supervisor.lifetime_of(Generation(generation), &plan);
    let seen: Vec<Duration> = (1..=200).filter_map(lifetime_of).collect();
    let (least, most) = (seen.iter().min().unwrap(), seen.iter().max().unwrap());
    assert!(*least >= DAY && *most <= DAY * 3 / 2, "{least:?} {most:?}");
    assert!(*most > *least + DAY / 3, "hardly any difference: {least:?} {most:?}");
    story.supervisor = Supervisor::new(8);
    assert_ne!(story.supervisor.lifetime_of(Generation(1), &plan), Some(seen[0]), "another zdr, another chance");
}

#[test]
fn nothing_is_replaced_while_zdr_stops() {
    let lifetime = Lifetime { time: DAY, jitter: Duration::ZERO };
    let policy = Policy { max_lifetime: Some(lifetime), lame_duck: 2 * DAY, ..policy() };
    let mut story = Story::serving_by(policy);
    story.when(Event::Stop { ticket: Ticket(1) }).when(too_large(1, 1)).then(&[]);
    story.after(DAY).then(&[]);
    assert_eq!(story.wakes_in(), Some(DAY));
}

#[test]
fn what_is_not_to_be_started_again_ends_zdr_with_its_code() {
    for (restart, exit, code) in [
        (Restart::Never, Exit::Code(0), 0),
        (Restart::Never, Exit::Code(3), 3),
        (Restart::Never, Exit::Signal(9), 137),
        (Restart::OnFailure, Exit::Code(0), 0),
    ] {
        let mut story = Story::serving_by(Policy { restart, ..policy() });
        let exited = Event::Exited { instance: first(1), exit };
        story.when(exited).then(&[kill(1), release(1), Action::Exit(code)]);
    }
    for exit in [Exit::Code(3), Exit::Signal(9)] {
        let mut story = Story::serving_by(Policy { restart: Restart::OnFailure, ..policy() });
        let exited = Event::Exited { instance: first(1), exit };
        story.when(exited).then(&[kill(1), release(1), spawn_steered(2)]);
    }
}

#[test]
fn zdr_ends_with_the_last_of_several_that_are_not_started_again() {
    let mut story = Story::serving_by(Policy { restart: Restart::OnFailure, instances: 2, ..policy() });
    story.when(ended_well(1)).then(&[Action::Bury(first(1))]).serves(Some(1));
    assert_eq!(story.wakes_in(), None);
    let last = Event::Exited { instance: at(1, 2), exit: Exit::Code(0) };
    story.when(last).then(&[kill(1), release(1), Action::Exit(0)]);
}

#[test]
fn a_reload_that_is_under_way_goes_on_where_the_old_one_is_not_started_again() {
    let mut story = Story::serving_by(Policy { restart: Restart::Never, ..policy() });
    story.when(reload()).when(spawned(2));
    story.when(exited(1)).then(&[steer(2), kill(1), look_behind(1)]);
    story.when(ready(2)).then(&[steer(2), verdict(1, Outcome::Done, 2)]).serves(Some(2));
}

#[test]
fn when_the_restarts_are_used_up_zdr_ends_with_the_code_of_the_last() {
    let budget = Budget { restarts: 2, window: Duration::from_secs(60) };
    let mut story = Story::serving_by(Policy { max_restarts: Some(budget), ..policy() });
    for generation in 1..3 {
        story.after(STEADY);
        story.when(exited(generation)).when(spawned(generation + 1)).when(ready(generation + 1));
    }
    story.after(STEADY).serves(Some(3));
    let last = Event::Exited { instance: first(3), exit: Exit::Code(7) };
    story.when(last).then(&[kill(3), release(3), Action::Exit(7)]);
}

#[test]
fn restarts_of_long_ago_do_not_count() {
    let budget = Budget { restarts: 2, window: Duration::from_secs(60) };
    let mut story = Story::serving_by(Policy { max_restarts: Some(budget), ..policy() });
    for generation in 1..8 {
        story.after(Duration::from_secs(31));
        story.when(exited(generation)).when(spawned(generation + 1));
        story.when(ready(generation + 1)).serves(Some(generation + 1));
    }
}

#[test]
fn used_up_restarts_of_one_of_several_end_zdr_in_good_order() {
    let budget = Budget { restarts: 1, window: Duration::from_secs(60) };
    let mut story = Story::serving_by(Policy { max_restarts: Some(budget), instances: 2, ..policy() });
    story.when(exited_at(1, 1)).when(spawned_at(1, 1)).when(ready_at(1, 1));
    story.when(exited_at(1, 2)).then(&[Action::Bury(at(1, 2)), Action::Hold, quiesce(1)]).serves(None);
    story.when(quiet(1)).then(&[signal(1)]);
    story.when(exited_at(1, 1)).then(&[kill(1), release(1), Action::Exit(1)]);
}

#[test]
fn one_that_served_a_shorter_time_than_it_must_is_started_again_after_a_pause() {
    let (minute, nearly) = (Duration::from_secs(60), Duration::from_secs(59));
    let mut story = Story::serving_by(Policy { min_uptime: minute, ..policy() });
    story.when(exited(1)).then(&[kill(1), release(1), spawn_steered(2)]);
    story.when(spawned(2)).when(ready(2)).after(nearly);
    story.when(exited(2)).then(&[kill(2), release(2)]);
    assert_eq!(story.wakes_in(), Some(Duration::from_millis(100)));
    story.after(Duration::from_millis(100)).when(spawned(3)).when(ready(3)).after(minute);
    story.when(exited(3)).then(&[kill(3), release(3), spawn_steered(4)]);
}
