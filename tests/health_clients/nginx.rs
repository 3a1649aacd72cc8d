//! nginx with `contrib/nginx-health.conf`, before two servers under zdr.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Beside, begin_to_crash, cease_to_crash, contributed, free_port, server_on_condition};
use crate::admin::health_address;
use crate::harness::{DEADLINE, Zdr, get, wait_for};
use crate::load::{Load, Shape};

/// Started in the foreground and in a folder of its own, all else as the file has it.
fn before(one: &Zdr, other: &Zdr) -> (Beside, SocketAddr) {
    let port = free_port();
    let places = [one.address(), other.address(), health_address(one), health_address(other)].map(|at| at.to_string());
    let replaced = [
        ("127.0.0.1:8080", places[0].as_str()),
        ("127.0.0.1:8081", &places[1]),
        ("127.0.0.1:9000 max", &format!("{} max", places[2])),
        ("127.0.0.1:9001 max", &format!("{} max", places[3])),
        ("listen 127.0.0.1:80;", &format!("listen 127.0.0.1:{port};")),
    ];
    fs::write(one.place("health.conf"), contributed("nginx-health.conf", &replaced)).unwrap();
    let folder = one.folder().display();
    let paths = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let paths = paths.map(|kind| format!("{kind}_temp_path {folder}/{kind};")).concat();
    let main = format!(
        "daemon off; error_log stderr; worker_processes 1; pid {folder}/nginx.pid; events {{}} \
         http {{ access_log off; {paths} include {folder}/health.conf; }}"
    );
    fs::write(one.place("nginx.conf"), main).unwrap();
    let nginx = Beside::start(&["/usr/sbin/nginx", "-c", &one.place("nginx.conf")], one.folder().join("nginx.log"));
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    wait_for("nginx to be there", || TcpStream::connect(address).ok());
    (nginx, address)
}

#[test]
fn nginx_loses_no_request_over_reloads_and_goes_to_the_other_where_one_has_stopped() {
    let (one, other) = (server_on_condition().start(), server_on_condition().start());
    let (_nginx, address) = before(&one, &other);
    let shape = Shape {
        new_connection_clients: 3,
        keep_alive_clients: 3,
        rate_per_client: Some(100.0),
        path: "/".to_owned(),
        limit: Duration::from_secs(10),
    };
    let load = Load::start(address, &shape).unwrap();
    assert!(load.wait_for_answers(50, shape.limit));
    for _ in 0..3 {
        assert_eq!(one.reload().code, 0);
        assert_eq!(other.reload().code, 0);
    }
    assert_eq!(one.client(&["stop"]).code, 0);
    assert!(load.wait_for_answers(200, shape.limit));
    let report = load.stop();
    assert_eq!(report.failed(), 0, "{report}\n{}", one.log());
}

#[test]
fn nginx_passes_on_how_the_healthiest_is() {
    let (one, other) = (server_on_condition().start(), server_on_condition().start());
    let (_nginx, address) = before(&one, &other);
    let told = |path: &str| (0..4).map(|_| get(address, path).0).collect::<Vec<_>>();
    assert_eq!(told("/health"), [200; 4]);
    begin_to_crash(&one);
    assert_eq!((told("/health"), told("/health/ready")), (vec![200; 4], vec![200; 4]));
    begin_to_crash(&other);
    assert_eq!((told("/health"), told("/health/ready")), (vec![503; 4], vec![503; 4]));
    assert_eq!(told("/health/live"), [200; 4]);
    cease_to_crash(&one);
    one.wait_until("it to serve again", |status| status["ready"] == true);
    assert_eq!(told("/health"), [200; 4]);
}

#[test]
fn nginx_passes_events_on_one_by_one() {
    let (one, other) = (server_on_condition().start(), server_on_condition().start());
    let (_nginx, address) = before(&one, &other);
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(b"GET /health/$stream?poll_interval=0.2 HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    let mut next = || {
        let data = lines.find_map(|line| line.strip_prefix("data: ").map(str::to_owned)).unwrap();
        (serde_json::from_str::<Value>(&data).unwrap(), Instant::now())
    };
    let heard: Vec<_> = (0..4).map(|_| next()).collect();
    assert!(heard.iter().all(|(report, _)| report["status"] == "healthy"), "{heard:?}");
    // Held back, they would have come together.
    let apart = heard.windows(2).map(|pair| pair[1].1 - pair[0].1).min().unwrap();
    assert!(apart > Duration::from_millis(50), "{apart:?}");
}
