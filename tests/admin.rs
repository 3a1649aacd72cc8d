//! The admin socket: whom it answers, what it refuses, and that neither stops a reload.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::harness::{DEADLINE, Setup, Told, ZDR, Zdr, sample, wait_for, zdr};
use crate::python::python;

/// Status and JSON of an answer on the admin socket.
fn ask(zdr: &Zdr, request: &str) -> (u16, Value) {
    let answer = zdr.ask_raw(request);
    let status = answer
        .split(' ')
        .nth(1)
        .and_then(|code| code.parse().ok())
        .unwrap_or_else(|| panic!("{request:?}: {answer:?}"));
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (status, serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {request:?}: {answer:?}")))
}

fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: z\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

fn started() -> Zdr {
    Setup::of(&sample(&[])).option("--health", "127.0.0.1:0").start()
}

#[test]
fn only_the_user_of_zdr_and_root_are_answered() {
    let zdr = started();
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&zdr.admin()), 0o600);
    // Even where the file's permissions would let them in.
    std::fs::set_permissions(zdr.admin(), PermissionsExt::from_mode(0o777)).unwrap();
    std::fs::set_permissions(zdr.folder(), PermissionsExt::from_mode(0o755)).unwrap();
    let script = "import os, socket, sys\n\
        os.setuid(65534)\n\
        s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1])\n\
        s.sendall(b'POST /v1/stop HTTP/1.0\\r\\n\\r\\n')\n\
        print(s.recv(4096).decode())";
    let told: Told = Command::new(python()).args(["-I", "-S", "-c", script]).arg(zdr.admin()).output().unwrap().into();
    assert!(told.out.starts_with("HTTP/1.1 403") && told.out.contains("only the user zdr runs as"), "{told:?}");
    assert_eq!(zdr.status()["state"], "serving");
}

#[test]
fn the_socket_of_a_killed_zdr_is_replaced() {
    let mut zdr = started();
    zdr.signal(Signal::SIGKILL);
    zdr.ended();
    assert!(zdr.admin().exists());
    let again = Setup::of(&sample(&[])).at(&zdr.admin().display().to_string()).start();
    assert_eq!(again.status()["pid"], again.pid());
}

#[test]
fn a_name_that_is_running_is_refused_with_its_pid() {
    let zdr = started();
    let told = Setup::of(&sample(&[])).at(&zdr.admin().display().to_string()).output();
    assert_eq!(told.code, 2, "{told:?}");
    assert!(told.error.contains(&format!("is already running as process {}", zdr.pid())), "{told:?}");
    assert_eq!(told.error.lines().count(), 1, "{told:?}");
    assert_eq!(zdr.reload().code, 0);
}

#[test]
fn malformed_requests_are_told_what_is_wrong_and_the_socket_still_works() {
    let zdr = started();
    for (request, status) in [
        (post("/v1/reload", "{"), 400),
        (post("/v1/reload", "{\"comand\":[\"x\"]}"), 400),
        (post("/v1/reload", "{\"command\":\"x\"}"), 400),
        (post("/v1/reload", "{\"command\":[]}"), 400),
        (post("/v1/reload", "{\"command\":[\"\"]}"), 400),
        (post("/v1/reload", "{\"wait\":\"never\"}"), 400),
        (post("/v1/reload", "\u{0}\u{1}\u{2}"), 400),
        (post("/v1/scale", ""), 400),
        (post("/v1/scale", "{\"instances\":\"4\"}"), 400),
        (post("/v1/pause", "{\"for_secs\":-1}"), 400),
        (post("/v1/status", ""), 405),
        ("GET /v1/rollback HTTP/1.0\r\n\r\n".to_owned(), 405),
        ("GET /v1/scale HTTP/1.0\r\n\r\n".to_owned(), 405),
        ("GET /v1/reload HTTP/1.0\r\n\r\n".to_owned(), 405),
        ("GET /v1/stop HTTP/1.0\r\n\r\n".to_owned(), 405),
        ("DELETE /health HTTP/1.0\r\n\r\n".to_owned(), 405),
        ("GET /v2/status HTTP/1.0\r\n\r\n".to_owned(), 404),
        ("GET /v1/status/../reload HTTP/1.0\r\n\r\n".to_owned(), 404),
        ("GET /health/$stream?poll_interval=0 HTTP/1.0\r\n\r\n".to_owned(), 400),
        (post("/v1/reload", &"x".repeat(70_000)), 413),
    ] {
        let (got, body) = ask(&zdr, &request);
        assert_eq!(got, status, "{request:.80} {body}");
        assert!(body["error"].as_str().is_some_and(|words| words.len() > 5), "{request:.80} {body}");
    }
    assert_eq!(zdr.serving(), Some(1));
    assert_eq!(zdr.reload().code, 0);
}

#[test]
fn what_is_no_http_or_too_long_is_refused_and_the_socket_still_works() {
    let zdr = started();
    for (request, codes) in [
        ("hello\r\n\r\n".to_owned(), &[400][..]),
        ("GET /v1/status HTTP/9.9\r\n\r\n".to_owned(), &[400]),
        (format!("GET /{} HTTP/1.0\r\n\r\n", "x".repeat(20_000)), &[414, 431]),
        (format!("GET /health HTTP/1.0\r\nX: {}\r\n\r\n", "x".repeat(20_000)), &[431]),
        (format!("GET /health HTTP/1.0\r\n{}\r\n", "X: y\r\n".repeat(2_000)), &[431]),
    ] {
        let answer = zdr.ask_raw(&request);
        let status = answer.split(' ').nth(1).and_then(|code| code.parse::<u16>().ok());
        assert!(status.is_some_and(|status| codes.contains(&status)), "{request:.60} {answer:?}");
    }
    assert_eq!(zdr.reload().code, 0);
}

#[test]
fn five_hundred_idle_or_half_sent_requests_do_not_stop_a_reload() {
    let zdr = started();
    let health = health_address(&zdr);
    let mut idle: Vec<UnixStream> = Vec::new();
    let mut idle_at_health = Vec::new();
    for number in 0..500 {
        let mut stream = wait_for("a place in the queue", || UnixStream::connect(zdr.admin()).ok());
        let mut remote = std::net::TcpStream::connect(health).unwrap();
        if number % 2 == 0 {
            // Some are closed meanwhile, to make room.
            let _ = stream.write_all(b"POST /v1/reload HTTP/1.1\r\nContent-Length: 50\r\n\r\n{\"comm");
            let _ = remote.write_all(b"GET /health HTTP/1.1\r\nHos");
        }
        idle.push(stream);
        idle_at_health.push(remote);
    }
    let told = zdr.client(&["reload", "--timeout", "10s"]);
    assert_eq!(told.code, 0, "{told:?}");
    assert_eq!(zdr.serving(), Some(2));
    assert_eq!(crate::harness::get(health, "/health").0, 200);
    drop((idle, idle_at_health));
}

/// The first health address, from the log.
pub fn health_address(zdr: &Zdr) -> std::net::SocketAddr {
    let log = zdr.log();
    let line = log.lines().find(|line| line.contains("answering health questions")).unwrap();
    line.split_once("address=").unwrap().1.trim().parse().unwrap()
}

#[test]
fn whoever_follows_the_story_gets_it_as_events() {
    let zdr = started();
    let mut stream = UnixStream::connect(zdr.admin()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(b"GET /v1/events HTTP/1.0\r\n\r\n").unwrap();
    let mut lines = BufReader::new(stream).lines().map(Result::unwrap);
    assert!(lines.next().unwrap().contains("200"));
    assert!(lines.any(|line| line.eq_ignore_ascii_case("content-type: text/event-stream")));
    assert!(lines.any(|line| line.starts_with(": the story")));
    assert_eq!(zdr.reload().code, 0);
    let mut seen: Vec<String> = Vec::new();
    while seen.last().is_none_or(|event| event != "verdict") {
        let number = seen.len() + 1;
        assert!(lines.any(|line| line == format!("id: {number}")), "{seen:?}");
        let name = lines.next().unwrap();
        let data: Value = serde_json::from_str(lines.next().unwrap().strip_prefix("data: ").unwrap()).unwrap();
        assert_eq!(name, format!("event: {}", data["event"].as_str().unwrap()));
        assert!(data["time"].is_string() && data["message"].is_string() && data["id"] == number, "{data}");
        seen.push(data["event"].as_str().unwrap().to_owned());
    }
    seen.retain(|event| event != "not_ready");
    assert_eq!(seen, ["spawned", "serving", "spawned", "serving", "verdict"]);
}

#[test]
fn the_events_command_prints_lines_and_ends_with_zdr() {
    let mut zdr = started();
    let mut child = zdr.client_in_background(&["events", "--json"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    // It has subscribed once an event arrives; whichever comes first is a whole one.
    let first = std::thread::scope(|scope| {
        let reading = scope.spawn(|| lines.next());
        while !reading.is_finished() {
            assert_eq!(zdr.reload().code, 0);
        }
        reading.join().unwrap().unwrap()
    });
    assert!(serde_json::from_str::<Value>(&first).unwrap()["event"].is_string());
    zdr.signal(Signal::SIGTERM);
    zdr.ended();
    let rest: Vec<String> = lines.collect();
    assert!(rest.iter().all(|line| serde_json::from_str::<Value>(line).is_ok()));
    assert_eq!(child.wait().unwrap().code(), Some(4));
}

#[test]
fn wait_begins_before_there_is_a_zdr() {
    let setup = Setup::of(&sample(&[]));
    let admin = setup.folder().join("admin");
    let mut wait = Command::new(ZDR);
    wait.args(["wait", "--timeout", "20s"]).env("ZDR_ADMIN", &admin).stderr(Stdio::piped());
    let mut waiting = wait.spawn().unwrap();
    assert!(waiting.try_wait().unwrap().is_none());
    let _zdr = setup.begin();
    let end = wait_for("the end of waiting", || waiting.try_wait().unwrap());
    assert_eq!(end.code(), Some(0));
}

#[test]
fn wait_says_why_when_nothing_served_in_time() {
    let zdr = Setup::of(&sample(&["--bad", "hang"])).begin();
    wait_for("the admin socket", || zdr.admin().exists().then_some(()));
    let told = zdr.client(&["wait", "--timeout", "300ms"]);
    assert_eq!(told.code, 1, "{told:?}");
    assert!(
        told.error.starts_with("zdr: nothing served within 300ms: ") && told.error.contains("starting"),
        "{told:?}"
    );
}

#[test]
fn the_status_for_people_names_what_matters() {
    let zdr = started();
    assert_eq!(zdr.reload().code, 0);
    let text = zdr.client(&["status"]).out;
    for words in [
        "serving, healthy",
        "generation 2 has served for ",
        "draining",
        "main",
        "2 slots",
        "last verdict: done, generation 2 serves after",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    assert!(text.contains(&zdr.address().to_string()), "{text}");
}

#[test]
fn a_failed_reload_and_the_status_show_what_the_release_wrote_last() {
    let zdr = started();
    let release = "import sys; sys.stderr.write('first\\n  \\x1b[31mlast: \u{68ee}\\n'); sys.exit(7)";
    let told = zdr.reload_to(&[python(), "-c", release]);
    let why = zdr.status()["last_verdict"]["reason"].as_str().unwrap().to_owned();
    assert!(why.starts_with("generation 2 exited with code 7 before it was ready"), "{why}");
    assert_eq!((told.code, told.error), (3, format!("zdr: {why}\n  | first\n  |   last: \u{68ee}\n")));
    let status = Told::from(zdr.client_command(&["status"]).env("COLUMNS", "500").output().unwrap()).out;
    let wanted = format!("  last verdict: kept\n    {why}\n    | first\n    |   last: \u{68ee}\n");
    assert!(status.contains(&wanted), "{status}");
    let story = zdr.client(&["events", "--no-follow"]).out;
    assert!(story.matches("| first\n").count() == 1, "{story}");
}

#[test]
fn a_client_that_goes_away_changes_nothing() {
    let zdr = Setup::of(&sample(&["--start-after", "300ms"])).start();
    let mut stream = UnixStream::connect(zdr.admin()).unwrap();
    stream.write_all(post("/v1/reload", "").as_bytes()).unwrap();
    assert!(stream.read(&mut [0; 16]).unwrap() > 0);
    drop(stream);
    zdr.wait_until("the reload", |status| crate::harness::in_seat(status, "serving") == Some(2));
}

#[test]
fn a_peer_that_takes_a_question_and_says_nothing_is_no_supervisor() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("silent").display().to_string();
    let _silent = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let told = zdr(&["reload", "--admin", &path, "--timeout", "200ms"]);
    assert_eq!((told.code, told.error.contains("no verdict in the time given")), (1, true), "{told:?}");
    let told = zdr(&["status", "--admin", &path]);
    assert_eq!((told.code, told.error.contains(&format!("no answer from {path} within 10s"))), (4, true), "{told:?}");
}
