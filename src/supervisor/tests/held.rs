//! Whether new connections can be held, and who is told.

use super::*;

fn pause(ticket: u64, seconds: u64) -> Event {
    Event::Pause { ticket: Ticket(ticket), time: Duration::from_secs(seconds) }
}

#[test]
fn whoever_wants_a_pause_is_told_once_it_is_there_and_what_is_left_out() {
    let mut story = Story::serving();
    story.when(pause(1, 60)).then(&[Action::Pause(Generation(2))]);
    let apart = "listener `x` cannot be paused".to_owned();
    let reason = |time: &str| format!("new connections are held for at most {time}; {apart}");
    story.when(Event::Held { told: Ok(vec![apart.clone()]) }).then(&[verdict(1, Outcome::Done, None)]);
    assert_eq!(story.answered(), reason("1m"));
    // Longer: nothing is to be done for that.
    story.when(pause(2, 120)).then(&[verdict(2, Outcome::Done, None)]);
    assert_eq!((story.answered(), story.wakes_in()), (reason("2m").as_str(), Some(Duration::from_secs(120))));
}

#[test]
fn a_pause_that_cannot_be_had_is_none() {
    let mut story = Story::serving();
    story.when(pause(1, 60));
    let held = Event::Held { told: Err("too many open files".to_owned()) };
    story.when(held).then(&[verdict(1, Outcome::Failed, None)]);
    assert_eq!(story.answered(), "new connections cannot be held: too many open files");
    assert_eq!(story.wakes_in(), None);
    story.when(pause(2, 60)).then(&[Action::Pause(Generation(3))]);
}
