//! Connections that wait at a listener which nobody but a dead generation had: they are finished, and then nobody listens
//! there any more.

use std::net::{SocketAddr, TcpStream};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::harness::{Setup, Zdr, in_seat, sample, seats, wait_for};
use crate::managed::{command, load, managed, nothing_was_lost, reload_as};
use crate::pause::{all_answered, clients, resume, until_waiting};

const MANY: usize = 20;

/// With these listeners, and the generation before kept warm.
fn text(listen: &str) -> String {
    format!("{}ready = '/health'\nbake = '1h'\n[listen]\n{listen}\n", command(&sample(&[])))
}

fn one() -> String {
    text("web = '127.0.0.1:0'")
}

fn two() -> String {
    text("web = '127.0.0.1:0'\nother = '127.0.0.1:0'")
}

fn begin(text: &str) -> Zdr {
    managed(Setup::of(&[""; 0]), text).start()
}

/// Where the second listener is.
fn other(zdr: &Zdr) -> SocketAddr {
    zdr.status()["listeners"][1]["address"].as_str().unwrap().parse().unwrap()
}

fn pid_in(zdr: &Zdr, wanted: &str) -> Pid {
    let status = zdr.status();
    let pid = seats(&status).find(|seat| seat["seat"] == wanted).unwrap()["pid"].as_i64().unwrap();
    Pid::from_raw(i32::try_from(pid).unwrap())
}

fn is_refused_in_the_end(at: SocketAddr) {
    wait_for("its end", || TcpStream::connect(at).is_err().then_some(()));
}

/// The generation in this seat dies while clients wait for it at its own listener.
fn dies_while_they_wait(zdr: &Zdr, seat: &str) {
    let (web, own, pid) = (load(zdr.address(), 0), other(zdr), pid_in(zdr, seat));
    kill(pid, Signal::SIGSTOP).unwrap();
    let waiting = clients(MANY, own);
    until_waiting(zdr, 1, MANY);
    kill(pid, Signal::SIGKILL).unwrap();
    all_answered(zdr, waiting);
    is_refused_in_the_end(own);
    nothing_was_lost(zdr, web);
}

#[test]
fn who_waits_at_an_added_listener_is_answered_when_the_trial_fails() {
    let zdr = begin(&one());
    reload_as(&zdr, &two());
    assert_eq!(in_seat(&zdr.status(), "serving"), Some(2));
    let serving = pid_in(&zdr, "serving");
    // What comes to the listener that both have waits for it as well, and goes on with the one before.
    let (web, own) = (load(zdr.address(), 0), other(&zdr));
    kill(serving, Signal::SIGSTOP).unwrap();
    let waiting = clients(MANY, own);
    until_waiting(&zdr, 1, MANY);
    kill(serving, Signal::SIGKILL).unwrap();
    zdr.wait_until("the first one again", |status| in_seat(status, "serving") == Some(1));
    all_answered(&zdr, waiting);
    is_refused_in_the_end(own);
    drop(web);
}

#[test]
fn who_waits_at_a_removed_listener_is_answered_when_the_warm_one_dies() {
    let zdr = begin(&two());
    reload_as(&zdr, &one());
    dies_while_they_wait(&zdr, "draining");
}

#[test]
fn who_waits_at_a_listener_that_is_removed_during_a_pause_is_answered_after_it() {
    let zdr = begin(&two());
    let told = zdr.client(&["pause", "--for", "1m"]);
    assert_eq!(told.code, 0, "{told:?}");
    let own = other(&zdr);
    let waiting = clients(MANY, own);
    until_waiting(&zdr, 1, MANY);
    reload_as(&zdr, &one().replace("bake = '1h'", "bake = '0s'"));
    resume(&zdr);
    all_answered(&zdr, waiting);
    is_refused_in_the_end(own);
}
