//! A reload: the new one beside the old, proved, moved over; and who is told what.

use std::process::Child;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::{Setup, Told, in_seat, sample};
use crate::refusal::{load, nothing_lost};

#[test]
fn a_reload_replaces_the_generation_once_the_new_one_is_ready() {
    let zdr = Setup::of(&sample(&[])).option("--ready", "/health").start();
    assert!(zdr.get("/").contains("generation 1"));
    let told = zdr.reload();
    assert_eq!(told.code, 0, "{told:?}");
    assert!(zdr.get("/").contains("generation 2"));
    zdr.wait_until("the old one to drain", |status| in_seat(status, "draining").is_none());
}

#[test]
fn reloads_under_load_lose_nothing() {
    let zdr = Setup::of(&sample(&["--work", "5ms"])).option("--ready", "/health").option("--bake", "50ms").start();
    let load = load(&zdr, 4, 4);
    for generation in 2..12 {
        assert_eq!(zdr.reload().code, 0);
        assert_eq!(zdr.serving(), Some(generation));
    }
    nothing_lost(&zdr, load);
}

#[test]
fn reloads_of_a_server_that_dies_at_once_lose_no_new_connection() {
    let zdr =
        Setup::of(&sample(&["--work", "10ms", "--abrupt"])).option("--ready", "/health").option("--bake", "0s").start();
    let load = load(&zdr, 6, 0);
    for _ in 0..10 {
        assert_eq!(zdr.reload().code, 0);
    }
    nothing_lost(&zdr, load);
}

#[test]
fn hup_and_usr1_reload_and_usr2_restarts() {
    let zdr = Setup::of(&sample(&[])).start();
    for (generation, signal) in (2..).zip([Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2]) {
        zdr.signal(signal);
        zdr.wait_until("the next generation", |status| in_seat(status, "serving") == Some(generation));
        assert!(zdr.get("/").contains(&format!("generation {generation},")));
    }
}

#[test]
fn a_new_command_is_what_later_reloads_use_and_one_that_failed_is_not() {
    let zdr = Setup::of(&sample(&["--bad", "status:201"]))
        .option("--ready", "/health")
        .option("--ready-timeout", "2s")
        .start();
    assert!(zdr.get("/health").starts_with("201"));
    assert_eq!(zdr.reload_to(&sample(&["--bad", "status:202"])).code, 0);
    assert_eq!(zdr.reload().code, 0);
    assert!(zdr.get("/health").starts_with("202 from generation 3,"));
    assert_eq!(zdr.reload_to(&sample(&["--bad", "exit:1"])).code, 3);
    assert_eq!(zdr.reload().code, 0);
    assert!(zdr.get("/health").starts_with("202"));
}

fn outcome(child: Child) -> Told {
    child.wait_with_output().unwrap().into()
}

#[test]
fn many_who_ask_at_once_are_all_told_and_become_few_reloads() {
    let zdr =
        Setup::of(&sample(&["--start-after", "300ms"])).option("--ready", "/health").option("--bake", "0s").start();
    let asking: Vec<Child> = (0..20).map(|_| zdr.client_in_background(&["reload"])).collect();
    for child in asking {
        let told = outcome(child);
        assert_eq!(told.code, 0, "{told:?}");
    }
    let generation = zdr.serving().unwrap();
    assert!((2..=8).contains(&generation), "{generation}");
}

#[test]
fn a_reload_asked_for_while_one_starts_gets_its_own_verdict() {
    let zdr = Setup::of(&sample(&[])).option("--ready", "/health").option("--ready-timeout", "1s").start();
    let words: Vec<String> =
        ["reload", "--"].map(str::to_owned).into_iter().chain(sample(&["--bad", "hang"])).collect();
    let first = zdr.client_in_background(&words);
    zdr.wait_until("the first to start", |status| in_seat(status, "starting") == Some(2));
    let second = zdr.reload_to(&sample(&[]));
    assert_eq!(second.code, 0, "{second:?}");
    assert!(second.out.contains("generation 3 serves"), "{second:?}");
    let first = outcome(first);
    assert_eq!(first.code, 3, "{first:?}");
    assert!(first.error.contains("generation 2 was not ready"), "{first:?}");
}

#[test]
fn the_last_command_asked_for_is_the_one_that_runs() {
    let zdr = Setup::of(&sample(&["--start-after", "2s"])).option("--ready", "/health").start();
    let first = zdr.client_in_background(&["reload"]);
    zdr.wait_until("the first to start", |status| in_seat(status, "starting") == Some(2));
    for code in ["201", "202", "203"] {
        let words = ["reload", "--no-wait", "--"].map(str::to_owned);
        let words: Vec<String> = words.into_iter().chain(sample(&["--bad", &format!("status:{code}")])).collect();
        assert_eq!(zdr.client(&words).code, 0);
    }
    assert_eq!(outcome(first).code, 0);
    zdr.wait_until("the last", |status| in_seat(status, "serving") == Some(3));
    assert!(zdr.get("/health").starts_with("203 from generation 3,"));
}

#[test]
fn who_does_not_wait_is_answered_at_once_and_the_reload_goes_on() {
    let zdr = Setup::of(&sample(&["--start-after", "400ms"])).start();
    let begun = Instant::now();
    let told = zdr.client(&["reload", "--no-wait"]);
    assert_eq!(told.code, 0, "{told:?}");
    assert!(begun.elapsed() < Duration::from_millis(400));
    zdr.wait_until("the new generation", |status| in_seat(status, "serving") == Some(2));
}

#[test]
fn who_waits_no_longer_is_told_so_and_the_reload_goes_on() {
    let zdr = Setup::of(&sample(&["--start-after", "700ms"])).start();
    let told = zdr.client(&["reload", "--timeout", "100ms"]);
    assert_eq!(told.code, 1, "{told:?}");
    assert_eq!(told.error.trim(), "zdr: no verdict in the time given; it goes on, `zdr status` shows how");
    zdr.wait_until("the new generation", |status| in_seat(status, "serving") == Some(2));
}

#[test]
fn who_waits_until_drained_is_told_when_the_old_one_is_gone() {
    let zdr = Setup::of(&sample(&[])).option("--bake", "300ms").start();
    let old = zdr.server_pid();
    let told = zdr.client(&["reload", "--wait", "drained"]);
    assert_eq!(told.code, 0, "{told:?}");
    assert!(!zdr.processes().contains(&old));
    assert_eq!(in_seat(&zdr.status(), "draining"), None);
    assert!(told.out.contains("generation 2 serves and generation 1 is gone"), "{told:?}");
}

#[test]
fn progress_is_told_line_by_line_for_people_and_for_programs() {
    let zdr = Setup::of(&sample(&[])).option("--ready", "/health").start();
    let told = zdr.reload();
    let lines: Vec<&str> = told.out.lines().collect();
    assert!(lines[0].starts_with("generation 2 started as process "), "{told:?}");
    assert!(lines.last().unwrap().starts_with("generation 2 serves after "), "{told:?}");
    assert!(!told.out.contains('\x1b'));

    let told = zdr.client(&["reload", "--json"]);
    let events: Vec<Value> = told.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let verdict = events.last().unwrap();
    assert_eq!(events[0]["event"], "spawned");
    assert_eq!(
        (&verdict["event"], &verdict["code"], &verdict["generation"]),
        (&"verdict".into(), &0.into(), &3.into())
    );
    assert_eq!(verdict["outcome"], "done");
}

#[test]
fn a_failure_is_told_to_programs_in_full() {
    let zdr = Setup::of(&sample(&[])).start();
    let words: Vec<String> =
        ["reload", "--json", "--"].map(str::to_owned).into_iter().chain(sample(&["--bad", "exit:4"])).collect();
    let told = zdr.client(&words);
    assert_eq!(told.code, 3, "{told:?}");
    let verdict: Value = serde_json::from_str(told.out.lines().last().unwrap()).unwrap();
    assert_eq!((&verdict["code"], verdict["outcome"].as_str()), (&3.into(), Some("kept")));
    assert!(verdict["reason"].as_str().unwrap().contains("exited with code 4"), "{verdict}");
}
