//! The trial of a new release: while it lasts, whatever the release comes to gives the connections back to the one before.

use std::fs;
use std::process::Child;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::harness::{Setup, Told, Zdr, free_port, get, in_seat, sample, wait_for};
use crate::load::report::Failure;
use crate::python::server;
use crate::refusal::{load, nothing_lost};

fn send(signal: Signal, pid: i32) {
    kill(Pid::from_raw(pid), signal).unwrap();
}

/// Stopped, and not only told to stop: until then it may take one more connection.
fn freeze(pid: i32) {
    send(Signal::SIGSTOP, pid);
    let is_stopped = || fs::read_to_string(format!("/proc/{pid}/status")).unwrap().contains("State:\tT");
    wait_for("it to be stopped", || is_stopped().then_some(()));
}

/// A reload that is told of the end of the trial.
fn reload(zdr: &Zdr, command: &[String]) -> Child {
    let words = ["reload", "--wait", "drained", "--"].map(str::to_owned);
    let child = zdr.client_in_background(&words.into_iter().chain(command.iter().cloned()).collect::<Vec<_>>());
    zdr.wait_until("the new one to serve", |status| in_seat(status, "serving") == Some(2));
    child
}

/// The old one has the connections back, and whoever asked is told why.
#[track_caller]
fn taken_back(zdr: &Zdr, asked: Child, cause: &str, why: &str) {
    let status = zdr.wait_until("the old one to serve again", |status| in_seat(status, "serving") == Some(1));
    let told: Told = asked.wait_with_output().unwrap().into();
    assert_eq!(told.code, 3, "{told:?}");
    let reason = status["last_verdict"]["reason"].as_str().unwrap();
    assert!(told.error.contains(reason), "{reason}: {told:?}");
    assert!(reason.contains(&format!("generation 2 {why}")), "{reason}");
    assert!(reason.ends_with("; generation 1 serves again"), "{reason}");
    let verdict = &status["last_verdict"];
    assert_eq!((&verdict["outcome"], &verdict["cause"]), (&"kept".into(), &cause.into()), "{verdict}");
    assert_eq!(status["rollback"], Value::Null);
    zdr.wait_until("the bad one to be gone", |status| in_seat(status, "draining").is_none());
    assert_eq!(zdr.serving(), Some(1));
}

fn on_trial() -> Setup {
    Setup::of(&sample(&[])).option("--ready", "/health").option("--bake", "1m").option("--drain-timeout", "1s")
}

#[test]
fn one_that_is_killed_loses_no_more_than_it_had_in_its_hands() {
    const CLIENTS: usize = 4;
    let zdr = on_trial().start();
    let load = load(&zdr, CLIENTS, 0);
    let asked = reload(&zdr, &sample(&["--work", "20ms"]));
    assert!(load.wait_for_answers(100, Duration::from_secs(10)));
    send(Signal::SIGKILL, zdr.server_pid());
    taken_back(&zdr, asked, "crashed", "was killed by signal 9 (KILL) ");
    assert!(load.wait_for_answers(100, Duration::from_secs(10)));
    let report = load.stop();
    let cut = |failure: &Failure| matches!(failure, Failure::Reset | Failure::Closed | Failure::Short);
    assert!(report.new_connection.failures.keys().all(cut), "{report}");
    assert!(report.failed() <= CLIENTS as u64, "{report}");
}

#[test]
fn what_waited_for_one_that_is_taken_back_is_answered() {
    let port = free_port();
    let binds = server(&format!("serve(bound({port}), lambda path: 'from generation ' + GENERATION)"));
    let captured = Setup::of(&binds).listen(&[]).option("--bake", "1m").option("--drain-timeout", "10s");
    for (setup, release) in [(captured, binds), (on_trial(), sample(&[]))] {
        let zdr = setup.start();
        let address = zdr.address();
        let asked = reload(&zdr, &release);
        let pid = zdr.server_pid();
        freeze(pid);
        let waiting: Vec<_> = (0..20).map(|_| std::thread::spawn(move || get(address, "/").0)).collect();
        zdr.wait_until("them to wait", |status| status["listeners"][0]["queue"] == 20);
        send(Signal::SIGKILL, pid);
        taken_back(&zdr, asked, "crashed", "was killed by signal 9 (KILL) ");
        for client in waiting {
            assert_eq!(client.join().unwrap(), 200, "{}", zdr.log());
        }
    }
}

#[test]
fn one_that_stops_answering_is_taken_back() {
    let zdr = on_trial()
        .option("--live", "/health")
        .option("--live-interval", "100ms")
        .option("--live-timeout", "100ms")
        .option("--live-failures", "2")
        .start();
    let asked = reload(&zdr, &sample(&[]));
    freeze(zdr.server_pid());
    taken_back(&zdr, asked, "stuck", "is stuck: /health: no answer within 100ms, 2 times in a row");
    assert_eq!(get(zdr.address(), "/").0, 200);
}

#[test]
fn one_that_says_it_is_stuck_is_taken_back() {
    let setup = on_trial().option("--watchdog", "1h");
    let sick = setup.place("sick");
    let zdr = setup.start();
    let load = load(&zdr, 3, 0);
    let body = format!(
        "
def speak():
    until('{sick}')
    socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).sendto(b'WATCHDOG=trigger', os.environ['NOTIFY_SOCKET'])
threading.Thread(target=speak, daemon=True).start()
serve(listener(), lambda path: 'from generation %s,' % GENERATION)"
    );
    let asked = reload(&zdr, &server(&body));
    fs::write(sick, "").unwrap();
    taken_back(&zdr, asked, "stuck", "is stuck: it has sent WATCHDOG=trigger");
    nothing_lost(&zdr, load);
}

/// Asks whether a file is there that says that all is bad.
fn checked(option: &str) -> (Zdr, String) {
    let setup = on_trial();
    let sick = setup.place("sick");
    let check = format!("db=exec:test ! -e {sick} || {{ echo no database; exit 1; }},interval=100ms{option}");
    (setup.option("--check", &check).start(), sick)
}

fn check(zdr: &Zdr) -> Value {
    zdr.status()["checks"]["db"]["state"].clone()
}

#[test]
fn one_with_which_a_critical_check_fails_is_taken_back() {
    let (zdr, sick) = checked(",critical");
    let load = load(&zdr, 3, 3);
    let asked = reload(&zdr, &sample(&[]));
    fs::write(sick, "").unwrap();
    taken_back(&zdr, asked, "unhealthy", "made the check db fail: no database");
    nothing_lost(&zdr, load);
}

#[test]
fn a_check_that_is_not_critical_takes_nothing_back() {
    let (zdr, sick) = checked("");
    let mut asked = reload(&zdr, &sample(&[]));
    fs::write(sick, "").unwrap();
    wait_for("the check to fail", || (check(&zdr) == "degraded").then_some(()));
    assert_eq!(zdr.serving(), Some(2));
    assert!(asked.try_wait().unwrap().is_none(), "the old one is still kept");
    assert_eq!(zdr.client(&["stop"]).code, 0);
    asked.wait().unwrap();
}

#[test]
fn a_check_that_failed_before_takes_nothing_back() {
    let (zdr, sick) = checked(",critical");
    fs::write(&sick, "").unwrap();
    wait_for("the check to fail", || (check(&zdr) == "unhealthy").then_some(()));
    let mut asked = reload(&zdr, &sample(&[]));
    assert_eq!(check(&zdr), "unhealthy");
    assert_eq!(zdr.serving(), Some(2), "{}", zdr.log());
    // When it has become well and fails again, that is because of the new one.
    fs::remove_file(&sick).unwrap();
    wait_for("the check to be well", || (check(&zdr) == "healthy").then_some(()));
    assert!(asked.try_wait().unwrap().is_none());
    fs::write(&sick, "").unwrap();
    taken_back(&zdr, asked, "unhealthy", "made the check db fail: no database");
}

#[test]
fn a_check_that_failed_before_and_that_nobody_had_looked_at_takes_nothing_back() {
    let setup = on_trial();
    let (asked, sick) = (setup.place("asked"), setup.place("sick"));
    fs::write(&sick, "").unwrap();
    let check = format!("db=exec:echo >> {asked}; test ! -e {sick},interval=100ms,critical");
    let zdr = setup.option("--check", &check).begin();
    wait_for("it to serve", || zdr.log().contains("generation 1 serves after").then_some(()));
    assert!(!fs::exists(&asked).unwrap(), "somebody has looked");
    let told = zdr.reload();
    assert_eq!(told.code, 0, "{told:?}");
    let times = || fs::read_to_string(&asked).unwrap_or_default().lines().count();
    let before = times();
    wait_for("it to be asked again", || (times() >= before + 3).then_some(()));
    assert_eq!(zdr.serving(), Some(2), "{}", zdr.log());
}

#[test]
fn one_that_uses_up_its_restarts_is_taken_back() {
    let zdr = on_trial().option("--instances", "2").option("--max-restarts", "2").option("--min-uptime", "0s").start();
    let load = load(&zdr, 3, 0);
    let (good, bad) = (sample(&[]).join(" "), sample(&["--bad", "crash-after:200ms"]).join(" "));
    let script = format!("test $ZDR_INSTANCE = 2 && exec {bad}; exec {good}");
    let asked = reload(&zdr, &["sh".to_owned(), "-c".to_owned(), script]);
    taken_back(&zdr, asked, "exhausted", "has used up its 2 restarts in 10m");
    // It dies with what it has in its hands, and refuses nobody.
    let report = load.stop();
    let cut = |failure: &Failure| matches!(failure, Failure::Reset | Failure::Closed | Failure::Short);
    assert!(report.new_connection.failures.keys().all(cut), "{report}");
}

#[test]
fn with_none_kept_the_one_before_is_started_again_as_it_was() {
    let zdr = on_trial().option("--bake-keep", "0s").start();
    let told = zdr.reload_to(&sample(&["--bad", "status:202"]));
    assert_eq!(told.code, 0, "{told:?}");
    zdr.wait_until("the old one to be gone", |status| in_seat(status, "draining").is_none());
    assert_eq!(zdr.status()["rollback"], json!({ "generation": 1, "warm": false }));
    send(Signal::SIGKILL, zdr.server_pid());
    let status = zdr.wait_until("another one", |status| in_seat(status, "serving") == Some(3));
    assert!(zdr.get("/health").starts_with("200 from generation 3,"));
    let verdict = &status["last_verdict"];
    assert_eq!((&verdict["outcome"], &verdict["cause"]), (&"kept".into(), &"crashed".into()), "{verdict}");
    let reason = verdict["reason"].as_str().unwrap();
    assert!(reason.contains("generation 2 was killed by signal 9 (KILL)"), "{reason}");
    assert!(reason.ends_with("generation 3 serves, as the one before it was"), "{reason}");
    assert_eq!(status["rollback"], Value::Null);
}

#[test]
fn one_that_is_kept_longer_than_the_trial_has_the_connections_back_after_a_crash_alone() {
    let setup = Setup::of(&sample(&[])).option("--bake", "0s").option("--bake-keep", "1m");
    let sick = setup.place("sick");
    let zdr = setup.option("--check", &format!("db=exec:test ! -e {sick},interval=100ms,critical")).start();
    assert_eq!(zdr.reload().code, 0);
    fs::write(sick, "").unwrap();
    wait_for("the check to fail", || (check(&zdr) == "unhealthy").then_some(()));
    let status = zdr.status();
    assert_eq!(
        (in_seat(&status, "serving"), &status["rollback"]),
        (Some(2), &json!({ "generation": 1, "warm": true }))
    );
    send(Signal::SIGKILL, zdr.server_pid());
    zdr.wait_until("the old one to serve again", |status| in_seat(status, "serving") == Some(1));
}

#[test]
fn when_the_trial_is_over_the_old_one_goes_and_the_new_one_is_started_again_after_a_crash() {
    let zdr = Setup::of(&sample(&[])).option("--bake", "300ms").start();
    let told = zdr.client(&["reload", "--wait", "drained"]);
    assert_eq!(told.code, 0, "{told:?}");
    send(Signal::SIGKILL, zdr.server_pid());
    let status = zdr.wait_until("another one", |status| in_seat(status, "serving") == Some(3));
    assert_eq!(status["last_verdict"]["outcome"], "done");
}
