//! Figures of zdr on this machine, beside those of the same server without it. `tests/measure` runs them, in a release build.
//!
//! They claim nothing, so that a slow machine fails no test; what must hold is claimed elsewhere.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a measurement says what went wrong by panicking"
)]

mod answers;
mod capture_cost;
#[expect(dead_code, reason = "shared with the tests, which need more of it")]
mod harness;
#[path = "../src/rehearse/load.rs"]
#[expect(dead_code, reason = "the measurements need less of it than `zdr rehearse`")]
mod load;
mod looking;
mod many;
#[expect(dead_code, reason = "shared with the tests, which try more of them")]
mod servers;

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use answers::Answers;
use harness::{DEADLINE, Setup, Zdr, in_seat, sample};
use load::{Load, Shape};
use servers::{End, asyncio};

/// Of so many the median is taken.
const ROUNDS: usize = 20;

/// A server with no supervisor, on a socket that is there before it.
struct Alone {
    child: Child,
    address: SocketAddr,
}

impl Alone {
    /// `sh` moves the socket to its place and becomes the server.
    fn start(command: &[String]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let script = "LISTEN_PID=$$ exec \"$@\" 3<&0 </dev/null";
        let child = Command::new("sh")
            .args(["-c", script, "sh"])
            .args(command)
            .env("LISTEN_FDS", "1")
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .spawn()
            .unwrap();
        Self { child, address }
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

fn range(times: &[Duration]) -> String {
    let (least, most) = (times.iter().min().unwrap(), times.iter().max().unwrap());
    format!("{:.1?} ({least:.1?} to {most:.1?})", median(times.to_vec()))
}

/// From exec to the first answer, to a request that has waited since before.
fn own_start(command: &[String]) -> Duration {
    let begun = Instant::now();
    let alone = Alone::start(command);
    let mut stream = TcpStream::connect(alone.address).unwrap();
    stream.write_all(b"GET /health HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    assert!(line.contains(" 200 "), "{line}");
    begun.elapsed()
}

/// From the start of the client command to the first answer of the new generation, and to its end.
fn first_answer_after_reload(zdr: &Zdr, load: &mut Load) -> (Duration, Duration) {
    let serving = zdr.serving();
    let begun = Instant::now();
    assert_eq!(zdr.reload().code, 0, "{}", zdr.log());
    let told = begun.elapsed();
    let first = load.wait_for_answer_of(|generation| Some(generation) > serving, DEADLINE).unwrap();
    (first - begun, told)
}

/// Two clients that ask every 4 ms see an answer 1 ms late at the median, and leave the machine to the server.
fn watchers(address: SocketAddr) -> Load {
    let shape = Shape {
        new_connection_clients: 2,
        keep_alive_clients: 0,
        rate_per_client: Some(250.0),
        path: "/health".to_owned(),
        limit: DEADLINE,
    };
    Load::start(address, &shape).unwrap()
}

#[test]
fn reload_beside_the_servers_own_start() {
    for (name, command) in [("rust", sample(&[])), ("python", asyncio(End::InOrder))] {
        for ready in [Some("/health"), None] {
            let setup = Setup::of(&command).option("--bake", "0s").option("--drain-idle", "100ms");
            let zdr = ready.into_iter().fold(setup, |setup, path| setup.option("--ready", path)).start();
            let mut load = watchers(zdr.address());
            let (mut own, mut first, mut told) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..ROUNDS {
                zdr.wait_until("the old one to end", |status| in_seat(status, "draining").is_none());
                own.push(own_start(&command));
                let (first_answer, verdict) = first_answer_after_reload(&zdr, &mut load);
                first.push(first_answer);
                told.push(verdict);
            }
            let report = load.stop();
            assert_eq!(report.failed(), 0, "{report}");
            let over = (median(first.clone()).as_secs_f64() - median(own.clone()).as_secs_f64()) * 1e3;
            let (ready, own, first, told) = (ready.unwrap_or("default"), range(&own), range(&first), range(&told));
            eprintln!(
                "{name}, ready {ready}: own start {own}; reload to first new answer {first}: {over:+.1} ms; verdict {told}"
            );
        }
    }
}

#[test]
fn rollback_to_the_first_answer_of_the_old_one() {
    for (name, command) in [("rust", sample(&[])), ("python", asyncio(End::InOrder))] {
        let setup = |keep| {
            let setup = Setup::of(&command).option("--bake", "0s").option("--bake-keep", keep);
            setup.option("--ready", "/health").option("--drain-idle", "100ms").start()
        };
        let zdr = setup("1m");
        let answers = Answers::watch(zdr.address());
        let (asked, commanded): (Vec<_>, Vec<_>) =
            (0..50).map(|_| answers.warm_rollbacks(&zdr)).map(|times| (times.asked, times.commanded)).unzip();
        drop(answers);
        let zdr = setup("0s");
        let answers = Answers::watch(zdr.address());
        let (mut own, mut cold) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            own.push(own_start(&command));
            cold.push(answers.after_a_reload(
                &zdr,
                || {
                    zdr.wait_until("the old one to end", |status| in_seat(status, "draining").is_none());
                },
                || assert_eq!(zdr.client(&["rollback"]).code, 0),
            ));
        }
        let over = (median(cold.clone()).as_secs_f64() - median(own.clone()).as_secs_f64()) * 1e3;
        let (asked, commanded, own, cold) = (range(&asked), range(&commanded), range(&own), range(&cold));
        eprintln!("{name}, kept warm: first old answer {asked} after the order, {commanded} with the command");
        eprintln!("{name}, not kept: own start {own}; first old answer {cold} with the command: {over:+.1} ms");
    }
}

/// Requests a second that one kind of client gets answered when it asks as fast as it can.
fn throughput(address: SocketAddr, new_connection_clients: usize, keep_alive_clients: usize) -> f64 {
    let path = "/health".to_owned();
    let shape = Shape { new_connection_clients, keep_alive_clients, rate_per_client: None, path, limit: DEADLINE };
    let begun = Instant::now();
    let load = Load::start(address, &shape).unwrap();
    park_timeout(Duration::from_secs(2));
    let report = load.stop();
    assert_eq!(report.failed(), 0, "{report}");
    #[expect(clippy::cast_precision_loss, reason = "a few hundred thousand requests")]
    let answered = (report.new_connection.ok + report.keep_alive.ok) as f64;
    answered / begun.elapsed().as_secs_f64()
}

#[test]
fn throughput_with_and_without() {
    for (name, command) in [("rust", sample(&[])), ("python", asyncio(End::InOrder))] {
        let alone = Alone::start(&command);
        let zdr = Setup::of(&command).option("--ready", "/health").start();
        for (kind, new, kept) in [("new connections", 8, 0), ("keep-alive", 0, 8)] {
            let mut found = Vec::new();
            for _ in 0..5 {
                found.push((throughput(alone.address, new, kept), throughput(zdr.address(), new, kept)));
            }
            let middle = |mut rates: Vec<f64>| {
                rates.sort_by(f64::total_cmp);
                rates[rates.len() / 2]
            };
            let (without, with): (Vec<_>, Vec<_>) = found.into_iter().unzip();
            let (without, with) = (middle(without), middle(with));
            eprintln!(
                "{name}, {kind}: {without:.0}/s alone, {with:.0}/s under zdr: {:+.1} %",
                (with / without - 1.0) * 100.0
            );
        }
    }
}

/// One request at a time, as an event loop that computes: `/slow` holds it for half a second. The number of the instance goes
/// where the load client counts.
const ONE_AT_A_TIME: &str = r"
import os, select, socket, time
s = socket.socket(fileno=3)
s.setblocking(False)
queue = select.epoll()
queue.register(s, select.EPOLLIN)
while True:
    queue.poll()
    try:
        c, _ = s.accept()
    except BlockingIOError:
        continue
    c.setblocking(True)
    head = b''
    while b'\r\n\r\n' not in head:
        head += c.recv(4096) or b'\r\n\r\n'
    time.sleep(0.5 if head.startswith(b'GET /slow') else 0.001)
    answer = 'HTTP/1.1 200 OK\r\nX-Generation: %s\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok'
    c.sendall((answer % os.environ['ZDR_INSTANCE']).encode())
    c.close()
";

#[test]
fn queues_shared_and_per_instance() {
    const TIME: Duration = Duration::from_secs(10);
    for (queue, is_slow) in [("shared", false), ("per-instance", false), ("shared", true), ("per-instance", true)] {
        let command = ["python3", "-I", "-S", "-c", ONE_AT_A_TIME];
        let zdr = Setup::of(&command).option("-n", "4").option("--queue", queue).start();
        let (address, begun) = (zdr.address(), Instant::now());
        let path = "/".to_owned();
        let (new_connection_clients, rate_per_client, limit) = (8, Some(50.0), DEADLINE);
        let shape = Shape { new_connection_clients, keep_alive_clients: 0, rate_per_client, path, limit };
        let load = Load::start(address, &shape).unwrap();
        while is_slow && begun.elapsed() < TIME {
            assert_eq!(harness::get(address, "/slow").0, 200);
        }
        park_timeout(TIME.saturating_sub(begun.elapsed()));
        let report = load.stop();
        assert_eq!(report.failed(), 0, "{report}");
        let [half, most, all] = report.new_connection.steady.within([0.5, 0.99, 1.0]).unwrap();
        let spread: Vec<u64> = report.new_connection.by_generation.values().copied().collect();
        let slow = if is_slow { ", a slow request in one of them" } else { "" };
        eprintln!("queue {queue}{slow}: p50 {half:.1?}, p99 {most:.1?}, longest {all:.1?}; by instance {spread:?}");
    }
}

/// The sum of a number in the status files of all threads.
fn sum_of(pid: i32, field: &str) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let number = |text: &str| {
        let line = text.lines().find(|line| line.starts_with(field)).unwrap_or_default();
        line.split_ascii_whitespace().nth(1).and_then(|number| number.parse::<u64>().ok()).unwrap_or(0)
    };
    threads.map(|thread| number(&fs::read_to_string(thread.path().join("status")).unwrap_or_default())).sum()
}

fn count_in(pid: i32, folder: &str) -> usize {
    fs::read_dir(format!("/proc/{pid}/{folder}")).unwrap().count()
}

fn resident_kib(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_ascii_whitespace().nth(1).unwrap().parse().unwrap()
}

fn frugality(zdr: &Zdr, reloads: u64) {
    zdr.wait_until("the old ones to drain", |status| in_seat(status, "draining").is_none());
    // Threads for blocking work stay a second.
    park_timeout(Duration::from_secs(2));
    let pid = zdr.pid();
    let (resident, open, threads) = (resident_kib(pid), count_in(pid, "fd"), count_in(pid, "task"));
    eprintln!("after {reloads} reloads: {resident} KiB resident, {open} descriptors, {threads} threads");
}

#[test]
fn frugal_over_a_thousand_reloads() {
    let zdr = Setup::of(&sample(&[])).option("--bake", "0s").start();
    frugality(&zdr, 0);
    for reloads in 1..=1000 {
        assert_eq!(zdr.reload().code, 0, "{}", zdr.log());
        if reloads == 20 {
            frugality(&zdr, reloads);
            let switches = || sum_of(zdr.pid(), "voluntary_ctxt_switches:");
            let before = switches();
            park_timeout(Duration::from_secs(10));
            eprintln!("idle for 10 s: {} voluntary context switches", switches() - before);
        }
        if reloads == 100 || reloads == 1000 {
            frugality(&zdr, reloads);
        }
    }
}
