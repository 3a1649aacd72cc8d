//! The probes of `contrib/kubernetes.yaml` and those that others have, asked as a kubelet asks (pkg/probe/http of Kubernetes): GET,
//! a new connection each time, one second for the whole, and any code from 200 to 399 is a success.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::{begin_to_crash, cease_to_crash, contributed, server_on_condition};
use crate::admin::health_address;
use crate::harness::{Setup, Zdr, sample, wait_for};

/// `timeoutSeconds`, where it is not given.
const LIMIT: Duration = Duration::from_secs(1);

/// What a kubelet makes of it: success, or what it would write into the events of the pod.
fn probe(address: SocketAddr, path: &str) -> Result<u16, String> {
    let begun = Instant::now();
    let failed = |error: std::io::Error| format!("{path}: {error}");
    let mut stream = TcpStream::connect_timeout(&address, LIMIT).map_err(failed)?;
    stream.set_read_timeout(Some(LIMIT)).map_err(failed)?;
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: kube-probe/1.31\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).map_err(failed)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(failed)?;
    if begun.elapsed() > LIMIT {
        return Err(format!("{path}: it took {:?}", begun.elapsed()));
    }
    let code =
        answer.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(|| format!("{path}: {answer}"))?;
    if (200..400).contains(&code) { Ok(code) } else { Err(format!("HTTP probe failed with statuscode: {code}")) }
}

/// The path of a probe of `contrib/kubernetes.yaml`.
fn path_of(kind: &str) -> String {
    let text = contributed("kubernetes.yaml", &[]);
    let probe = text.split(&format!("{kind}:\n")).nth(1).unwrap();
    let field = |name: &str| probe.lines().find_map(|line| line.trim().strip_prefix(name)).unwrap().trim().to_owned();
    assert_eq!(field("port:"), "health");
    field("path:")
}

const LIVE: [&str; 2] = ["/livez", "/health/live"];
const READY: [&str; 3] = ["/readyz", "/health/ready", "/_health/ready"];
const FULL: [&str; 3] = ["/healthz", "/health", "/_health"];

/// Which probes succeed, of the file and of others.
#[track_caller]
fn succeed(zdr: &Zdr, live: bool, started: bool, ready: bool) {
    let address = health_address(zdr);
    let asked = [("livenessProbe", live), ("startupProbe", started), ("readinessProbe", ready)];
    let mut wanted: Vec<(String, bool)> = asked.iter().map(|(kind, good)| (path_of(kind), *good)).collect();
    for (paths, good) in [(&LIVE[..], live), (&["/health/startup"], started), (&READY, ready), (&FULL, ready)] {
        wanted.extend(paths.iter().map(|path| ((*path).to_owned(), good)));
    }
    for (path, good) in wanted {
        let told = probe(address, &path);
        assert_eq!(told.is_ok(), good, "{path}: {told:?}");
        if !good {
            assert_eq!(told, Err("HTTP probe failed with statuscode: 503".to_owned()), "{path}");
        }
    }
}

#[test]
fn a_kubelet_knows_start_crash_and_recovery_apart() {
    let starting = Setup::of(&sample(&["--bad", "hang"])).option("--health", "127.0.0.1:0").begin();
    wait_for("the health address", || starting.log().contains("generation 1 started").then_some(()));
    succeed(&starting, true, false, false);
    let zdr = server_on_condition().start();
    succeed(&zdr, true, true, true);
    begin_to_crash(&zdr);
    // Its restart would help nobody, and lose the connections that wait.
    succeed(&zdr, true, true, false);
    cease_to_crash(&zdr);
    zdr.wait_until("it to serve again", |status| status["ready"] == true);
    succeed(&zdr, true, true, true);
}

#[test]
fn a_kubelet_sees_no_reload() {
    let zdr = server_on_condition().start();
    let address = health_address(&zdr);
    for command in [vec!["reload"], vec!["reload", "--", "false"]] {
        let mut reload = zdr.client_in_background(&command);
        let mut asked = 0;
        while reload.try_wait().unwrap().is_none() || asked < 10 {
            for path in LIVE.iter().chain(&READY).chain(&FULL).chain(&["/health/startup"]) {
                assert_eq!(probe(address, path), Ok(200));
                asked += 1;
            }
        }
    }
}

#[test]
fn a_kubelet_hears_of_a_stop_before_the_drain_begins() {
    let zdr = server_on_condition().option("--lame-duck", "60s").start();
    let mut stop = zdr.client_in_background(&["stop"]);
    wait_for("readiness to say no", || probe(health_address(&zdr), "/readyz").is_err().then_some(()));
    succeed(&zdr, true, true, false);
    stop.kill().unwrap();
    stop.wait().unwrap();
}
