//! Health: the exact fields and codes, on the admin socket and on a health address.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Command;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::admin::health_address;
use crate::harness::{DEADLINE, Setup, Told, Zdr, get, sample, wait_for};
use crate::python::python;

fn started() -> Zdr {
    Setup::of(&sample(&[])).option("--health", "127.0.0.1:0").start()
}

fn full(zdr: &Zdr) -> Value {
    serde_json::from_str(&get(health_address(zdr), "/health").1).unwrap()
}

#[test]
fn the_full_answer_has_exactly_these_fields() {
    let zdr = started();
    let report = full(&zdr);
    let mut fields: Vec<&String> = report.as_object().unwrap().keys().collect();
    fields.sort();
    let wanted = [
        "checks",
        "config_version",
        "connections",
        "cpu_secs",
        "crashes",
        "draining",
        "generation",
        "generations",
        "in_flight",
        "instances",
        "last_verdict",
        "listeners",
        "live",
        "memory_bytes",
        "name",
        "paused_secs",
        "pid",
        "ready",
        "rollback",
        "started",
        "state",
        "status",
        "uptime_secs",
        "version",
    ];
    assert_eq!(fields, wanted);
    assert_eq!((&report["status"], &report["live"], &report["ready"]), (&"healthy".into(), &true.into(), &true.into()));
    assert_eq!((&report["generation"], &report["in_flight"]), (&1.into(), &0.into()));
    assert_eq!(report["checks"]["serving"]["state"], "healthy");
    assert_eq!(report["checks"]["serving"]["message"], "generation 1 serves");
    assert!(report["uptime_secs"].as_f64().unwrap() > 0.0);
    assert!(report["memory_bytes"].as_u64().unwrap() > 100_000);
    assert!(report["listeners"][0]["queue_limit"].as_u64().unwrap() > 0);
}

#[test]
fn what_a_generation_runs_is_told_on_the_admin_socket_alone() {
    let zdr = started();
    assert!(full(&zdr)["generations"][0].get("command").is_none());
    let of_owner = zdr.status();
    assert!(!of_owner["generations"][0]["command"].as_array().unwrap().is_empty());
    assert_eq!(full(&zdr)["generations"][0]["pid"], of_owner["generations"][0]["pid"]);
}

#[test]
fn connections_are_told_for_each_generation() {
    let zdr = started();
    let _client = TcpStream::connect(zdr.address()).unwrap();
    wait_for("the connection to be counted", || {
        let report = full(&zdr);
        (report["generations"][0]["connections"] == 1 && report["connections"] == 1).then_some(())
    });
}

#[test]
fn every_path_of_the_family_answers() {
    let zdr = started();
    let address = health_address(&zdr);
    for path in [
        "/health",
        "/_health",
        "/health/",
        "/health/live",
        "/_health/live",
        "/health/ready",
        "/health/startup",
        "/livez",
        "/readyz",
        "/healthz",
        "/health?verbose",
    ] {
        let (status, body) = get(address, path);
        assert_eq!(status, 200, "{path}: {body}");
        assert!(serde_json::from_str::<Value>(&body).is_ok(), "{path}: {body}");
        let on_admin = zdr.ask_raw(&format!("GET {path} HTTP/1.0\r\n\r\n"));
        assert!(on_admin.split(' ').nth(1) == Some("200"), "{path}: {on_admin}");
    }
    assert_eq!(get(address, "/health/ready").1.trim(), "{\"ready\":true,\"state\":\"serving\"}");
    assert_eq!(get(address, "/health/live").1.trim(), "{\"live\":true}");
    assert_eq!(get(address, "/health/startup").1.trim(), "{\"started\":true,\"state\":\"serving\"}");
    for path in ["/healthy", "/health/nothing", "/v1/status", "/v1/reload", "/v1/stop"] {
        assert_eq!(get(address, path).0, 404, "{path}");
    }
}

/// The whole answer to a request, head and all.
fn raw(zdr: &Zdr, request: &str) -> String {
    let mut stream = TcpStream::connect(health_address(zdr)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn head_is_answered_like_get_without_a_body() {
    let zdr = started();
    let answer = raw(&zdr, "HEAD /health/live HTTP/1.1\r\nHost: z\r\nConnection: close\r\n\r\n");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && head.to_lowercase().contains("content-length: 14"), "{answer}");
    assert_eq!(body, "");
}

#[test]
fn orders_are_not_taken_on_a_health_address() {
    let zdr = started();
    for path in ["/v1/stop", "/v1/reload"] {
        let answer =
            raw(&zdr, &format!("POST {path} HTTP/1.1\r\nHost: z\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
        assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    }
    let answer = raw(&zdr, "POST /health HTTP/1.1\r\nHost: z\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 405") && answer.to_lowercase().contains("allow: get, head"), "{answer}");
    assert_eq!(zdr.serving(), Some(1));
}

#[test]
fn options_has_the_code_of_get_and_at_the_root_that_of_readiness() {
    let code = |zdr: &Zdr, method: &str, path: &str| {
        let answer = raw(zdr, &format!("{method} {path} HTTP/1.0\r\n\r\n"));
        answer.split(' ').nth(1).unwrap().parse::<u16>().unwrap()
    };
    let starting = Setup::of(&sample(&["--bad", "hang"])).option("--health", "127.0.0.1:0").begin();
    wait_for("the health address", || starting.log().contains("generation 1 started").then_some(()));
    for (zdr, ready) in [(&started(), 200), (&starting, 503)] {
        for path in
            ["/health", "/health/live", "/health/ready", "/health/startup", "/livez", "/readyz", "/healthz", "/x"]
        {
            assert_eq!(code(zdr, "OPTIONS", path), code(zdr, "GET", path), "{path}");
        }
        assert_eq!((code(zdr, "OPTIONS", "/"), code(zdr, "OPTIONS", "/health/$stream")), (ready, 405));
        assert_eq!(code(zdr, "OPTIONS", "/v1/events"), 405);
        let answer = raw(zdr, "OPTIONS / HTTP/1.0\r\n\r\n").to_lowercase();
        assert!(answer.contains("\r\nallow: get, head, options\r\n"), "{answer}");
    }
}

#[test]
fn before_the_first_generation_serves_readiness_and_startup_say_no_and_when_to_ask_again() {
    let zdr = Setup::of(&sample(&["--bad", "hang"])).option("--health", "127.0.0.1:0").begin();
    wait_for("the health address", || zdr.log().contains("generation 1 started").then_some(()));
    let address = health_address(&zdr);
    assert_eq!(get(address, "/health/live").0, 200);
    for (path, body) in [
        ("/health/ready", "{\"ready\":false,\"state\":\"starting\"}"),
        ("/health/startup", "{\"started\":false,\"state\":\"starting\"}"),
    ] {
        let (status, said) = get(address, path);
        assert_eq!((status, said.trim()), (503, body));
        let answer = raw(&zdr, &format!("GET {path} HTTP/1.0\r\n\r\n"));
        assert!(answer.to_lowercase().contains("retry-after: "), "{answer}");
    }
    let (status, body) = get(address, "/health");
    assert_eq!(status, 503);
    // Who searches for the word must not find it; who reads JSON reads it.
    assert!(!body.contains("healthy"), "{body}");
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["status"], "unhealthy");
}

#[test]
fn a_failed_reload_degrades_health_and_says_why() {
    let zdr = started();
    assert_eq!(zdr.reload_to(&sample(&["--bad", "exit:3"])).code, 3);
    let report = full(&zdr);
    assert_eq!((&report["status"], &report["ready"]), (&"degraded".into(), &true.into()));
    assert!(report["checks"]["last_reload"]["message"].as_str().unwrap().contains("exited with code 3"), "{report}");
    assert_eq!(get(health_address(&zdr), "/health").0, 200);
    // What failed has still failed when new connections were held for a while.
    for order in ["pause", "resume"] {
        assert_eq!(zdr.client(&[order]).code, 0);
    }
    assert_eq!(full(&zdr)["checks"]["last_reload"], report["checks"]["last_reload"]);
    assert_eq!(zdr.reload().code, 0);
    assert_eq!(full(&zdr)["status"], "healthy");
}

#[test]
fn requests_in_flight_are_counted() {
    let zdr = Setup::of(&sample(&["--work", "1000s"])).option("--health", "127.0.0.1:0").start();
    let _clients: Vec<TcpStream> = (0..3)
        .map(|_| {
            let mut client = TcpStream::connect(zdr.address()).unwrap();
            client.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
            client
        })
        .collect();
    let _idle = TcpStream::connect(zdr.address()).unwrap();
    zdr.wait_until("three requests and four connections", |status| {
        status["in_flight"] == 3 && status["connections"] == 4
    });
    assert_eq!((&full(&zdr)["in_flight"], &full(&zdr)["connections"]), (&3.into(), &4.into()));
}

#[test]
fn the_stream_says_again_and_again_how_things_are() {
    let zdr = started();
    let mut stream = TcpStream::connect(health_address(&zdr)).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(b"GET /health/$stream?poll_interval=0.1 HTTP/1.0\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.eq_ignore_ascii_case("content-type: text/event-stream")));
    let mut next = || {
        let data = lines.find(|line| line.starts_with("data: ")).unwrap();
        serde_json::from_str::<Value>(data.strip_prefix("data: ").unwrap()).unwrap()
    };
    assert_eq!(next()["generation"], 1);
    assert_eq!(next()["status"], "healthy");
    assert_eq!(zdr.reload().code, 0);
    wait_for("the stream to tell of the reload", || (next()["generation"] == 2).then_some(()));
}

#[test]
fn the_path_prefix_can_be_chosen() {
    let zdr = Setup::of(&sample(&[])).option("--health", "127.0.0.1:0").option("--health-path", "/up").start();
    let address = health_address(&zdr);
    assert_eq!((get(address, "/up").0, get(address, "/up/ready").0, get(address, "/health").0), (200, 200, 404));
}

#[test]
fn a_health_address_in_use_is_refused() {
    let zdr = started();
    let address = health_address(&zdr).to_string();
    let told = Setup::of(&sample(&[])).flag("--quiet").option("--health", &address).output();
    assert_eq!(told.code, 2, "{told:?}");
    assert!(told.error.contains(&format!("cannot answer health questions on {address}")), "{told:?}");
}

/// The answer to a GET on a Unix path.
fn get_on(path: &str, target: &str) -> String {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "GET {target} HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn health_may_be_asked_for_on_a_unix_path_by_everybody_until_zdr_ends() {
    let setup = Setup::of(&sample(&[]));
    let path = setup.place("health");
    let mut zdr = setup.option("--health", &format!("unix:{path}")).option("--health", "127.0.0.1:0").start();
    assert!(zdr.log().contains(&format!("address=unix:{path}")), "{}", zdr.log());
    assert!(get_on(&path, "/health").contains("\"status\":\"healthy\""));
    assert!(get_on(&path, "/v1/events?follow=false").contains("event: serving"));
    assert!(get_on(&path, "/v1/status").contains(" 404 Not Found\r\n"));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
    std::fs::set_permissions(zdr.folder(), PermissionsExt::from_mode(0o755)).unwrap();
    let script = "import os, socket, sys\n\
        os.setuid(65534)\n\
        s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n\
        s.sendall(b'GET /readyz HTTP/1.0\\r\\n\\r\\n')\n\
        print(s.recv(4096).decode())";
    let told: Told = Command::new(python()).args(["-I", "-S", "-c", script, &path]).output().unwrap().into();
    assert!(told.out.contains(" 200 OK"), "{told:?}");
    zdr.signal(Signal::SIGTERM);
    zdr.ended();
    assert!(!std::path::Path::new(&path).exists());
}

#[test]
fn the_path_of_a_dead_zdr_is_taken_over_and_that_of_a_living_one_is_not() {
    let setup = Setup::of(&sample(&[]));
    let path = setup.place("health");
    let health = format!("unix:{path},mode=0600");
    let mut first = setup.option("--health", &health).start();
    let told = Setup::of(&sample(&[])).option("--health", &health).output();
    assert_eq!(told.code, 2, "{told:?}");
    assert!(told.error.contains(&format!("process {} (zdr) listens there", first.pid())), "{told:?}");
    assert!(get_on(&path, "/health").contains(" 200 OK\r\n"));
    first.signal(Signal::SIGKILL);
    first.ended();
    assert!(std::path::Path::new(&path).exists());
    let second = Setup::of(&sample(&[])).option("--health", &health).start();
    let report = get_on(&path, "/health");
    assert!(report.contains(&format!("\"pid\":{},", second.pid())), "{report}");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let file = second.place("file");
    std::fs::write(&file, "").unwrap();
    let told = Setup::of(&sample(&[])).option("--health", &format!("unix:{file}")).output();
    assert_eq!((told.code, told.error.contains("there is a file that is no socket")), (2, true), "{told:?}");
}

#[test]
fn every_answer_is_for_now_only_and_no_guess_is_made_at_what_it_is() {
    let zdr = started();
    for request in ["GET /health", "GET /nothing", "POST /health", "GET /health/$stream?poll_interval=0"] {
        let answer =
            raw(&zdr, &format!("{request} HTTP/1.1\r\nHost: z\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
        for header in ["cache-control: no-store", "x-content-type-options: nosniff", "content-type: application/json"] {
            assert!(answer.lines().any(|line| line == header), "{header}: {answer}");
        }
    }
}

#[test]
fn health_ends_with_zdr() {
    let mut zdr = started();
    let address = health_address(&zdr);
    zdr.signal(Signal::SIGTERM);
    zdr.ended();
    assert_eq!(get(address, "/health/live").0, 0);
}
