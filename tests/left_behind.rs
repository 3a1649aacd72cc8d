//! Connections that wait at a listener which nobody but one generation has: a dead one, whose are finished, and then nobody
//! listens there any more, or one that is still to be started.

use std::fs;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};

use crate::harness::{Setup, Zdr, in_seat, sample, seats, wait_for};
use crate::managed::{command, load, managed, nothing_was_lost, reload_as, write};
use crate::pause::{Waiting, all_answered, clients, clients_of_path, resume, until_waiting};

const MANY: usize = 20;

const TCP: &str = "other = '127.0.0.1:0'";
const UNIX: &str = "other = 'unix:HERE/other.sock'";

/// With this listener beside one that stays, and the generation before kept warm.
fn text(here: &str, listener: &str) -> String {
    let listen = format!("[listen]\nweb = '127.0.0.1:0'\n{}\n", listener.replace("HERE", here));
    format!("{}ready = '/health'\nbake = '1h'\n{listen}", command(&sample(&[])))
}

fn begin(listener: &str) -> Zdr {
    let setup = Setup::of(&[""; 0]);
    let text = text(&setup.place(""), listener);
    managed(setup, &text).start()
}

/// Clients of the second listener, which wait by now, and how to know that nobody listens there.
fn who_wait_at_the_other(zdr: &Zdr) -> (Waiting, impl Fn() -> bool + use<>) {
    let other = zdr.status()["listeners"][1]["address"].as_str().unwrap().to_owned();
    let path = other.strip_prefix("unix:").map(str::to_owned);
    let waiting = match &path {
        Some(path) => clients_of_path(MANY, path),
        None => clients(MANY, other.parse().unwrap()),
    };
    until_waiting(zdr, 1, MANY);
    let refuses = move || match &path {
        Some(path) => UnixStream::connect(path).is_err(),
        None => TcpStream::connect(&other).is_err(),
    };
    (waiting, refuses)
}

fn freeze(zdr: &Zdr, wanted: &str) -> Pid {
    let status = zdr.status();
    let pid = seats(&status).find(|seat| seat["seat"] == wanted).unwrap()["pid"].as_i64().unwrap();
    let pid = Pid::from_raw(i32::try_from(pid).unwrap());
    kill(pid, Signal::SIGSTOP).unwrap();
    pid
}

/// All that waited are answered, and then nobody listens there.
#[track_caller]
fn are_answered(zdr: &Zdr, (waiting, refuses): (Waiting, impl Fn() -> bool)) {
    all_answered(zdr, waiting);
    wait_for("its end", || refuses().then_some(()));
}

fn added(listener: &str) {
    let zdr = begin("");
    reload_as(&zdr, &text(&zdr.place(""), listener));
    // What comes to the listener that both have waits as well, and is not asked about here: it goes on with the one before.
    let pid = freeze(&zdr, "serving");
    let waiting = who_wait_at_the_other(&zdr);
    kill(pid, Signal::SIGKILL).unwrap();
    zdr.wait_until("the first one again", |status| in_seat(status, "serving") == Some(1));
    are_answered(&zdr, waiting);
}

fn removed(listener: &str) {
    let zdr = begin(listener);
    let load = load(zdr.address(), 0);
    reload_as(&zdr, &text(&zdr.place(""), ""));
    let pid = freeze(&zdr, "draining");
    let waiting = who_wait_at_the_other(&zdr);
    kill(pid, Signal::SIGKILL).unwrap();
    are_answered(&zdr, waiting);
    nothing_was_lost(&zdr, load);
}

fn paused(listener: &str) {
    let zdr = begin(listener);
    let told = zdr.client(&["pause", "--for", "1m"]);
    assert_eq!(told.code, 0, "{told:?}");
    let waiting = who_wait_at_the_other(&zdr);
    reload_as(&zdr, &text(&zdr.place(""), "").replace("bake = '1h'", "bake = '0s'"));
    resume(&zdr);
    are_answered(&zdr, waiting);
}

#[test]
fn who_is_kept_warm_serves_a_listener_on_that_was_removed_during_a_pause() {
    let zdr = begin(TCP);
    let told = zdr.client(&["pause", "--for", "1m"]);
    assert_eq!(told.code, 0, "{told:?}");
    reload_as(&zdr, &text(&zdr.place(""), ""));
    resume(&zdr);
    let other = zdr.status()["listeners"][1]["address"].as_str().unwrap().parse().unwrap();
    all_answered(&zdr, clients(MANY, other));
}

#[test]
fn who_waits_at_an_added_listener_is_answered_when_the_trial_fails() {
    added(TCP);
}

#[test]
fn who_waits_at_an_added_path_is_answered_when_the_trial_fails() {
    added(UNIX);
}

#[test]
fn who_waits_at_a_removed_listener_is_answered_when_the_warm_one_dies() {
    removed(TCP);
}

#[test]
fn who_waits_at_a_removed_path_is_answered_when_the_warm_one_dies() {
    removed(UNIX);
}

#[test]
fn who_waits_at_a_listener_that_is_removed_during_a_pause_is_answered_after_it() {
    paused(TCP);
}

#[test]
fn who_waits_at_a_path_that_is_removed_during_a_pause_is_answered_after_it() {
    paused(UNIX);
}

/// Bound before anything is started, in a slot of which nobody can know yet which generation will have it.
#[test]
fn who_comes_to_a_listener_before_its_generation_is_started_is_answered() {
    let zdr = begin("");
    let at_once = |text: String| text.replace("bake = '1h'", "bake = '0s'");
    reload_as(&zdr, &at_once(text(&zdr.place(""), "")));
    zdr.wait_until("the first slot to be free", |status| in_seat(status, "draining").is_none());
    let gate = zdr.folder().join("gate");
    mkfifo(&gate, Mode::S_IRWXU).unwrap();
    let hook = format!("hook = ['before-start=read line < {}']\n", gate.display());
    write(&zdr, hook + &at_once(text(&zdr.place(""), TCP)));
    let told = zdr.client(&["reload", "--no-wait"]);
    assert_eq!(told.code, 0, "{told:?}");
    zdr.wait_until("the listener", |status| status["listeners"][1]["name"] == "other");
    let (waiting, _) = who_wait_at_the_other(&zdr);
    fs::write(&gate, "go\n").unwrap();
    all_answered(&zdr, waiting);
    assert_eq!(zdr.serving(), Some(3));
}
