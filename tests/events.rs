//! `zdr events`: the story so far, what comes, and how it ends.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout};

use serde_json::Value;

use crate::harness::{Setup, Zdr, sample, wait_for};

fn started() -> Zdr {
    Setup::of(&sample(&[])).option("--bake", "0s").start()
}

/// What a finite look at the story gives, as JSON.
#[track_caller]
fn story(zdr: &Zdr, options: &[&str]) -> Vec<Value> {
    let told = zdr.client(&[&["events", "--json", "--no-follow"], options].concat());
    assert_eq!((told.code, told.error.as_str()), (0, ""), "{told:?}");
    told.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ids(story: &[Value]) -> Vec<u64> {
    story.iter().map(|told| told["id"].as_u64().unwrap()).collect()
}

#[test]
fn who_comes_late_sees_the_story_from_its_beginning() {
    let zdr = started();
    let first = story(&zdr, &[]);
    assert_eq!(
        (&first[0]["event"], &first[0]["generation"], &first[0]["why"]),
        (&"spawned".into(), &1.into(), &"boot".into())
    );
    assert!(first.iter().any(|told| told["event"] == "serving"), "{first:?}");
    assert_eq!(zdr.reload_to(&sample(&["--bad", "exit:3"])).code, 3);
    let all = ids(&story(&zdr, &[]));
    assert_eq!(all, (1..=all.len() as u64).collect::<Vec<_>>());
    let last_two = all[all.len() - 2..].to_vec();
    assert_eq!(ids(&story(&zdr, &["-n", "2"])), last_two);
    assert_eq!(ids(&story(&zdr, &["--since", &all[all.len() - 3].to_string()])), last_two);
    assert_eq!(ids(&story(&zdr, &["-n", "0"])), [0; 0]);
    assert_eq!(ids(&story(&zdr, &["-n", "5000"])), all);
    let lines = zdr.client(&["events", "--no-follow"]).out;
    assert!(lines.lines().any(|line| line.contains("Z    2  failed     generation 2 exited with code 3")), "{lines}");
}

/// Follows, and has read the first line.
fn following(zdr: &Zdr, options: &[&str]) -> (Child, BufReader<ChildStdout>, String) {
    let mut child = zdr.client_in_background(&[&["events", "--json"], options].concat());
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    (child, reader, line)
}

#[test]
fn the_last_ones_are_followed_by_what_comes_with_none_twice_and_none_left_out() {
    let zdr = started();
    let last = *ids(&story(&zdr, &[])).last().unwrap();
    let (mut child, reader, first) = following(&zdr, &["-n", "1"]);
    assert_eq!(serde_json::from_str::<Value>(&first).unwrap()["id"], last);
    assert_eq!(zdr.reload().code, 0);
    assert_eq!(zdr.client(&["stop"]).code, 0);
    let rest: Vec<Value> = reader.lines().map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    assert_eq!(ids(&rest), (last + 1..=last + rest.len() as u64).collect::<Vec<_>>());
    assert!(rest.iter().any(|told| told["event"] == "stopping"), "{rest:?}");
    assert_eq!(child.wait().unwrap().code(), Some(4));
}

#[test]
fn a_reader_that_goes_ends_it_though_nothing_happens() {
    let zdr = started();
    let (mut child, reader, _) = following(&zdr, &[]);
    drop(reader);
    let end = wait_for("the end of the events", || child.try_wait().unwrap());
    assert_eq!(end.code(), Some(0));
}

#[test]
fn options_that_exclude_each_other_are_refused() {
    let told = crate::harness::zdr(&["events", "-n", "1", "--since", "1"]);
    assert_eq!(told.code, 2, "{told:?}");
}
