//! A server that measures itself: what the system calls cost it that zdr is asked about, and the others.
//!
//! It is played by the binary of the measurements, as another process, because a program that is not interpreted is needed.

use std::collections::BTreeMap;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::hint::black_box;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, socket};
use nix::unistd::getppid;

use super::arms::Arm;
use super::ratios::median;
use crate::harness::get;

/// Tells it its port, and that it is to play at all.
const PORT: &str = "MEASURED_PORT";

/// What costs a call that zdr is not asked about.
pub(super) const ANY_CALL: &str = "any other call";

/// Nanoseconds for each thing that it does.
pub(super) type Told = BTreeMap<String, f64>;

pub(super) fn command(port: u16) -> Vec<String> {
    let itself = env::current_exe().unwrap().display().to_string();
    let test = "capture_cost::told::plays_a_server_that_measures_itself";
    let words = ["env", &format!("{PORT}={port}"), &itself, "--ignored", "--exact", "--test-threads=1", test];
    words.map(str::to_owned).to_vec()
}

/// Has it measure once more.
pub(super) fn ask(arm: &Arm) -> Told {
    let body = get(arm.address, "/measure").1;
    let line = |line: &str| line.split_once(": ").map(|(what, ns)| (what.to_owned(), ns.parse().unwrap()));
    body.lines().filter_map(line).collect()
}

fn nanoseconds<T>(work: impl FnOnce() -> T) -> (f64, T) {
    let begun = Instant::now();
    let done = work();
    (begun.elapsed().as_secs_f64() * 1e9, done)
}

fn unbound() -> OwnedFd {
    socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap()
}

#[test]
#[ignore = "a part that the measurements play in a process of their own"]
fn plays_a_server_that_measures_itself() {
    const CALLS: u32 = 5_000;
    let Ok(port) = env::var(PORT) else { return };
    let at = |port| SockaddrIn::new(127, 0, 0, 1, port);
    let own = unbound();
    let (bound, result) = nanoseconds(|| bind(own.as_raw_fd(), &at(port.parse().unwrap())));
    result.unwrap();
    let (listening, result) = nanoseconds(|| listen(&own, Backlog::new(128).unwrap()));
    result.unwrap();
    for mut stream in TcpListener::from(own).incoming().flatten() {
        let lines = BufReader::new(&stream).lines().map_while(Result::ok);
        let request: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
        let Some(asked) = request.first() else { continue };
        let mut answer = format!("bind: {bound}\nlisten: {listening}\n");
        if asked.starts_with("GET /measure ") {
            let other = (0..200).map(|_| {
                let socket = unbound();
                nanoseconds(|| bind(socket.as_raw_fd(), &at(0))).0
            });
            let unlink = (0..200).map(|_| nanoseconds(|| fs::remove_file("/nonexistent/file")).0);
            let (unlink, other) = (median(unlink.collect()), median(other.collect()));
            let calls = || {
                for _ in 0..CALLS {
                    black_box(getppid());
                }
            };
            // The best of some short times, because whatever disturbs makes it worse.
            let call = (0..50).map(|_| nanoseconds(calls).0).fold(f64::MAX, f64::min) / f64::from(CALLS);
            let _ = write!(answer, "bind to any port: {other}\nunlink: {unlink}\n{ANY_CALL}: {call}\n");
        }
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", answer.len());
        let _ = stream.write_all((head + &answer).as_bytes());
    }
}
