//! Reloads of real servers under load, each server as its user would write it: nothing may be lost.
//!
//! Five reloads each in an ordinary run. The long form, 200 of each with a line of figures, is
//! `ZDR_LONG=1 cargo test --release --test zdr losses -- --nocapture --test-threads=1`.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use humantime::format_rfc3339_millis;

use crate::harness::{DEADLINE, Setup, Zdr, in_seat};
use crate::load::{Load, Shape};
use crate::servers::{End, asyncio, gunicorn, rust, server, threads};

/// Two loads at a time would measure each other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Waits until no other load is on.
pub fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A server, and how it is put under load.
struct Trial {
    setup: Setup,
    end: End,
    /// Requests a second of each of the eight clients.
    rate: f64,
}

/// The usual load, with a drain at every reload.
fn trial(command: &[String], end: End) -> Trial {
    let setup = Setup::of(command).option("--ready", "/health").option("--bake", "0s");
    Trial { setup, end, rate: 50.0 }
}

impl Trial {
    fn rate(self, rate: f64) -> Self {
        Self { rate, ..self }
    }

    /// Reloads under load, and claims that nothing was lost that must not be.
    ///
    /// A server that dies at once is also asked by clients without keep-alive alone: only then does every old generation fall
    /// idle, and is signalled as soon as ever possible.
    fn loses_nothing(self) {
        let _alone = alone();
        let Self { setup, end, rate } = self;
        let zdr = setup.option("--drain-idle", "1s").start();
        lose_nothing(&zdr, end, rate, 4);
        if end == End::Abrupt {
            lose_nothing(&zdr, end, rate, 0);
        }
    }
}

fn lose_nothing(zdr: &Zdr, end: End, rate: f64, keep_alive_clients: usize) {
    let reloads = if std::env::var_os("ZDR_LONG").is_some() { 200 } else { 5 };
    let shape = Shape {
        new_connection_clients: 8 - keep_alive_clients,
        keep_alive_clients,
        rate_per_client: Some(rate),
        path: "/".to_owned(),
        limit: DEADLINE / 4,
    };
    let (begun, begun_at) = (Instant::now(), format_rfc3339_millis(SystemTime::now()));
    let mut load = Load::start(zdr.address(), &shape).unwrap();
    let mut times = Vec::new();
    for _ in 0..reloads {
        assert!(load.wait_for_answers(20, DEADLINE), "no answers:\n{}", load.stop());
        let asked = Instant::now();
        let told = zdr.reload();
        assert_eq!(told.code, 0, "{told:?}");
        let serving = zdr.serving();
        let Some(first) = load.wait_for_answer_of(|generation| Some(generation) >= serving, DEADLINE) else {
            panic!("generation {serving:?} answered nobody:\n{}", load.stop());
        };
        times.push(first - asked);
    }
    zdr.wait_until("the old ones to drain", |status| in_seat(status, "draining").is_none());
    assert!(load.wait_for_answers(20, DEADLINE), "no answers at the end:\n{}", load.stop());
    let report = load.stop();
    times.sort();
    let (new, kept) = (&report.new_connection, &report.keep_alive);
    let [late, latest] = new.steady.within([0.99, 1.0]).unwrap_or_default();
    eprintln!(
        "{}: {reloads} reloads in {:.0?}, first new answer after {:.0?} (median); new connections: {} ok, {} failed; \
         keep-alive: {} ok, {} failed, {} retried; p99 {} ms, max {} ms from when each was due",
        std::thread::current().name().unwrap_or_default(),
        begun.elapsed(),
        times[times.len() / 2],
        new.ok,
        new.failed(),
        kept.ok,
        kept.failed(),
        kept.closed_idle,
        late.as_millis(),
        latest.as_millis(),
    );
    let lost = if end == End::InOrder { report.failed() } else { new.failed() };
    assert!(lost == 0, "the load began at {begun_at}\n{report}");
}

#[test]
fn a_rust_server_that_ends_in_order_loses_nothing() {
    trial(&rust(End::InOrder), End::InOrder).loses_nothing();
}

#[test]
fn a_rust_server_that_dies_at_once_loses_no_new_connection() {
    trial(&rust(End::Abrupt), End::Abrupt).loses_nothing();
}

#[test]
fn a_threaded_python_server_that_ends_in_order_loses_nothing() {
    trial(&threads(End::InOrder), End::InOrder).loses_nothing();
}

#[test]
fn a_threaded_python_server_that_dies_at_once_loses_no_new_connection() {
    trial(&threads(End::Abrupt), End::Abrupt).loses_nothing();
}

#[test]
fn an_asyncio_server_that_ends_in_order_loses_nothing() {
    trial(&asyncio(End::InOrder), End::InOrder).loses_nothing();
}

#[test]
fn an_asyncio_server_that_dies_at_once_loses_no_new_connection() {
    trial(&asyncio(End::Abrupt), End::Abrupt).loses_nothing();
}

#[test]
fn a_node_server_that_ends_in_order_loses_nothing() {
    trial(&server("node", "node/server.js", End::InOrder), End::InOrder).loses_nothing();
}

#[test]
fn a_node_server_that_dies_at_once_loses_no_new_connection() {
    trial(&server("node", "node/server.js", End::Abrupt), End::Abrupt).loses_nothing();
}

/// As its README starts it: `zdr run --listen 127.0.0.1:8080 --ready /health -- gunicorn app:app`.
#[test]
fn gunicorn_as_it_comes_loses_nothing() {
    let setup = Setup::of(&gunicorn(&[])).option("--ready", "/health");
    Trial { setup, end: End::InOrder, rate: 5.0 }.loses_nothing();
}

#[test]
fn gunicorn_with_several_workers_loses_nothing() {
    trial(&gunicorn(&["--workers", "2"]), End::InOrder).rate(10.0).loses_nothing();
}

#[test]
fn gunicorn_with_threads_loses_nothing() {
    trial(&gunicorn(&["--threads", "8"]), End::InOrder).rate(25.0).loses_nothing();
}

/// Nothing is asked of the server but that it accepts.
#[test]
fn the_usual_readiness_loses_nothing() {
    let setup = Setup::of(&rust(End::Abrupt)).option("--bake", "0s");
    Trial { setup, end: End::Abrupt, rate: 50.0 }.loses_nothing();
}
