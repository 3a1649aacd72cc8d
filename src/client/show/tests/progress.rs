//! What people see of an order until its verdict.

use std::time::Duration;

use serde_json::{Value, json};

use super::super::{Progress, Screen};
use super::{PAPER, TERMINAL};

/// What a progress writes of these lines, a tenth of a second apart.
fn progress(screen: Screen, told: &[Value]) -> String {
    let mut out = Vec::new();
    let mut progress = Progress::new(&mut out, Some(screen));
    for (tenths, told) in (0..).zip(told) {
        progress.show("", told, Duration::from_millis(100 * tenths));
    }
    progress.end();
    String::from_utf8(out).unwrap()
}

fn failed_reload() -> Vec<Value> {
    vec![
        json!({ "event": "spawned", "generation": 2, "message": "generation 2 started as process 7" }),
        json!({ "event": "not_ready", "generation": 2, "message": "generation 2 is not ready yet: 503" }),
        json!({ "event": "failed", "generation": 2, "message": "generation 2 exited", "output": ["oh"] }),
        json!({ "event": "verdict", "code": 3, "message": "generation 2 exited", "output": ["oh"] }),
    ]
}

#[test]
fn progress_off_a_terminal_is_plain_lines() {
    let wanted = "generation 2 started as process 7\ngeneration 2 is not ready yet: 503\n";
    assert_eq!(progress(PAPER, &failed_reload()), wanted);
}

#[test]
fn progress_on_a_terminal_has_times_and_writes_over_what_passes() {
    let wanted = "+0.0s   generation 2 started as process 7\n\r+0.1s   generation 2 is not ready yet: 503\u{1b}[K\n";
    assert_eq!(progress(TERMINAL, &failed_reload()), wanted);
    let drain = |open| json!({ "event": "draining", "open": open, "message": format!("{open} connections left") });
    let end = json!({ "event": "ended", "message": "generation 1 ended" });
    let wanted = "\r+0.0s   40 connections left  ░░░░░░░░░░░░░░░░░░░░\u{1b}[K\
                  \r+0.1s   10 connections left  ███████████████░░░░░\u{1b}[K\
                  \r+0.2s   0 connections left  ████████████████████\u{1b}[K\
                  \r\u{1b}[K+0.3s   generation 1 ended\n";
    assert_eq!(progress(TERMINAL, &[drain(40), drain(10), drain(0), end]), wanted);
}

/// The start of so many instances, one after the other.
fn instances(of: u64) -> Vec<Value> {
    let spawned = |number| json!({ "event": "spawned", "generation": 2, "instance": number, "of": of, "message": format!("instance {number} of generation 2 started") });
    let ready = |number| json!({ "event": "instance_ready", "generation": 2, "instance": number, "ready": number, "of": of, "message": format!("instance {number} is ready") });
    let end = json!({ "event": "serving", "generation": 2, "message": "generation 2 serves after 0.1s" });
    (1..=of).map(spawned).chain((1..=of).map(ready)).chain([end]).collect()
}

#[test]
fn many_instances_that_start_are_one_line_on_a_terminal_and_a_line_each_elsewhere() {
    let text = progress(TERMINAL, &instances(64));
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.contains("\r+0.0s   instance 1 of generation 2 started\u{1b}[K\r"), "{text}");
    assert!(
        text.contains("+9.5s   generation 2: 32 of 64 instances are ready  ██████████░░░░░░░░░░\u{1b}[K\r"),
        "{text}"
    );
    assert!(text.ends_with("\r\u{1b}[K+12.8s  generation 2 serves after 0.1s\n"), "{text}");
    assert_eq!(progress(PAPER, &instances(64)).lines().count(), 129);
}

#[test]
fn an_instance_that_is_lost_is_shown_with_what_it_wrote() {
    let lost = json!({ "event": "instance_lost", "message": "instance 2 exited; 3 others serve", "output": ["oh"] });
    assert_eq!(progress(PAPER, &[lost]), "instance 2 exited; 3 others serve\n  | oh\n");
}

#[test]
fn settings_that_are_refused_are_told_once_by_the_verdict() {
    let told = [
        json!({ "event": "refused", "message": "zdr.toml:3: no; generation 1 serves on" }),
        json!({ "event": "verdict", "code": 3, "message": "zdr.toml:3: no; generation 1 serves on" }),
    ];
    assert_eq!(progress(PAPER, &told), "");
}

#[test]
fn the_time_of_the_passing_line_goes_on() {
    let mut out = Vec::new();
    let mut progress = Progress::new(&mut out, Some(Screen { columns: 30, ..TERMINAL }));
    assert_eq!(progress.pace(), None);
    progress.show("", &failed_reload()[1], Duration::ZERO);
    assert!(progress.pace().is_some());
    progress.tick(Duration::from_millis(2345));
    progress.end();
    let text = String::from_utf8(out).unwrap();
    assert!(text.ends_with("\r+2.3s   generation 2 is not…\u{1b}[K\n"), "{text:?}");
}

#[test]
fn a_failure_that_is_not_ours_is_told_with_what_was_written() {
    let mut told = failed_reload();
    told[3] = json!({ "event": "verdict", "code": 0, "message": "generation 3 serves" });
    let text = progress(PAPER, &told);
    assert!(text.ends_with("503\ngeneration 2 exited\n  | oh\ngeneration 3 serves\n"), "{text}");
}

#[test]
fn an_order_as_json_is_passed_on_as_it_is() {
    let mut out = Vec::new();
    let mut progress = Progress::new(&mut out, None);
    progress.show("{\"event\":\"x\"}", &json!({ "event": "x" }), Duration::ZERO);
    progress.end();
    assert_eq!(String::from_utf8(out).unwrap(), "{\"event\":\"x\"}\n");
}
