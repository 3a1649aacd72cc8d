//! `zdr health`: what a container's health check is told, by exit code and in one line.

use std::io::{BufRead, BufReader};

use nix::sys::signal::Signal;

use crate::harness::{Setup, Zdr, sample, wait_for, zdr};

/// Code and line, which stands on the standard output where all is well and else on the standard error.
#[track_caller]
fn says(zdr: &Zdr, options: &[&str], code: i32, line: &str) {
    let told = zdr.client(&[&["health"], options].concat());
    let (said, nothing) = if code == 0 { (&told.out, &told.error) } else { (&told.error, &told.out) };
    assert_eq!((told.code, said.as_str(), nothing.as_str()), (code, format!("{line}\n").as_str(), ""), "{options:?}");
}

#[test]
fn a_supervisor_that_is_well_is_healthy_in_every_way() {
    let zdr = Setup::of(&sample(&[])).start();
    says(&zdr, &[], 0, "healthy");
    says(&zdr, &["--live"], 0, "live");
    says(&zdr, &["--ready"], 0, "ready");
    says(&zdr, &["--startup"], 0, "started");
}

#[test]
fn a_failed_reload_degrades_but_keeps_a_container_alive() {
    let zdr = Setup::of(&sample(&[])).start();
    assert_eq!(zdr.reload_to(&sample(&["--bad", "exit:3"])).code, 3);
    let why = "generation 2 exited with code 3 before it was ready; generation 1 serves on";
    says(&zdr, &[], 0, &format!("degraded: last_reload: {why}"));
    says(&zdr, &["--ready"], 0, "ready");
}

#[test]
fn before_anything_serves_it_lives_and_is_not_ready() {
    let zdr = Setup::of(&sample(&["--bad", "hang"])).begin();
    wait_for("the admin socket", || (zdr.client(&["health", "--live"]).code == 0).then_some(()));
    zdr.wait_until("the start", |status| status["state"] == "starting");
    says(&zdr, &["--live"], 0, "live");
    says(&zdr, &["--ready"], 1, "zdr: not ready: starting");
    says(&zdr, &["--startup"], 1, "zdr: nothing has ever served: starting");
    says(&zdr, &[], 1, "zdr: unhealthy: serving: nothing serves");
}

#[test]
fn one_that_stops_is_not_ready_and_one_that_has_gone_is_nothing() {
    let mut zdr = Setup::of(&sample(&[])).option("--lame-duck", "1000s").start();
    zdr.signal(Signal::SIGTERM);
    zdr.wait_until("the stop", |status| status["state"] == "stopping");
    says(&zdr, &["--ready"], 1, "zdr: not ready: stopping");
    says(&zdr, &["--startup"], 0, "started: stopping");
    zdr.signal(Signal::SIGTERM);
    zdr.ended();
    // Docker knows 0 and 1 only.
    for option in ["--live", "--ready", "--startup"] {
        let told = zdr.client(&["health", option]);
        assert_eq!((told.code, told.error.lines().count()), (1, 1), "{told:?}");
        assert!(told.error.starts_with("zdr: no supervisor answers at "), "{told:?}");
    }
    let nobody = crate::harness::zdr(&["health"]);
    assert!(nobody.code == 1 && nobody.error.starts_with("zdr: no supervisor runs in "), "{nobody:?}");
}

#[test]
fn it_needs_no_health_address_and_minds_no_other_path() {
    let zdr = Setup::of(&sample(&[])).option("--health-path", "/up").start();
    says(&zdr, &["--startup"], 0, "started");
    says(&zdr, &[], 0, "healthy");
    let mut watching = zdr.client_in_background(&["status", "--watch", "--json"]);
    let mut line = String::new();
    BufReader::new(watching.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.contains("\"generation\":1"), "{line}");
    watching.kill().unwrap();
    watching.wait().unwrap();
}

#[test]
fn only_one_question_at_a_time() {
    for two in [["--live", "--ready"], ["--ready", "--startup"], ["--live", "--startup"]] {
        let told = zdr(&["health", two[0], two[1]]);
        assert!(told.code == 2 && told.error.contains("cannot be used with"), "{told:?}");
    }
}

#[test]
fn the_list_says_how_each_one_is() {
    let folder = tempfile::tempdir().unwrap();
    let socket = |name: &str| folder.path().join(format!("{name}.sock")).display().to_string();
    let good = Setup::of(&sample(&[])).option("--name", "good").at(&socket("good")).start();
    let bad = Setup::of(&sample(&["--bad", "hang"])).option("--name", "bad").at(&socket("bad")).begin();
    wait_for("the admin socket", || bad.admin().exists().then_some(()));
    bad.wait_until("the start", |status| status["state"] == "starting");
    let list = good.client_command(&["list"]).env("RUNTIME_DIRECTORY", folder.path()).output().unwrap();
    let said = String::from_utf8(list.stdout).unwrap();
    let lines: Vec<Vec<&str>> = said.lines().map(|line| line.split_whitespace().collect()).collect();
    let pid = |zdr: &Zdr| zdr.pid().to_string();
    assert_eq!(lines[0], ["bad", "starting", "unhealthy", "pid", &pid(&bad)], "{said}");
    assert_eq!(lines[1], ["good", "serving", "healthy", "pid", &pid(&good), "generation", "1"], "{said}");
}
