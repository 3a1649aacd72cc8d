//! HAProxy with `contrib/haproxy.cfg`, asked over its stats socket what it thinks of each server.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use super::{Beside, begin_to_crash, cease_to_crash, contributed, server_on_condition};
use crate::admin::health_address;
use crate::harness::{DEADLINE, Zdr, free_port, get, wait_for};
use crate::load::{Load, Shape};

struct Haproxy {
    running: Beside,
    stats: String,
    address: SocketAddr,
}

/// Ways to ask that older files have. HAProxy warns of the first, and understands it.
const OLDER: &str = r"
backend of-long-ago
    option httpchk GET /healthz HTTP/1.1\r\nHost:\ www.example.org
    server web 127.0.0.1:8080 check port 9000

backend of-no-error
    option httpchk GET /_health
    http-check expect ! rstatus ^5
    server web 127.0.0.1:8080 check port 9000

backend of-a-pattern
    option httpchk GET /health
    http-check expect rstring (healthy|degraded)
    server web 127.0.0.1:8080 check port 9000
";

impl Haproxy {
    fn before(zdr: &Zdr) -> Self {
        let port = free_port();
        let (stats, configuration) = (zdr.place("stats"), zdr.place("haproxy.cfg"));
        let (web, health) = (zdr.address().to_string(), format!("port {}", health_address(zdr).port()));
        let (bind, address) = (format!("bind 127.0.0.1:{port}"), SocketAddr::from(([127, 0, 0, 1], port)));
        let replaced = [("/run/haproxy/admin.sock", stats.as_str()), ("bind 127.0.0.1:80\n", &format!("{bind}\n"))];
        let text = contributed("haproxy.cfg", &replaced) + OLDER;
        fs::write(&configuration, text.replace("127.0.0.1:8080", &web).replace("port 9000", &health)).unwrap();
        let running =
            Beside::start(&["/usr/sbin/haproxy", "-db", "-f", &configuration], zdr.folder().join("haproxy.log"));
        let haproxy = Self { running, stats, address };
        wait_for("HAProxy to be there", || UnixStream::connect(&haproxy.stats).ok());
        haproxy
    }

    /// Each backend with the state of its server and the outcome of its last check.
    fn opinions(&self) -> BTreeMap<String, (String, String)> {
        let mut socket = UnixStream::connect(&self.stats).unwrap();
        socket.write_all(b"show stat\n").unwrap();
        let mut table = String::new();
        socket.read_to_string(&mut table).unwrap();
        let mut lines = table.lines().map(|line| line.trim_start_matches("# ").split(',').collect::<Vec<_>>());
        let names = lines.next().unwrap();
        let column = |name: &str| names.iter().position(|it| *it == name).unwrap();
        let (proxy, server) = (column("pxname"), column("svname"));
        let (status, check) = (column("status"), column("check_status"));
        let servers = lines.filter(|line| line.get(server) == Some(&"web"));
        servers.map(|line| (line[proxy].to_owned(), (line[status].to_owned(), line[check].to_owned()))).collect()
    }

    /// Waits until all are of one mind.
    #[track_caller]
    fn all_say(&self, status: &str, checks: &[&str]) {
        let begun = Instant::now();
        loop {
            let opinions = self.opinions();
            assert_eq!(opinions.len(), 8, "{opinions:?}");
            if opinions.values().all(|(is, check)| is == status && checks.contains(&check.as_str())) {
                return;
            }
            assert!(begun.elapsed() < DEADLINE, "not all say {status}: {opinions:?}");
            park_timeout(Duration::from_millis(10));
        }
    }
}

#[test]
fn every_usual_check_of_haproxy_follows_what_zdr_knows() {
    let zdr = server_on_condition().start();
    let haproxy = Haproxy::before(&zdr);
    haproxy.all_say("UP", &["L7OK"]);
    begin_to_crash(&zdr);
    haproxy.all_say("DOWN", &["L7STS", "L7RSP"]);
    cease_to_crash(&zdr);
    haproxy.all_say("UP", &["L7OK"]);
}

#[test]
fn haproxy_sees_no_reload_and_loses_no_request_over_one() {
    let zdr = server_on_condition().start();
    let haproxy = Haproxy::before(&zdr);
    haproxy.all_say("UP", &["L7OK"]);
    let shape = Shape {
        new_connection_clients: 3,
        keep_alive_clients: 3,
        rate_per_client: Some(100.0),
        path: "/".to_owned(),
        limit: Duration::from_secs(10),
    };
    let load = Load::start(haproxy.address, &shape).unwrap();
    assert!(load.wait_for_answers(50, shape.limit));
    for _ in 0..5 {
        assert_eq!(zdr.reload().code, 0);
        haproxy.all_say("UP", &["L7OK"]);
    }
    // A bad release degrades health, and is no reason to send nobody there.
    assert_eq!(zdr.reload_to(&["false"]).code, 3);
    assert!(load.wait_for_answers(500, shape.limit));
    haproxy.all_say("UP", &["L7OK"]);
    let report = load.stop();
    assert_eq!(report.failed(), 0, "{report}\n{}", zdr.log());
    assert_eq!(downs(&haproxy), 0);
}

/// How often any server went down.
fn downs(haproxy: &Haproxy) -> usize {
    let log = fs::read_to_string(&haproxy.running.log).unwrap();
    log.lines().filter(|line| line.contains(" is DOWN")).count()
}

#[test]
fn haproxy_sends_nobody_any_more_before_a_stop_begins_to_drain() {
    let zdr = server_on_condition().option("--lame-duck", "60s").start();
    let haproxy = Haproxy::before(&zdr);
    haproxy.all_say("UP", &["L7OK"]);
    let mut stop = zdr.client_in_background(&["stop"]);
    haproxy.all_say("DOWN", &["L7STS", "L7RSP"]);
    assert!(downs(&haproxy) >= 8);
    // It serves whoever is still there.
    assert_eq!(get(zdr.address(), "/").0, 200);
    stop.kill().unwrap();
    stop.wait().unwrap();
}
