//! The very text that people see.

mod progress;

use serde_json::{Value, json};
use unicode_width::UnicodeWidthStr;

use super::screen::{clean, cut, wrap};
use super::{Screen, Story, health_line, list_text, status_text, without_times};

const PAPER: Screen = Screen { terminal: false, colour: false, columns: 80, rows: None };
const TERMINAL: Screen = Screen { terminal: true, colour: false, columns: 80, rows: Some(24) };

fn full() -> Value {
    json!({
        "status": "degraded", "live": true, "ready": true, "started": true, "state": "reloading", "name": "shop",
        "version": "0.1.0", "pid": 4711, "uptime_secs": 93_784.2, "generation": 4, "config_version": 1,
        "instances": 1, "draining": 1, "in_flight": 3, "connections": 47, "memory_bytes": 129_394_278,
        "cpu_secs": 12.34, "crashes": 2,
        "generations": [
            { "generation": 6, "seat": "starting", "pid": 5200, "since_secs": 0.34, "connections": 0, "in_flight": 0,
              "status_text": "warming up the cache, 40 % of 120,000 pages are there, about 4 s are left for the rest of them",
              "command": ["/srv/shop/2.2/shop", "--port", "8080", "--workers", "16"] },
            { "generation": 4, "seat": "serving", "pid": 5100, "since_secs": 754.0, "connections": 45, "in_flight": 3,
              "status_text": null, "command": ["/srv/shop/2.1/shop"] },
            { "generation": 3, "seat": "draining", "pid": null, "since_secs": 12.0, "connections": 2, "in_flight": 0,
              "status_text": "", "command": ["/srv/shop/2.0/shop"] }
        ],
        "listeners": [
            { "name": "main", "address": "tcp://0.0.0.0:8080", "slots": 3, "queue": 7, "queue_limit": 4096, "overflows": 12 },
            { "name": "admin-of-shop", "address": "unix:/run/shop.sock", "slots": 1, "queue": 0, "queue_limit": 4096, "overflows": 0 }
        ],
        "checks": {
            "serving": { "state": "healthy", "message": "generation 4 serves", "critical": true, "age_secs": 0.0 },
            "disk": { "state": "healthy", "message": "61 % free", "critical": false, "age_secs": 3.0 },
            "データ": { "state": "degraded", "critical": false, "age_secs": 1.0,
                "message": "the replica in the other data centre is 94 s behind, more than the 60 s that are allowed" },
            "database": { "state": "unhealthy", "message": "connection refused", "critical": true, "age_secs": 1.0 },
            "last_reload": { "state": "degraded", "critical": false, "age_secs": 0.0,
                "message": "generation 5 exited with code 1 before it was ready; generation 4 serves on" }
        },
        "last_verdict": { "outcome": "kept", "cause": "exited", "generation": 5,
            "reason": "generation 5 exited with code 1 before it was ready; generation 4 serves on",
            "output": ["Traceback (most recent call last):", "  File \"shop.py\", line 3", "\u{1b}[31mImportError: 森\u{7}"] }
    })
}

#[test]
fn the_whole_picture_fits_on_eighty_columns_and_says_first_what_is_wrong() {
    let text = status_text(&full(), TERMINAL);
    let wanted = "\
shop: reloading, degraded                        zdr 0.1.0, pid 4711, up 1day 2h
  generation 4 has served for 12m 34s: 47 connections, 3 in flight, 7 waiting,
  123.4 MiB, 12.3s of cpu
  2 crashes

  unhealthy  database  connection refused
  degraded   データ    the replica in the other data centre is 94 s behind, more
                       than the 60 s that are allowed

  last verdict: kept
    generation 5 exited with code 1 before it was ready; generation 4 serves on
    | Traceback (most recent call last):
    |   File \"shop.py\", line 3
    | ImportError: 森

  GENERATION  SEAT      FOR      PID   OPEN  IN FLIGHT  COMMAND
           6  starting  0.3s     5200     0          0  /srv/shop/2.2/shop --po…
              warming up the cache, 40 % of 120,000 pages are there, about 4 s
              are left for the rest of them
           4  serving   12m 34s  5100    45          3  /srv/shop/2.1/shop
           3  draining  12s               2          0  /srv/shop/2.0/shop

  main           tcp://0.0.0.0:8080   12 refused, 7 of 4096 waiting, 3 slots
  admin-of-shop  unix:/run/shop.sock  1 slot

  healthy    disk  61 % free
";
    assert_eq!(text, wanted);
}

/// A generation with so many instances that serve, but for the last two.
fn crowd(of: u32) -> Value {
    let state = |number: u32| match of - number {
        0 => ("waiting", Value::Null),
        1 => ("starting", Value::from(5000 + number)),
        _ => ("serving", Value::from(5000 + number)),
    };
    let instance = |number| json!({ "instance": number, "state": state(number).0, "pid": state(number).1 });
    let all: Vec<Value> = (1..=of).map(instance).collect();
    json!({ "name": "shop", "state": "serving", "version": "0.1.0", "paused_secs": 24.3,
        "rollback": { "generation": 3, "warm": true }, "last_verdict": null,
        "checks": { "serving": { "state": "degraded", "message": "new connections are held", "critical": true } },
        "generations": [
            { "generation": 4, "seat": "serving", "pid": 5001, "since_secs": 754.0, "connections": 45, "in_flight": 3,
              "config_version": 2, "status_text": "all is well", "command": ["./shop"], "instances": all },
            { "generation": 3, "seat": "draining", "pid": 4001, "since_secs": 12.0, "connections": 2, "in_flight": 0,
              "config_version": 1, "command": ["./shop"],
              "instances": [{ "instance": 1, "state": "draining", "pid": 4001 }] } ] })
}

#[test]
fn a_few_instances_stand_below_their_generation_with_what_matters_of_a_pause_and_a_rollback() {
    let wanted = "\
shop: serving                                                          zdr 0.1.0
  generation 4 has served for 12m 34s
  new connections are held, for 24s more at most

  GENERATION  SEAT      FOR      PID   CONFIG  OPEN  IN FLIGHT  COMMAND
           4  serving   12m 34s             2    45          3  ./shop
              all is well
         4.1  serving            5001
         4.2  starting           5002
         4.3  waiting
           3  draining  12s      4001       1     2          0  ./shop

  rollback: to generation 3, which is kept warm
";
    assert_eq!(status_text(&crowd(3), TERMINAL), wanted);
}

#[test]
fn a_mistake_in_a_file_is_shown_with_its_lines() {
    let reason = "there is no key `nope`\n --> zdr.toml:6:1\n  |\n6 | nope=1\n  | ^^^^\ngeneration 1 serves on";
    let status = json!({ "last_verdict": { "outcome": "kept", "reason": reason, "output": [] } });
    let wanted = "
  last verdict: kept
    there is no key `nope`
     --> zdr.toml:6:1
      |
    6 | nope=1
      | ^^^^
    generation 1 serves on
";
    let text = status_text(&status, TERMINAL);
    assert!(text.contains(wanted), "{text}");
}

#[test]
fn of_many_instances_it_is_counted_what_they_do() {
    let wanted = "
           4  serving   12m 34s             2    45          3  ./shop
              64 instances: 62 serving, 1 starting, 1 waiting
              all is well
           3  draining  12s      4001       1     2          0  ./shop
";
    let text = status_text(&crowd(64), TERMINAL);
    assert!(text.contains(wanted), "{text}");
    let mut cold = crowd(64);
    cold["rollback"]["warm"] = false.into();
    assert!(status_text(&cold, TERMINAL).ends_with("  rollback: to generation 3, which is started again as it was\n"));
}

#[test]
fn no_line_is_wider_than_the_screen_however_narrow_that_is() {
    for columns in 20..200 {
        for line in status_text(&full(), Screen { columns, ..TERMINAL }).lines() {
            // Where there is hardly a place for text behind a heading, the heading is not broken.
            assert!(line.width() <= columns.max(40), "{columns}: {line}");
        }
    }
}

#[test]
fn colour_changes_nothing_but_colour() {
    let coloured = status_text(&full(), Screen { colour: true, ..TERMINAL });
    assert_eq!(anstream::adapter::strip_str(&coloured).to_string(), status_text(&full(), TERMINAL));
    for painted in [
        "\u{1b}[1mshop\u{1b}[0m: \u{1b}[36mreloading\u{1b}[0m, \u{1b}[33mdegraded\u{1b}[0m",
        "\u{1b}[31m  unhealthy  database  \u{1b}[0mconnection refused",
        "last verdict: \u{1b}[33mkept\u{1b}[0m",
        "\u{1b}[32mserving\u{1b}[0m",
        "\u{1b}[2m| \u{1b}[0mImportError",
    ] {
        assert!(coloured.contains(painted), "{painted:?}: {coloured:?}");
    }
}

#[test]
fn a_picture_without_any_of_its_fields_is_still_shown() {
    assert_eq!(status_text(&json!({}), PAPER).lines().next(), Some(format!("?: ?{}zdr ?", " ".repeat(71)).as_str()));
    let old = json!({ "name": "shop", "state": "serving", "pid": 1, "version": "0.1.0", "uptime_secs": 1.0,
        "generations": [{ "generation": 1, "seat": "serving", "pid": 2, "since_secs": 1.0 }],
        "listeners": [{ "name": "main", "address": "127.0.0.1:1" }], "last_verdict": null });
    let wanted = "\
shop: serving                                          zdr 0.1.0, pid 1, up 1.0s
  generation 1 has served for 1.0s

  GENERATION  SEAT     FOR   PID
           1  serving  1.0s  2

  main  127.0.0.1:1
";
    assert_eq!(status_text(&old, PAPER), wanted);
}

#[test]
fn what_others_wrote_moves_no_cursor() {
    assert_eq!(clean("a\u{1b}[2Jb\tc\r\nd\u{7}\u{9b}31me"), "ab c  d31me");
    let mut evil = full();
    evil["generations"][0]["status_text"] = "\u{1b}]0;title\u{7}\u{1b}[2J".into();
    evil["name"] = "a\u{1b}[1mb".into();
    evil["checks"]["database"]["message"] = "\r\n\u{1b}[H".into();
    evil["generations"][0]["command"] = json!(["a\nb", "\u{1b}c"]);
    let text = status_text(&evil, TERMINAL);
    assert!(!text.contains(['\u{1b}', '\r', '\u{7}']), "{text:?}");
}

#[test]
fn wide_characters_count_twice() {
    assert_eq!(cut("森の中", 6), "森の中");
    assert_eq!(cut("森の中", 5), "森の…");
    assert_eq!(cut("森の中", 4), "森…");
    assert_eq!((cut("abc", 1), cut("abc", 0)), ("…".to_owned(), String::new()));
    assert_eq!(wrap("森の中 の森", 10), ["森の中", "の森"]);
    assert_eq!(wrap("aaaaaaaaaabbbbb", 10), ["aaaaaaaaaa", "bbbbb"]);
    assert_eq!(wrap("aaaaaaaaaa bbbbb", 10), ["aaaaaaaaaa", "bbbbb"]);
    assert_eq!(wrap("", 10), [""]);
}

#[test]
fn supervisors_stand_below_each_other() {
    let other = json!({ "name": "a", "state": "waiting", "status": "unhealthy", "pid": 12, "generation": null });
    let wanted = "\
shop  reloading  degraded   pid 4711  generation 4
a     waiting    unhealthy  pid 12
";
    assert_eq!(list_text(&[full(), other], PAPER), wanted);
}

#[test]
fn health_in_one_line_names_what_is_not_well() {
    let wanted = "database: connection refused; last_reload: generation 5 exited with code 1 before it was ready; \
                  generation 4 serves on; データ: the replica in the other data centre is 94 s behind, more than the \
                  60 s that are allowed";
    assert_eq!(health_line(&full()), wanted);
    assert_eq!(health_line(&json!({ "ready": false, "state": "starting" })), "starting");
    assert_eq!(health_line(&json!({ "ready": true, "state": "serving" })), "");
}

#[test]
fn a_picture_is_the_same_when_only_time_has_passed() {
    let mut later = full();
    later["uptime_secs"] = 93_785.2.into();
    later["generations"][1]["since_secs"] = 755.0.into();
    later["checks"]["disk"]["age_secs"] = 4.0.into();
    assert_eq!(without_times(&later), without_times(&full()));
    later["connections"] = 48.into();
    assert_ne!(without_times(&later), without_times(&full()));
    let paused = |secs: Value| {
        let mut status = full();
        status["paused_secs"] = secs;
        without_times(&status)
    };
    assert_eq!(paused(29.5.into()), paused(28.5.into()));
    assert_ne!(paused(29.5.into()), paused(Value::Null));
}

#[test]
fn the_story_has_short_times_on_a_terminal_and_whole_ones_elsewhere() {
    let event = |day, time, event: &str, generation: Value, message: &str| json!({ "event": event, "id": 1, "time": format!("{day}T{time}Z"), "generation": generation, "message": message });
    let first = event("2026-11-21", "23:59:59.123", "serving", 2.into(), "generation 2 serves after 0.1s");
    let mut second = event("2026-11-22", "00:00:01.000", "crashed", 2.into(), &"it went down ".repeat(7));
    second["output"] = json!(["Killed"]);
    let third = event("2026-11-22", "00:00:02.000", "stopping", Value::Null, "stopping");
    let texts = |screen| {
        let mut story = Story::new(screen);
        [&first, &second, &third].map(|event| story.text(&event.to_string())).concat()
    };
    let wanted = "\
2026-11-21
23:59:59.123Z    2  serving    generation 2 serves after 0.1s
2026-11-22
00:00:01.000Z    2  crashed    it went down it went down it went down it went
                               down it went down it went down it went down
                               | Killed
00:00:02.000Z       stopping   stopping
";
    assert_eq!(texts(TERMINAL), wanted);
    let paper = texts(PAPER);
    let lines: Vec<&str> = paper.lines().collect();
    assert_eq!(lines.len(), 4, "{paper}");
    assert_eq!(lines[0], "2026-11-21T23:59:59.123Z    2  serving    generation 2 serves after 0.1s");
    assert!(texts(Screen { colour: true, ..TERMINAL }).contains("\u{1b}[31mcrashed    \u{1b}[0mit went"));
}

#[test]
fn what_a_generation_wrote_is_shown_once_for_its_failure_and_the_verdict() {
    let mut story = Story::new(PAPER);
    let failed = json!({ "event": "failed", "message": "it exited", "output": ["oh"] });
    let verdict = json!({ "event": "verdict", "message": "it exited; generation 1 serves on", "output": ["oh"] });
    assert!(story.text(&failed.to_string()).ends_with("| oh\n"));
    assert!(story.text(&verdict.to_string()).ends_with("serves on\n"));
    assert!(story.text(&json!({ "event": "stopping" }).to_string()).ends_with('\n'));
    assert!(story.text(&failed.to_string()).ends_with("| oh\n"));
}

#[test]
fn an_event_that_cannot_be_read_is_shown_as_it_is() {
    assert!(Story::new(PAPER).text("nonsense").contains("nonsense"));
}
