//! Health answers at once, whatever zdr has to do meanwhile.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use crate::admin::health_address;
use crate::harness::{DEADLINE, Setup, in_seat, sample, wait_for};
use crate::many::kept_connections;

/// So many drain.
const CONNECTIONS: usize = 10_000;

/// The promise, of the release binary in `$ZDR_RELEASE_BINARY`: of a hundred answers, 99 come in this time.
const PROMPT: Duration = Duration::from_millis(5);

/// A debug binary is not built to be fast; its bound is there to notice what waits for something.
const PROMPT_IN_DEBUG: Duration = Duration::from_millis(50);

/// How long it takes until the whole answer is there.
fn asked(address: SocketAddr, path: &str) -> Duration {
    let begun = Instant::now();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    begun.elapsed()
}

#[test]
fn health_answers_at_once_while_reloads_and_a_check_hang_and_ten_thousand_connections_drain() {
    let release = std::env::var("ZDR_RELEASE_BINARY").ok();
    let bound = if release.is_some() { PROMPT } else { PROMPT_IN_DEBUG };
    let setup = Setup::of(&sample(&[]))
        .option("--health", "127.0.0.1:0")
        .option("--limit", "nofile=15000")
        .option("--ready", "/health")
        .option("--ready-timeout", "1s")
        .option("--check", "hangs=exec:sleep 1000,timeout=1s,interval=1s")
        .option("--bake", "0s")
        .option("--drain-idle", "1h")
        .option("--drain-timeout", "1h");
    let zdr = release.iter().fold(setup, |setup, binary| setup.binary(binary)).start();
    let address = health_address(&zdr);
    let mut connections = kept_connections(zdr.address(), CONNECTIONS);
    // One that is never answered keeps them from being signalled.
    connections[0].write_all(b"GET / HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\n\r\n").unwrap();
    assert_eq!(zdr.reload().code, 0, "{}", zdr.log());
    zdr.wait_until("all to drain", |status| {
        in_seat(status, "draining") == Some(1) && status["connections"].as_u64() >= CONNECTIONS.try_into().ok()
    });
    let (mut times, mut of_server) = (Vec::new(), Vec::new());
    let hangs = sample(&["--bad", "hang"]);
    let to_one_that_hangs: Vec<&str> = ["reload", "--"].into_iter().chain(hangs.iter().map(String::as_str)).collect();
    let mut reload = zdr.client_in_background(&to_one_that_hangs);
    for _ in 0..200 {
        for path in ["/health", "/health/ready", "/health/live", "/health", "/health/startup"] {
            times.push((asked(address, path), path));
        }
        of_server.push(asked(zdr.address(), "/health"));
        if let Some(end) = reload.try_wait().unwrap() {
            assert_eq!(end.code(), Some(3), "{}", zdr.log());
            reload = zdr.client_in_background(&to_one_that_hangs);
        }
        park_timeout(Duration::from_millis(5));
    }
    wait_for("the end of the last reload", || reload.try_wait().unwrap());
    assert_eq!(in_seat(&zdr.status(), "draining"), Some(1), "{}", zdr.log());
    times.sort();
    of_server.sort();
    // What an idle process takes as well is the machine's, which other tests share.
    let machine = of_server[of_server.len() * 99 / 100];
    let (median, late, longest) = (times[times.len() / 2].0, times[times.len() * 99 / 100], times[times.len() - 1]);
    let figures = format!(
        "99 of 100 within {late:?}, median {median:?}, longest {longest:?}; an idle server's 99 within {machine:?}"
    );
    eprintln!("{figures}");
    assert!(late.0 <= bound + machine, "{figures}");
}
