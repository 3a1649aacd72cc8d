//! New connections are held back, and let go.

use super::*;

const A_WHILE: Duration = Duration::from_secs(30);

fn pause(ticket: u64) -> Event {
    Event::Pause { ticket: Ticket(ticket), time: A_WHILE }
}

fn resume(ticket: u64) -> Event {
    Event::Resume { ticket: Ticket(ticket) }
}

fn paused() -> Story {
    let mut story = Story::serving();
    story.when(pause(1)).then(&[Action::Pause(Generation(2))]);
    story.when(Event::Held { told: Ok(Vec::new()) }).then(&[verdict(1, Outcome::Done, None)]).serves(Some(1));
    story
}

fn is_paused(story: &Story) -> bool {
    story.supervisor.status(story.now).paused_secs.is_some()
}

#[test]
fn a_pause_holds_new_connections_until_somebody_resumes() {
    let mut story = paused();
    assert!(is_paused(&story));
    story.when(resume(2)).then(&[Action::Resume, look_behind(2), verdict(2, Outcome::Done, None)]);
    assert!(!is_paused(&story));
    story.when(left(2, 0)).then(&[release(2)]).serves(Some(1));
    assert_eq!(story.wakes_in(), None);
}

#[test]
fn what_has_waited_is_finished_by_one_more_instance_of_what_serves() {
    let mut story = paused();
    story.when(resume(2));
    let (place, like) = (Place::Of(Generation(2)), Some(Generation(1)));
    let finisher = Action::Spawn { instance: first(3), command: command("server"), place, like };
    story.when(left(2, 7)).then(&[finisher]).serves(Some(1));
    story.when(spawned(3)).then(&[quiesce(3), release(2)]);
    story.when(quiet(3)).then(&[signal(3)]);
    story.when(exited(3)).then(&[kill(3), release(3)]).serves(Some(1));
}

#[test]
fn nobody_is_held_longer_than_was_asked_for() {
    let mut story = paused();
    assert_eq!(story.wakes_in(), Some(A_WHILE));
    story.after(A_WHILE).then(&[Action::Resume, look_behind(2)]);
    assert!(!is_paused(&story));
}

#[test]
fn a_second_pause_only_sets_another_time() {
    let mut story = paused();
    story.after(A_WHILE / 2);
    story.when(pause(2)).then(&[verdict(2, Outcome::Done, None)]);
    assert_eq!(story.wakes_in(), Some(A_WHILE));
}

#[test]
fn a_reload_during_a_pause_goes_on_and_new_connections_stay_held() {
    let mut story = paused();
    story.when(reload_by(2)).then(&[spawn(3)]);
    story.when(spawned(3));
    story.when(ready(3)).then(&[steer(3), quiesce(1), verdict(2, Outcome::Done, 3)]).serves(Some(3));
    assert!(is_paused(&story));
    story.when(resume(3)).when(left(2, 1));
    assert!(
        matches!(story.done[..], [Action::Spawn { like: Some(Generation(3)), .. }, Action::Remember(_)]),
        "{:?}",
        story.done
    );
}

#[test]
fn a_stop_lets_them_go_first_and_waits_for_whoever_answers_them() {
    let mut story = paused();
    story.when(Event::Stop { ticket: Ticket(2) });
    story.then(&[Action::Resume, look_behind(2), Action::Hold, quiesce(1)]);
    story.when(quiet(1)).when(exited(1)).then(&[kill(1), release(1)]);
    story.when(left(2, 1)).when(spawned(3)).then(&[quiesce(3), release(2)]);
    story.when(quiet(3)).then(&[signal(3)]);
    story.when(exited(3)).then(&[kill(3), release(3), verdict(2, Outcome::Done, None), Action::Exit(0)]);
}

#[test]
fn where_nothing_is_held_a_resume_is_done_and_where_nothing_serves_a_pause_is_not() {
    let mut story = Story::serving();
    story.when(resume(1)).then(&[verdict(1, Outcome::Done, None)]);
    assert_eq!(story.answered(), "new connections were not held");
    story.when(exited(1)).when(pause(2)).then(&[verdict(2, Outcome::Failed, None)]);
    assert!(!is_paused(&story));
}
