//! New instances by and by: while they become ready, old and new serve in proportion; the first that fails ends it.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Setup, Zdr, get, in_seat, sample, seats, wait_for};
use crate::instances::wait_for_serving;
use crate::python::server;
use crate::refusal::{load, nothing_lost};

/// Becomes ready once its file is there.
fn gated(gate: &str) -> Vec<String> {
    server(&format!(
        "if GENERATION != '1': until('{gate}.' + os.environ['ZDR_INSTANCE'])
serve(listener(), lambda path: GENERATION)"
    ))
}

fn ready_of_the_new(status: &Value) -> usize {
    let seat = seats(status).find(|seat| seat["seat"] == "starting");
    let rows = seat.and_then(|seat| seat["instances"].as_array()).into_iter().flatten();
    rows.filter(|row| row["state"] == "ready").count()
}

/// How the answers to so many requests, each on a new connection, are spread over the generations.
fn spread(zdr: &Zdr, many: u32) -> BTreeMap<String, u32> {
    let (mut spread, address) = (BTreeMap::new(), zdr.address());
    for _ in 0..many {
        *spread.entry(get(address, "/").1).or_default() += 1;
    }
    spread
}

#[test]
fn old_and_new_serve_in_proportion_while_a_surge_goes_on() {
    const ASKED: u32 = 400;
    for surge in ["1", "2"] {
        let setup = Setup::of(&[""]).option("-n", "4").option("--surge", surge).option("--bake", "0s");
        let gate = setup.place("gate");
        let zdr = setup.command(&gated(&gate)).start();
        let load = load(&zdr, 2, 2);
        let reload = zdr.client_in_background(&["reload"]);
        for ready in 1..4_u32 {
            fs::write(format!("{gate}.{ready}"), "").unwrap();
            zdr.wait_until("the next of them to be ready", |status| ready_of_the_new(status) == ready as usize);
            let spread = spread(&zdr, ASKED);
            let (new, expected) = (spread.get("2").copied().unwrap_or(0), ASKED * ready / 4);
            // Five standard deviations of the least even of the three.
            assert!(new.abs_diff(expected) <= 50, "with {ready} of 4 ready: {spread:?}");
        }
        fs::write(format!("{gate}.4"), "").unwrap();
        let told = reload.wait_with_output().unwrap();
        assert!(told.status.success(), "{told:?}");
        assert_eq!(spread(&zdr, 20).keys().collect::<Vec<_>>(), ["2"]);
        nothing_lost(&zdr, load);
    }
}

#[test]
fn no_more_than_the_surge_start_at_a_time() {
    let setup = Setup::of(&[""]).option("-n", "4").option("--surge", "2").option("--bake", "0s");
    let gate = setup.place("gate");
    let zdr = setup.command(&gated(&gate)).start();
    let reload = zdr.client_in_background(&["reload"]);
    let started = |number: u32| zdr.log().contains(&format!("instance {number} of generation 2 started"));
    wait_for("two to start", || started(2).then_some(()));
    fs::write(format!("{gate}.1"), "").unwrap();
    wait_for("the third to start", || started(3).then_some(()));
    assert!(!started(4), "{}", zdr.log());
    for number in 2..=4 {
        fs::write(format!("{gate}.{number}"), "").unwrap();
    }
    assert!(reload.wait_with_output().unwrap().status.success());
}

#[test]
fn the_first_that_fails_ends_a_surge_and_nothing_is_lost() {
    let zdr = Setup::of(&sample(&["--work", "2ms"])).option("-n", "4").option("--surge", "1").start();
    let before = wait_for_serving(&zdr, 4);
    let load = load(&zdr, 4, 4);
    let bad = ["sh".to_owned(), "-c".to_owned(), {
        let good = sample(&["--work", "2ms", "--start-after", "50ms"]).join(" ");
        format!("test $ZDR_INSTANCE = 3 && exit 6; exec {good}")
    }];
    for generation in 2..5 {
        let told = zdr.reload_to(&bad);
        assert_eq!(told.code, 3, "{told:?}");
        let reason = format!("instance 3 of generation {generation} exited with code 6 before it was ready");
        assert!(told.error.contains(&reason) && told.error.contains("generation 1 serves on"), "{told:?}");
        assert_eq!(wait_for_serving(&zdr, 4), before, "the old ones are whole");
        assert_eq!(zdr.status()["last_verdict"]["outcome"], "kept");
    }
    zdr.wait_until("the new ones to end", |status| in_seat(status, "draining").is_none());
    nothing_lost(&zdr, load);
}

#[test]
fn one_of_the_new_that_dies_while_they_share_ends_a_surge() {
    let setup = Setup::of(&[""]).option("-n", "3").option("--surge", "1");
    let gate = setup.place("gate");
    let zdr = setup.command(&gated(&gate)).start();
    let load = load(&zdr, 2, 0);
    let reload = zdr.client_in_background(&["reload"]);
    fs::write(format!("{gate}.1"), "").unwrap();
    let status = zdr.wait_until("the first to be ready", |status| ready_of_the_new(status) == 1);
    let seat = seats(&status).find(|seat| seat["seat"] == "starting").unwrap();
    let pid = i32::try_from(seat["instances"][0]["pid"].as_i64().unwrap()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL).unwrap();
    let told = reload.wait_with_output().unwrap();
    assert_eq!(told.status.code(), Some(3), "{told:?}");
    assert!(load.wait_for_answers(50, Duration::from_secs(10)));
    let report = load.stop();
    assert!(report.failed() <= 2, "no more than it had in hand: {report}");
    assert_eq!(zdr.serving(), Some(1));
}
