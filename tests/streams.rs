//! What goes on: the kept story and the stream of reports, with readers who come late, come back, are many, or go away.

use std::io::{BufRead, BufReader, ErrorKind, Lines, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::admin::health_address;
use crate::harness::{DEADLINE, Setup, Zdr, get, sample, wait_for};

fn started() -> Zdr {
    Setup::of(&sample(&[])).option("--health", "127.0.0.1:0").start()
}

/// The whole answer to a GET of something that ends.
fn whole(address: SocketAddr, path: &str, headers: &str) -> String {
    let mut stream = open(address, path, headers);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn open(address: SocketAddr, path: &str, headers: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: z\r\n{headers}\r\n").unwrap();
    stream
}

fn numbers(answer: &str) -> Vec<u64> {
    answer.lines().filter_map(|line| line.strip_prefix("id: ")?.parse().ok()).collect()
}

fn next_data(lines: &mut Lines<BufReader<TcpStream>>) -> Value {
    let data = lines.map(Result::unwrap).find(|line| line.starts_with("data: ")).expect("it goes on");
    serde_json::from_str(data.strip_prefix("data: ").unwrap()).unwrap()
}

#[test]
fn a_late_reader_gets_the_story_from_its_beginning() {
    let zdr = started();
    assert_eq!(zdr.reload_to(&sample(&["--bad", "exit:3"])).code, 3);
    let answer = whole(health_address(&zdr), "/v1/events?follow=false", "");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    for header in [
        "content-type: text/event-stream",
        "cache-control: no-store",
        "x-accel-buffering: no",
        "x-content-type-options: nosniff",
        "connection: close",
    ] {
        assert!(head.lines().any(|line| line == header), "{header}: {head}");
    }
    assert!(body.contains("retry: 1000\n"), "{body}");
    let told = numbers(body);
    assert_eq!(told, (1..=u64::try_from(told.len()).unwrap()).collect::<Vec<_>>());
    for event in ["spawned", "serving", "failed", "verdict"] {
        assert!(body.contains(&format!("\nevent: {event}\ndata: {{")), "{event}: {body}");
    }
    assert!(body.contains("exited with code 3"), "{body}");
    let on_admin = zdr.ask_raw("GET /v1/events?follow=false HTTP/1.0\r\n\r\n");
    assert_eq!(numbers(&on_admin), told);
}

#[test]
fn a_reader_that_comes_back_gets_what_it_missed_and_nothing_twice() {
    let zdr = started();
    assert_eq!(zdr.reload().code, 0);
    let address = health_address(&zdr);
    let all = numbers(&whole(address, "/v1/events?follow=false", ""));
    let last = *all.last().unwrap();
    for (path, header) in
        [("&last_event_id=2", ""), ("", "Last-Event-ID: 2\r\n"), ("&last_event_id=1", "last-event-id: 2\r\n")]
    {
        let path = format!("/v1/events?follow=false{path}");
        assert_eq!(numbers(&whole(address, &path, header)), (3..=last).collect::<Vec<_>>(), "{path} {header}");
    }
    assert!(numbers(&whole(address, &format!("/v1/events?follow=false&last_event_id={last}"), "")).is_empty());
    // Whoever has heard more than was told has heard it of a zdr that is gone.
    assert_eq!(numbers(&whole(address, "/v1/events?follow=false", "Last-Event-ID: 4711\r\n")), all);

    let mut lines = BufReader::new(open(address, "/v1/events", &format!("Last-Event-ID: {last}\r\n"))).lines();
    assert!(lines.any(|line| line.unwrap().starts_with(": the story")));
    assert_eq!(zdr.reload().code, 0);
    assert_eq!(next_data(&mut lines)["id"], last + 1);
}

#[test]
fn wrong_values_are_refused_with_the_way_out() {
    let zdr = started();
    let address = health_address(&zdr);
    for path in [
        "/v1/events?last_event_id=x",
        "/v1/events?last_event_id=-1",
        "/v1/events?follow=perhaps",
        "/health/$stream?poll_interval=0.05",
        "/health/$stream?poll_interval=3601",
        "/health/$stream?poll_interval=",
        "/health/$stream?poll_interval=NaN",
    ] {
        let (status, body) = get(address, path);
        assert_eq!(status, 400, "{path}: {body}");
        assert!(body.contains("should be "), "{path}: {body}");
    }
    let answer = whole(address, "/v1/events", "Last-Event-ID: seven\r\nConnection: close\r\n");
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
}

#[test]
fn the_first_report_comes_at_once_and_each_has_a_number() {
    let zdr = started();
    let mut hourly = BufReader::new(open(health_address(&zdr), "/health/$stream?poll_interval=3600", "")).lines();
    assert_eq!(next_data(&mut hourly)["generation"], 1);
    let mut often = BufReader::new(open(health_address(&zdr), "/health/$stream?poll_interval=0.1", "")).lines();
    let mut last = 0;
    for _ in 0..5 {
        let number = often.by_ref().map(Result::unwrap).find_map(|line| line.strip_prefix("id: ")?.parse().ok());
        assert!(number > Some(last), "{number:?} {last}");
        last = number.unwrap();
    }
}

#[test]
fn head_of_a_stream_is_its_head() {
    let zdr = started();
    for path in ["/health/$stream", "/v1/events"] {
        let mut stream = TcpStream::connect(health_address(&zdr)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(stream, "HEAD {path} HTTP/1.1\r\nHost: z\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("text/event-stream"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    }
}

#[test]
fn streams_end_with_zdr() {
    let mut zdr = started();
    let address = health_address(&zdr);
    let mut streams = [open(address, "/health/$stream", ""), open(address, "/v1/events", "")];
    let admin = zdr.admin();
    let mut on_admin = UnixStream::connect(admin).unwrap();
    on_admin.set_read_timeout(Some(DEADLINE)).unwrap();
    on_admin.write_all(b"GET /v1/events HTTP/1.0\r\n\r\n").unwrap();
    for stream in &mut streams {
        assert!(stream.read(&mut [0]).unwrap() > 0);
    }
    assert!(on_admin.read(&mut [0]).unwrap() > 0);
    zdr.signal(Signal::SIGTERM);
    zdr.ended();
    for mut stream in streams {
        stream.read_to_end(&mut Vec::new()).unwrap();
    }
    let mut rest = String::new();
    on_admin.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("event: stopping"), "{rest}");
}

#[test]
fn two_thousand_readers_keep_no_probe_out_and_are_let_go() {
    let zdr = started();
    let address = health_address(&zdr);
    let before = descriptors(&zdr);
    let mut readers = Vec::new();
    for _ in 0..2000 {
        let mut reader = open(address, "/health/$stream?poll_interval=0.5", "");
        let mut head = [0; 15];
        reader.read_exact(&mut head).unwrap();
        assert_eq!(&head, b"HTTP/1.1 200 OK");
        readers.push(reader);
    }
    for path in ["/health", "/health/ready", "/v1/events?follow=false"] {
        assert_eq!(get(address, path).0, 200, "{path}");
    }
    assert_eq!(zdr.reload().code, 0);
    let mut told = 0;
    for reader in readers.iter().step_by(100) {
        let mut lines = BufReader::new(reader.try_clone().unwrap()).lines();
        wait_for("every reader to hear of the reload", || (next_data(&mut lines)["generation"] == 2).then_some(()));
        told += 1;
    }
    assert_eq!(told, 20);
    drop(readers);
    wait_for("their places to be free", || (descriptors(&zdr) < before + 20).then_some(()));
}

fn descriptors(zdr: &Zdr) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", zdr.pid())).unwrap().count()
}

#[test]
fn where_files_are_few_readers_are_refused_before_anything_else_is() {
    let few = ["sh", "-c", "ulimit -n 900; exec \"$@\"", "sh"];
    let zdr = Setup::of(&sample(&[])).through(&few).option("--health", "127.0.0.1:0").start();
    let address = health_address(&zdr);
    let mut readers = Vec::new();
    for _ in 0..1000 {
        let mut reader = open(address, "/v1/events", "");
        let mut head = [0; 12];
        match reader.read_exact(&mut head) {
            Ok(()) if head.ends_with(b"200") => readers.push(reader),
            Ok(()) => assert!(head.ends_with(b"503"), "{}", String::from_utf8_lossy(&head)),
            Err(error) => assert!(matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset)),
        }
    }
    assert!((50..500).contains(&readers.len()), "{}", readers.len());
    assert_eq!(get(address, "/health").0, 200);
    assert_eq!(zdr.reload().code, 0);
}

#[test]
fn a_server_has_the_limit_of_open_files_that_zdr_was_given() {
    let few = ["sh", "-c", "ulimit -Sn 900; exec \"$@\"", "sh"];
    for (options, wanted) in [(&[][..], "900"), (&["nofile=800:1000"][..], "800")] {
        let setup = Setup::of(&["sh", "-c", "ulimit -Sn >&2; exec sleep 1000"]).through(&few);
        let setup = options.iter().fold(setup, |setup, limit| setup.option("--limit", limit));
        let zdr = setup.option("--ready", "10ms").start();
        assert!(zdr.log().lines().any(|line| line == wanted), "{}", zdr.log());
    }
}
