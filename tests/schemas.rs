//! The schemas in `contrib` are true of what a real zdr says, and describe all of it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness::{Setup, Told, ZDR, Zdr, in_seat, sample, seats, wait_for};
use crate::servers::{in_servers, installed};

/// The numbers of the lines in which a validator finds something wrong, and what that is.
fn wrong(schema: &str, lines: &[Value]) -> (Vec<usize>, String) {
    let schema = format!("{}/contrib/{schema}.schema.json", env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(installed("python"));
    command.arg(in_servers("schema/check.py")).arg(schema).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    for line in lines {
        writeln!(input, "{line}").unwrap();
    }
    drop(input);
    let told = Told::from(child.wait_with_output().unwrap());
    (serde_json::from_str(&told.out).unwrap_or_else(|error| panic!("{error}: {told:?}")), told.error)
}

#[track_caller]
fn described(schema: &str, lines: &[Value]) {
    assert!(!lines.is_empty());
    let (numbers, why) = wrong(schema, lines);
    assert!(numbers.is_empty(), "{why}");
}

fn in_state(zdr: &Zdr, state: &str) -> Value {
    let status = zdr.wait_until(state, |status| status["state"] == state);
    let watched = zdr.ask_raw("GET /health HTTP/1.0\r\n\r\n");
    assert!(watched.contains(&format!("\"state\":\"{state}\"")), "{watched}");
    status
}

#[test]
fn the_schema_of_the_status_holds_in_every_state() {
    let hangs = sample(&["--bad", "hang"]);
    let mut seen = Vec::new();

    let starting = Setup::of(&hangs).begin();
    wait_for("the admin socket", || starting.client(&["health", "--live"]).out.contains("live").then_some(()));
    seen.push(in_state(&starting, "starting"));

    let zdr = Setup::of(&sample(&[])).option("--instances", "2");
    let zdr = zdr.option("--bake", "1000s").option("--lame-duck", "1000s").start();
    seen.push(in_state(&zdr, "serving"));
    assert_eq!(zdr.client(&["pause"]).code, 0);
    let paused = zdr.status();
    assert!(paused["paused_secs"].is_number(), "{paused}");
    seen.push(paused);
    assert_eq!(zdr.client(&["resume"]).code, 0);
    let _open = TcpStream::connect(zdr.address()).unwrap();
    assert_eq!(zdr.reload().code, 0);
    let told = zdr.reload_to(&sample(&["--bad", "exit:3"]));
    assert_eq!(told.code, 3, "{told:?}");
    let failed = zdr.status();
    assert_eq!((&failed["last_verdict"]["outcome"], &failed["status"]), (&"kept".into(), &"degraded".into()));
    assert!(seats(&failed).any(|seat| seat["seat"] == "draining"), "{failed}");
    assert_eq!(failed["rollback"]["warm"], true, "{failed}");
    seen.push(failed);
    let words = ["reload", "--no-wait", "--"].map(str::to_owned).into_iter().chain(hangs);
    assert_eq!(zdr.client(&words.collect::<Vec<_>>()).code, 0);
    let reloading = in_state(&zdr, "reloading");
    assert!(in_seat(&reloading, "starting").is_some() && in_seat(&reloading, "draining").is_some(), "{reloading}");
    seen.push(reloading);
    zdr.signal(Signal::SIGTERM);
    seen.push(in_state(&zdr, "stopping"));

    let waiting = fails_later();
    kill(Pid::from_raw(waiting.server_pid()), Signal::SIGKILL).unwrap();
    seen.push(in_state(&waiting, "waiting"));

    let of_everybody = zdr.ask_raw("GET /health HTTP/1.0\r\n\r\n");
    seen.push(serde_json::from_str(of_everybody.split("\r\n\r\n").nth(1).unwrap()).unwrap());
    described("status", &seen);
}

/// One whose server serves, and once it was killed never again.
fn fails_later() -> Zdr {
    let setup = Setup::of(&["true"]);
    let flag = setup.place("flag");
    let script = format!("rm {flag} && exec {ZDR} sample-server");
    fs::write(setup.folder().join("flag"), "").unwrap();
    setup.command(&["sh", "-c", &script]).start()
}

#[test]
fn the_schema_of_events_holds_for_a_whole_story() {
    let zdr = Setup::of(&sample(&[])).option("--bake", "0s").option("--drain-timeout", "200ms");
    let mut zdr = zdr.option("--hook", "after-serving=true").start();
    let mut child = zdr.client_in_background(&["events", "--json"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    // It follows once an event arrives.
    let first = std::thread::scope(|scope| {
        let reading = scope.spawn(|| lines.next());
        while !reading.is_finished() {
            assert_eq!(zdr.reload().code, 0);
        }
        reading.join().unwrap().unwrap()
    });
    let slow = sample(&["--work", "1000s"]);
    assert_eq!(zdr.reload_to(&slow).code, 0);
    let mut client = TcpStream::connect(zdr.address()).unwrap();
    client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    zdr.wait_until("a request", |status| status["in_flight"] == 1);
    assert_eq!(zdr.reload().code, 0);
    zdr.wait_until("the end of it", |status| seats(status).count() == 1);
    assert_eq!(zdr.reload_to(&sample(&["--bad", "exit:3"])).code, 3);
    let before = zdr.serving();
    kill(Pid::from_raw(zdr.server_pid()), Signal::SIGKILL).unwrap();
    zdr.wait_until("the next one", |status| in_seat(status, "serving") > before);
    assert_eq!(zdr.client(&["restart"]).code, 0);
    for order in [&["rollback"][..], &["scale", "2"], &["pause"], &["resume"]] {
        assert_eq!(zdr.client(order).code, 0, "{order:?}");
    }
    kill(Pid::from_raw(zdr.server_pid()), Signal::SIGKILL).unwrap();
    zdr.wait_until("the lost one to be back", |status| status["instances"] == 2 && status["crashes"] == 2);
    let order = zdr.client(&["reload", "--json"]).out;
    zdr.signal(Signal::SIGTERM);
    zdr.ended();
    let all = [first].into_iter().chain(lines).chain(order.lines().map(str::to_owned));
    let story: Vec<Value> = all.map(|line| serde_json::from_str(&line).unwrap()).collect();
    assert_eq!(child.wait().unwrap().code(), Some(4));
    let kinds: BTreeSet<&str> = story.iter().map(|told| told["event"].as_str().unwrap()).collect();
    for kind in [
        "spawned",
        "serving",
        "draining",
        "signalled",
        "killed",
        "ended",
        "failed",
        "crashed",
        "verdict",
        "stopping",
        "hook",
        "instance_ready",
        "instance_lost",
        "paused",
        "resumed",
    ] {
        assert!(kinds.contains(kind), "{kind}: {kinds:?}");
    }
    described("events", &story);
}

#[test]
fn a_field_that_is_not_described_is_noticed_and_so_is_one_that_is_missing() {
    let status = Setup::of(&sample(&[])).start().status();
    let mut changed = Vec::new();
    for pointer in
        ["", "/generations/0", "/generations/0/instances/0", "/listeners/0", "/checks/serving", "/last_verdict"]
    {
        let mut more = status.clone();
        more.pointer_mut(pointer).unwrap()["colour"] = "green".into();
        let mut less = status.clone();
        less.pointer_mut(pointer).and_then(Value::as_object_mut).and_then(|fields| {
            let last = fields.keys().next_back()?.clone();
            fields.remove(&last)
        });
        changed.extend([more, less]);
    }
    let (numbers, why) = wrong("status", &changed);
    assert_eq!(numbers, (0..changed.len()).collect::<Vec<_>>(), "{why}");
    let events = [
        r#"{"id":1,"time":"2026-11-21T10:00:00.000Z","event":"stopping","message":"stopping","colour":"green"}"#,
        r#"{"id":1,"time":"2026-11-21T10:00:00.000Z","event":"signalled","message":"was asked to finish"}"#,
        r#"{"id":1,"time":"2026-11-21T10:00:00.000Z","event":"coloured","message":"is green"}"#,
        r#"{"event":"stopping","message":"stopping"}"#,
    ];
    let events = events.map(|json| serde_json::from_str(json).unwrap());
    assert_eq!(wrong("events", &events).0, [0, 1, 2, 3]);
}

#[test]
fn the_schema_of_the_configuration_takes_what_the_program_takes() {
    let manual = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/man/zdr.1")).unwrap();
    let example = manual.split(".Bd -literal -offset indent\ncommand = ").nth(1).unwrap();
    let example = format!("command = {}", example.split(".Ed").next().unwrap());
    let printed = crate::harness::zdr(&["check", "--print", "-l", "127.0.0.1:0", "-vv", "--", "true"]);
    assert_eq!(printed.code, 0, "{printed:?}");
    let read = |text: &str| serde_json::to_value(toml::from_str::<toml::Table>(text).unwrap()).unwrap();
    let good = [&example, &printed.out, "quiet = true", "listen = { web = 8080 }"].map(read);
    described("zdr", &good);
    let bad = [
        "lisen = 'x'",
        "command = './server'",
        "command = []",
        "capture = 'nevr'",
        "no-new-privs = 'yes'",
        "verbose = 10",
        "ready = ['tcp']",
        "watch = { a = 'b' }",
        "env = { A = true }",
        "config = 'x'",
    ]
    .map(read);
    let (numbers, why) = wrong("zdr", &bad);
    assert_eq!(numbers, (0..bad.len()).collect::<Vec<_>>(), "{why}");
}
