//! A pause: what is new waits in the kernel, and all of it is answered; what is old goes on.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::net::UnixStream;
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::harness::{DEADLINE, Setup, Told, Zdr, free_port, get, in_seat, sample, seats, wait_for};
use crate::inherited::launched;
use crate::python::server;

/// Clients that have asked and wait.
pub type Waiting = Vec<JoinHandle<String>>;

fn setup() -> Setup {
    Setup::of(&sample(&[])).option("--bake", "0s").option("--ready", "/health")
}

/// What one that has asked is answered: empty where that is nothing, or cut.
fn answer(mut stream: impl Read + Write) -> String {
    let mut text = String::new();
    let asked = write!(stream, "GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    match asked.and_then(|()| stream.read_to_string(&mut text)) {
        Ok(_) if text.starts_with("HTTP/1.1 200 ") && text.contains("generation ") => text,
        _ => String::new(),
    }
}

pub fn clients(number: usize, at: SocketAddr) -> Waiting {
    let client = move || {
        let stream = TcpStream::connect(at).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        answer(stream)
    };
    (0..number).map(|_| spawn(client)).collect()
}

fn pause(zdr: &Zdr, time: &str) {
    let told = zdr.client(&["pause", "--for", time]);
    assert_eq!(told.code, 0, "{told:?}");
}

pub fn resume(zdr: &Zdr) {
    let told = zdr.client(&["resume"]);
    assert_eq!(told.code, 0, "{told:?}");
    // What happens just then is told before it.
    assert!(told.out.ends_with("new connections are held no longer\n"), "{told:?}");
}

/// Likewise at a path.
pub fn clients_of_path(number: usize, path: &str) -> Waiting {
    let streams = (0..number).map(|_| UnixStream::connect(path).unwrap());
    let client = |stream: UnixStream| {
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        spawn(move || answer(stream))
    };
    streams.map(client).collect()
}

/// So many wait at a listener.
#[track_caller]
pub fn until_waiting(zdr: &Zdr, listener: usize, number: usize) {
    zdr.wait_until("them to wait", |status| status["listeners"][listener]["queue"] == number);
}

/// All that waited are answered, and what only finished for them is gone.
#[track_caller]
pub fn all_answered(zdr: &Zdr, waiting: Waiting) {
    let number = waiting.len();
    let answers: Vec<String> = waiting.into_iter().map(|client| client.join().unwrap()).collect();
    let answered = answers.iter().filter(|answer| !answer.is_empty()).count();
    assert_eq!(answered, number, "{}", zdr.log());
}

fn until_alone(zdr: &Zdr) {
    zdr.wait_until("one generation to be left", |status| seats(status).count() == 1);
}

/// A pause while so many wait.
fn paused(setup: Setup, number: usize) -> (Zdr, Waiting) {
    let zdr = setup.start();
    pause(&zdr, "1m");
    let waiting = clients(number, zdr.address());
    until_waiting(&zdr, 0, number);
    (zdr, waiting)
}

/// A request over a connection that is kept.
fn ask(stream: &mut TcpStream) -> bool {
    write!(stream, "GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    let mut buffer = [0; 4096];
    let length = stream.read(&mut buffer).unwrap_or(0);
    buffer[..length].starts_with(b"HTTP/1.1 200 ")
}

#[test]
fn what_is_new_waits_and_all_of_it_is_answered_while_what_is_old_goes_on() {
    let setup = setup();
    let path = setup.place("web.sock");
    let unix = format!("unix:{path}");
    let zdr = setup.listen(&["127.0.0.1:0", "[::1]:0", &unix]).start();
    let status = zdr.status();
    let [v4, v6] = [0, 1].map(|at| status["listeners"][at]["address"].as_str().unwrap().parse().unwrap());
    let mut kept = TcpStream::connect(v4).unwrap();
    kept.set_read_timeout(Some(DEADLINE)).unwrap();
    assert!(ask(&mut kept));
    pause(&zdr, "1m");
    let mut waiting = clients(200, v4);
    waiting.extend(clients(20, v6));
    let path = zdr.place("web.sock");
    waiting.extend(clients_of_path(20, &path));
    for (listener, number) in [200, 20, 20].into_iter().enumerate() {
        until_waiting(&zdr, listener, number);
    }
    assert!(ask(&mut kept), "an established connection goes on");
    let status = zdr.status();
    assert!(status["paused_secs"].as_f64().is_some_and(|left| left > 0.0 && left <= 60.0), "{status}");
    assert_eq!(
        (&status["checks"]["serving"]["state"], &status["checks"]["serving"]["message"]),
        (&"degraded".into(), &"new connections are held".into())
    );
    assert_eq!((&status["status"], &status["ready"]), (&"degraded".into(), &true.into()));
    assert!(!waiting.iter().any(JoinHandle::is_finished), "somebody was answered");
    resume(&zdr);
    assert_eq!(zdr.status()["paused_secs"], json!(null));
    assert_eq!(get(v4, "/").0, 200);
    all_answered(&zdr, waiting);
    assert!(ask(&mut kept));
    drop(kept);
    until_alone(&zdr);
    assert_eq!((zdr.serving(), zdr.status()["status"].as_str()), (Some(1), Some("healthy")));
}

#[test]
fn datagrams_wait_as_well() {
    let body = "
s = listener()
s.setblocking(True)
while True:
    said, sender = s.recvfrom(2048)
    s.sendto(b'%s ' % GENERATION.encode() + said, sender)
";
    let zdr = Setup::of(&server(body))
        .listen(&["udp://127.0.0.1:0"])
        .option("--ready", "50ms")
        .option("--bake", "0s")
        .start();
    let status = zdr.status();
    let at: SocketAddr =
        status["listeners"][0]["address"].as_str().unwrap().strip_prefix("udp://").unwrap().parse().unwrap();
    let client = || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(at).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket
    };
    let echo = |socket: &UdpSocket, said: &str| {
        let mut buffer = [0; 100];
        let length = socket.recv(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        assert!(text.ends_with(&format!(" {said}")), "{text}");
    };
    pause(&zdr, "1m");
    let waiting: Vec<UdpSocket> = (0..50).map(|_| client()).collect();
    for (number, socket) in waiting.iter().enumerate() {
        socket.send(number.to_string().as_bytes()).unwrap();
    }
    let one = client();
    one.send(b"early").unwrap();
    one.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(one.recv(&mut [0; 100]).is_err(), "it was answered during the pause");
    one.set_read_timeout(Some(DEADLINE)).unwrap();
    resume(&zdr);
    for (number, socket) in waiting.iter().enumerate() {
        echo(socket, &number.to_string());
    }
    echo(&one, "early");
    one.send(b"late").unwrap();
    echo(&one, "late");
}

#[test]
fn it_ends_by_itself_and_a_second_one_makes_it_longer() {
    let zdr = setup().start();
    let begun = Instant::now();
    pause(&zdr, "300ms");
    pause(&zdr, "1s");
    let waiting = clients(10, zdr.address());
    all_answered(&zdr, waiting);
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(zdr.status()["paused_secs"], json!(null));
    until_alone(&zdr);
    let told = zdr.client(&["resume"]);
    assert_eq!((told.code, told.out.as_str()), (0, "new connections were not held\n"));
}

#[test]
fn a_reload_during_a_pause_takes_what_comes_after_it() {
    let (zdr, waiting) = paused(setup(), 20);
    let before = zdr.serving();
    let told = zdr.reload();
    assert_eq!(told.code, 0, "{told:?}");
    assert!(zdr.serving() > before);
    let more = clients(5, zdr.address());
    until_waiting(&zdr, 0, 25);
    assert!(!waiting.iter().chain(&more).any(JoinHandle::is_finished), "somebody was answered");
    resume(&zdr);
    assert!(zdr.get("/").contains(&format!("generation {},", zdr.serving().unwrap())));
    all_answered(&zdr, waiting);
    all_answered(&zdr, more);
    until_alone(&zdr);
}

#[test]
fn a_rollback_during_a_pause_takes_what_comes_after_it() {
    for keep in ["1m", "0s"] {
        let setup = setup().option("--bake-keep", keep);
        let zdr = setup.start();
        assert_eq!(zdr.reload().code, 0);
        pause(&zdr, "1m");
        let waiting = clients(20, zdr.address());
        until_waiting(&zdr, 0, 20);
        let told = zdr.client(&["rollback"]);
        assert_eq!(told.code, 0, "{told:?}");
        resume(&zdr);
        let serving = zdr.serving().unwrap();
        assert!(zdr.get("/").contains(&format!("generation {serving},")));
        all_answered(&zdr, waiting);
        until_alone(&zdr);
    }
}

/// The one that serves is killed and another takes its place; then whoever waits is let go, and answered.
fn crash_and_resume(zdr: &Zdr, waiting: Waiting) {
    let before = zdr.serving();
    kill(Pid::from_raw(zdr.server_pid()), Signal::SIGKILL).unwrap();
    zdr.wait_until("the next one", |status| in_seat(status, "serving") > before);
    assert!(!waiting.iter().any(JoinHandle::is_finished), "somebody was answered");
    resume(zdr);
    all_answered(zdr, waiting);
    until_alone(zdr);
}

#[test]
fn a_restart_and_a_crash_lose_nothing_that_waits() {
    let (zdr, waiting) = paused(setup(), 20);
    let told = zdr.client(&["restart"]);
    assert_eq!(told.code, 0, "{told:?}");
    crash_and_resume(&zdr, waiting);
}

#[test]
fn a_stop_answers_what_waits_before_it_ends() {
    let (mut zdr, waiting) = paused(setup(), 20);
    let told = zdr.client(&["stop"]);
    assert_eq!(told.code, 0, "{told:?}");
    assert_eq!(zdr.ended().code(), Some(0));
    all_answered(&zdr, waiting);
}

#[test]
fn while_nothing_serves_there_is_nothing_to_pause() {
    let zdr = Setup::of(&sample(&["--bad", "hang"])).option("--ready", "/health").begin();
    wait_for("it to start", || zdr.log().contains("started as process").then_some(()));
    let told: Told = zdr.client(&["pause"]);
    assert_eq!((told.code, told.error.as_str()), (1, "zdr: nothing serves, so connections wait already\n"), "{told:?}");
}

#[test]
fn a_pause_is_no_sign_that_the_server_is_stuck_or_unwell() {
    let setup = setup()
        .option("--live", "/health")
        .option("--live-interval", "100ms")
        .option("--live-timeout", "100ms")
        .option("--live-failures", "2");
    let asked = setup.place("asked");
    let zdr = setup
        .option("--check", "up=/health,interval=100ms,timeout=100ms,critical")
        .option("--check", &format!("clock=exec:echo >> {asked},interval=100ms"))
        .start();
    let times = || std::fs::read_to_string(&asked).unwrap_or_default().lines().count();
    let healthy = |status: &Value| status["checks"]["up"]["state"] == "healthy";
    zdr.wait_until("the check to be answered", healthy);
    pause(&zdr, "1m");
    let before = times();
    wait_for("more time than it takes to be stuck", || (times() >= before + 10).then_some(()));
    let status = zdr.status();
    assert!(healthy(&status), "{status}");
    assert_eq!((in_seat(&status, "serving"), &status["status"]), (Some(1), &"degraded".into()), "{}", zdr.log());
    assert!(!zdr.log().contains("stuck"), "{}", zdr.log());
    resume(&zdr);
    kill(Pid::from_raw(zdr.server_pid()), Signal::SIGSTOP).unwrap();
    wait_for("it to be asked again", || zdr.log().contains("generation 1 is stuck").then_some(()));
}

#[test]
fn a_server_that_binds_by_itself_can_be_paused() {
    let port = free_port();
    let body = format!("serve(bound({port}), lambda path: 'from generation ' + GENERATION)");
    let zdr = Setup::of(&server(&body)).listen(&[]).option("--bake", "0s").start();
    pause(&zdr, "1m");
    let waiting = clients(50, SocketAddr::from(([127, 0, 0, 1], port)));
    until_waiting(&zdr, 0, 50);
    assert_eq!(zdr.reload().code, 0);
    crash_and_resume(&zdr, waiting);
}

#[test]
fn sockets_of_a_service_manager_can_be_paused() {
    let (port, more) = (free_port(), free_port());
    let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
    let sockets = [format!("tcp:127.0.0.1:{port}"), format!("tcp:127.0.0.1:{more}")];
    let zdr = launched(setup(), &json!({ "sockets": sockets, "names": "web:more" })).start();
    pause(&zdr, "1m");
    let mut waiting = clients(50, at(port));
    waiting.extend(clients(50, at(more)));
    until_waiting(&zdr, 0, 50);
    until_waiting(&zdr, 1, 50);
    assert_eq!(zdr.reload().code, 0);
    assert!(!waiting.iter().any(JoinHandle::is_finished), "somebody was answered");
    resume(&zdr);
    all_answered(&zdr, waiting);
    until_alone(&zdr);
}

#[test]
fn a_name_with_one_socket_for_all_cannot_be_paused_and_whoever_asks_is_told() {
    let name = format!("zdr-test-{}", free_port());
    let zdr = setup().listen(&["web=127.0.0.1:0", &format!("name=unix:@{name}")]).start();
    let told = zdr.client(&["pause", "--for", "1m"]);
    assert_eq!(told.code, 0, "{told:?}");
    assert!(told.out.contains("listener `name` cannot be paused"), "{told:?}");
    let client = crate::unix_paths::Client::of(&format!("@{name}"));
    assert!(client.get("/").unwrap().contains("generation 1,"));
}
