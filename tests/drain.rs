//! How an old generation ends: quiet first, then asked, then killed with all it started.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use crate::harness::{DEADLINE, Setup, ZDR, Zdr, in_seat, sample, seats, wait_for};
use crate::python::server;

/// A request that is under way.
struct Asked(TcpStream);

impl Asked {
    /// Sends it and waits until it is in flight.
    fn of(zdr: &Zdr, path: &str) -> Self {
        let before = zdr.status()["in_flight"].as_u64().unwrap();
        let mut stream = TcpStream::connect(zdr.address()).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
        zdr.wait_until("the request to be in flight", |status| status["in_flight"].as_u64() > Some(before));
        Self(stream)
    }

    fn answer(mut self) -> String {
        let mut answer = String::new();
        let _ = self.0.read_to_string(&mut answer);
        answer
    }
}

#[test]
fn a_server_that_dies_at_once_is_not_signalled_while_a_request_is_in_flight() {
    let slow = server("serve(listener(), lambda path: time.sleep(0.3) or 'finished by ' + GENERATION)");
    let zdr = Setup::of(&slow).option("--bake", "0s").start();
    let asked = Asked::of(&zdr, "/");
    assert_eq!(zdr.reload().code, 0);
    assert!(asked.answer().ends_with("finished by 1"));
    zdr.wait_until("the old one to end", |status| in_seat(status, "draining").is_none());
}

#[test]
fn with_no_time_to_be_idle_the_signal_comes_at_once() {
    let slow = server("serve(listener(), lambda path: time.sleep(1000) or 'never')");
    let zdr = Setup::of(&slow).option("--bake", "0s").option("--drain-idle", "0s").start();
    let asked = Asked::of(&zdr, "/");
    assert_eq!(zdr.reload().code, 0);
    assert_eq!(asked.answer(), "");
    zdr.wait_until("the old one to end", |status| in_seat(status, "draining").is_none());
}

#[test]
fn a_request_that_takes_too_long_to_finish_does_not_hold_up_the_signal_for_ever() {
    let slow = server("serve(listener(), lambda path: time.sleep(1000) or 'never')");
    let zdr = Setup::of(&slow).option("--bake", "0s").option("--drain-idle", "400ms").start();
    let asked = Asked::of(&zdr, "/");
    let begun = Instant::now();
    assert_eq!(zdr.reload().code, 0);
    assert_eq!(asked.answer(), "");
    assert!(begun.elapsed() >= Duration::from_millis(400));
}

#[test]
fn an_idle_connection_does_not_hold_up_the_signal() {
    let zdr = Setup::of(&sample(&["--abrupt"])).option("--bake", "0s").option("--drain-idle", "1000s").start();
    let mut idle = TcpStream::connect(zdr.address()).unwrap();
    write!(idle, "GET / HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    assert!(idle.read(&mut [0; 1024]).unwrap() > 0);
    assert_eq!(zdr.client(&["reload", "--wait", "drained", "--timeout", "15s"]).code, 0);
}

/// Ignores its signal and has started three generations of processes: a child, one whose parent is gone, and one in
/// a session of its own.
const STUBBORN: &str = "
signal.signal(signal.SIGTERM, signal.SIG_IGN)
def child():
    if os.fork() == 0:
        while True: time.sleep(1000)
child()
if os.fork() == 0:
    child()
    os._exit(0)
if os.fork() == 0:
    os.setsid()
    child()
    os._exit(0)
os.wait(); os.wait()
serve(listener(), lambda path: 'stubborn')
";

#[test]
fn a_generation_that_does_not_end_is_killed_with_all_that_it_started() {
    let zdr = Setup::of(&server(STUBBORN)).option("--bake", "0s").option("--drain-timeout", "300ms").start();
    wait_for("its processes", || (zdr.processes_of(1).len() == 4).then_some(()));
    assert_eq!(zdr.reload_to(&sample(&[])).code, 0);
    zdr.wait_until("the old one to end", |status| in_seat(status, "draining").is_none());
    wait_for("the end of all its processes", || zdr.processes_of(1).is_empty().then_some(()));
    assert_eq!(zdr.processes(), [zdr.server_pid()]);
    assert!(zdr.log().contains("generation 1 is killed: it had not ended 300ms after the signal"), "{}", zdr.log());
}

#[test]
fn what_a_generation_leaves_behind_when_it_ends_by_itself_is_ended_too() {
    let leaves = STUBBORN.replace("signal.SIG_IGN)", "lambda *_: os._exit(0))");
    let zdr = Setup::of(&server(&leaves)).option("--bake", "0s").start();
    wait_for("its processes", || (zdr.processes_of(1).len() == 4).then_some(()));
    assert_eq!(zdr.reload_to(&sample(&[])).code, 0);
    wait_for("the end of all its processes", || zdr.processes_of(1).is_empty().then_some(()));
}

#[test]
fn a_descendant_that_emptied_its_environment_is_ended_too() {
    let marker = format!("{}", 1_000_000 + std::process::id());
    let hides = format!(
        "
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.execve('/bin/sleep', ['sleep', '{marker}'], {{}})
    os._exit(0)
os.wait()
serve(listener(), lambda path: 'hello')
"
    );
    let zdr = Setup::of(&server(&hides)).option("--bake", "0s").start();
    let hidden = || {
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let mut pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let line = format!("sleep\0{marker}\0");
        pids.find(|pid| fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|words| words == line))
    };
    let pid = wait_for("the hidden process", hidden);
    assert_eq!(zdr.reload_to(&sample(&[])).code, 0);
    zdr.wait_until("the old one to end", |status| in_seat(status, "draining").is_none());
    let left = hidden();
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    assert_eq!(left, None);
}

#[test]
fn many_generations_drain_at_once_while_reloads_go_on() {
    let setup = Setup::of(&[""]);
    let go = setup.place("go");
    let waits = server(&format!(
        "serve(listener(), lambda path: until('{go}') or 'finished by ' + GENERATION if path == '/slow' else 'quick ' + GENERATION)"
    ));
    let zdr = setup
        .command(&waits)
        .option("--bake", "0s")
        .option("--drain-idle", "100s")
        .option("--drain-timeout", "100s")
        .start();
    let mut asked = Vec::new();
    for generation in 1..=4 {
        asked.push(Asked::of(&zdr, "/slow"));
        assert_eq!(zdr.reload().code, 0);
        assert_eq!(zdr.get("/"), format!("quick {}", generation + 1));
    }
    let status = zdr.status();
    assert_eq!(seats(&status).filter(|seat| seat["seat"] == "draining").count(), 4, "{status}");
    assert_eq!(status["listeners"][0]["slots"], 5);
    fs::write(&go, "").unwrap();
    for (generation, asked) in (1..).zip(asked) {
        assert!(asked.answer().ends_with(&format!("finished by {generation}")));
    }
    zdr.wait_until("all to end", |status| in_seat(status, "draining").is_none());
    // Slots that are free again are used again.
    assert_eq!(zdr.reload().code, 0);
    assert_eq!(zdr.status()["listeners"][0]["slots"], 5);
}

#[test]
fn the_signal_that_asks_to_finish_can_be_chosen() {
    let setup = Setup::of(&[""]);
    let out = setup.place("out");
    let heard = server(&format!(
        "
def heard(number, frame):
    open('{out}', 'a').write(str(number))
    os._exit(0)
for number in (signal.SIGTERM, signal.SIGQUIT):
    signal.signal(number, heard)
serve(listener(), lambda path: 'hello')
"
    ));
    let zdr = setup.command(&heard).option("--drain-signal", "quit").option("--bake", "0s").start();
    assert_eq!(zdr.client(&["reload", "--wait", "drained"]).code, 0);
    assert_eq!(fs::read_to_string(zdr.place("out")).unwrap(), "3");
}

#[test]
fn a_server_that_is_known_to_end_at_once_is_named_unless_a_signal_was_chosen() {
    const ADVICE: &str = "nginx ends at once on TERM; --drain-signal QUIT lets it finish its requests";
    for (options, times) in [(&[][..], 1), (&["TERM"][..], 0), (&["QUIT"][..], 0)] {
        let setup = Setup::of(&[""]);
        let nginx = setup.place("nginx");
        symlink(ZDR, &nginx).unwrap();
        let setup = setup.command(&[nginx.as_str(), "sample-server"]);
        let zdr = options.iter().fold(setup, |setup, signal| setup.option("--drain-signal", signal)).start();
        assert_eq!(zdr.reload().code, 0);
        assert_eq!(zdr.log().matches(ADVICE).count(), times, "{options:?}");
    }
}
