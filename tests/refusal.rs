//! A bad release never hurts: it is refused or taken back under load, with nothing lost and its reason told.

use std::time::Duration;

use crate::harness::{Setup, Zdr, sample};
use crate::load::{Load, Shape};
use crate::python::server;

const LIMIT: Duration = Duration::from_secs(10);

/// Strict clients: every request that is not answered whole, in time and with a 2xx status is a failure.
pub fn load(zdr: &Zdr, new_connection_clients: usize, keep_alive_clients: usize) -> Load {
    let shape = Shape {
        new_connection_clients,
        keep_alive_clients,
        rate_per_client: Some(150.0),
        path: "/".to_owned(),
        limit: LIMIT,
    };
    let load = Load::start(zdr.address(), &shape).unwrap();
    assert!(load.wait_for_answers(20, LIMIT));
    load
}

#[track_caller]
pub fn nothing_lost(zdr: &Zdr, load: Load) {
    assert!(load.wait_for_answers(20, LIMIT), "{}", zdr.log());
    let report = load.stop();
    assert_eq!(report.failed(), 0, "{report}\n{}", zdr.log());
}

#[test]
fn a_release_that_fails_costs_nothing_and_names_its_reason() {
    let zdr = Setup::of(&sample(&[])).option("--ready", "/health").option("--ready-timeout", "2s").start();
    let load = load(&zdr, 3, 3);
    let releases: [(Vec<String>, &str); 6] = [
        (sample(&["--bad", "exit:7"]), "exited with code 7 before it was ready"),
        (sample(&["--bad", "hang"]), "was not ready after 2s: "),
        (sample(&["--bad", "status:500"]), "was not ready after 2s: last probe of /health: 500"),
        (vec!["/nowhere/server".to_owned()], "could not be started: `/nowhere/server`: "),
        (server("os.kill(os.getpid(), 11)"), "was killed by signal 11 (SEGV) before it was ready"),
        (sample(&["--bad", "crash-after:100ms", "--start-after", "10s"]), "exited with code 1 before it was ready"),
    ];
    for (generation, (release, reason)) in (2..).zip(releases) {
        let told = zdr.reload_to(&release);
        assert_eq!(told.code, 3, "{told:?}");
        assert!(told.error.contains(&format!("generation {generation} {reason}")), "{reason}: {told:?}");
        assert!(told.error.contains("; generation 1 serves on"), "{told:?}");
        let verdict = &zdr.status()["last_verdict"];
        assert_eq!((verdict["outcome"].as_str(), verdict["generation"].as_u64()), (Some("kept"), Some(generation)));
    }
    assert_eq!(zdr.serving(), Some(1));
    nothing_lost(&zdr, load);
    // The command that failed is forgotten.
    assert_eq!(zdr.reload().code, 0);
}

/// Serves one connection after another for a while, stops accepting when nothing is in flight, and dies.
fn dies_after_a_second() -> Vec<String> {
    server(
        "
s = listener()
end = time.monotonic() + 1
while time.monotonic() < end:
    if select.select([s], [], [], 0.02)[0]:
        visit(s.accept()[0], lambda path: 'short-lived')
os._exit(1)
",
    )
}

#[test]
fn a_release_that_dies_a_second_after_its_promotion_is_taken_back() {
    let zdr = Setup::of(&sample(&[])).option("--ready", "/health").start();
    let load = load(&zdr, 4, 0);
    let told = zdr.reload_to(&dies_after_a_second());
    assert_eq!(told.code, 0, "{told:?}");
    assert_eq!(zdr.serving(), Some(2));
    let status =
        zdr.wait_until("the old one to serve again", |status| crate::harness::in_seat(status, "serving") == Some(1));
    let reason = status["last_verdict"]["reason"].as_str().unwrap();
    assert!(reason.contains("generation 2 exited with code 1") && reason.contains("after its promotion"), "{reason}");
    assert!(reason.contains("generation 1 serves again"), "{reason}");
    assert_eq!(status["last_verdict"]["outcome"], "kept");
    nothing_lost(&zdr, load);
    // The command that died is forgotten, and the next reload is a usual one.
    assert_eq!(zdr.reload().code, 0);
    assert!(zdr.get("/").contains("200 from generation"));
}

#[test]
fn who_waits_until_drained_is_told_that_the_release_died() {
    let zdr = Setup::of(&sample(&[])).start();
    let words = ["reload".to_owned(), "--wait".to_owned(), "drained".to_owned(), "--".to_owned()];
    let told = zdr.client(&words.into_iter().chain(dies_after_a_second()).collect::<Vec<_>>());
    assert_eq!(told.code, 3, "{told:?}");
    assert!(told.error.contains("generation 1 serves again"), "{told:?}");
}
