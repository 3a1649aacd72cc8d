//! What a server writes reaches zdr's standard error as if zdr were not there, and what a failed one wrote last is told.

use std::fs::{self, File};
use std::io::{PipeReader, Read, pipe};
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::thread;

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness::{Setup, Zdr, in_seat, sample, wait_for};
use crate::python::{python, server, teller};

/// What `zdr reload --json` ends with.
fn verdict_of(zdr: &Zdr, command: &[impl ToString]) -> Value {
    let words = ["reload", "--json", "--"].map(str::to_owned).into_iter();
    let told = zdr.client(&words.chain(command.iter().map(ToString::to_string)).collect::<Vec<_>>());
    let verdict = told.out.lines().last().unwrap_or_else(|| panic!("{told:?}"));
    serde_json::from_str(verdict).unwrap()
}

fn output(verdict: &Value) -> Vec<&str> {
    let lines = verdict["output"].as_array().unwrap_or_else(|| panic!("{verdict}"));
    lines.iter().map(|line| line.as_str().unwrap()).collect()
}

/// The relays that zdr has started and that live.
fn relays(zdr: &Zdr) -> Vec<i32> {
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", zdr.pid())).unwrap_or_default();
    let children = children.split_whitespace().map(|pid| pid.parse().unwrap());
    children.filter(|pid: &i32| is_relay(*pid)).collect()
}

fn is_relay(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.starts_with("Name:\tzdr-relay\n") && !status.contains("State:\tZ")
}

/// A server that writes 3 MB when it is asked for /write, in lines and without, and answers when it has.
const WRITER: &str = "
TEXT = b''.join(b'%d %s\\n' % (i, b'x' * (i % 300)) for i in range(20000))
def write_all(data):
    while data:
        data = data[os.write(2, data):]
def say(path):
    if path == '/write':
        write_all(TEXT)
    return 'written'
serve(listener(), say)
";

fn written() -> Vec<u8> {
    (0..20_000_usize).flat_map(|i| format!("{i} {}\n", "x".repeat(i % 300)).into_bytes()).collect()
}

fn writer() -> Setup {
    Setup::of(&server(WRITER)).flag("--quiet")
}

fn wait_for_log(zdr: &Zdr, wanted: &[u8]) {
    let log = zdr.folder().join("log");
    wait_for("the log to be whole", || (fs::metadata(&log).unwrap().len() >= wanted.len() as u64).then_some(()));
    assert!(fs::read(&log).unwrap() == wanted, "the log differs");
}

#[test]
fn the_verdict_tells_what_a_release_that_exits_wrote_last_and_the_old_one_serves_on() {
    let zdr = Setup::of(&sample(&[])).start();
    let verdict =
        verdict_of(&zdr, &[python(), "-c", "import sys\nprint('starting', file=sys.stderr)\nimport no_such_thing"]);
    assert_eq!((&verdict["outcome"], &verdict["cause"]), (&"kept".into(), &"exited".into()), "{verdict}");
    let output = output(&verdict);
    assert_eq!(output.first(), Some(&"starting"), "{output:?}");
    assert!(output[1].starts_with("Traceback"), "{output:?}");
    assert_eq!(output.last(), Some(&"ModuleNotFoundError: No module named 'no_such_thing'"), "{output:?}");
    assert!(zdr.get("/").contains("generation 1,"));
    let status = zdr.status();
    assert_eq!(status["last_verdict"]["output"], verdict["output"], "{status}");
}

#[test]
fn the_verdict_tells_what_a_release_that_is_never_ready_wrote_last() {
    let zdr = Setup::of(&sample(&[])).option("--ready-timeout", "700ms").start();
    let verdict = verdict_of(&zdr, &["sh", "-c", "echo waiting for the database >&2; sleep 1000"]);
    assert_eq!(verdict["cause"], "timed_out", "{verdict}");
    assert_eq!(output(&verdict), ["waiting for the database"]);
}

#[test]
fn what_a_release_wrote_that_died_after_its_promotion_is_told() {
    let zdr = Setup::of(&sample(&[])).option("--bake", "1000s").start();
    let dies = "
c, _ = listener().accept()
def die():
    until(sys.argv[1])
    os.write(2, b'out of luck\\n')
    os._exit(3)
threading.Thread(target=die).start()
visit(c, lambda path: 'hello')
";
    let trigger = zdr.place("trigger");
    let told = zdr.reload_to(&[server(dies), vec![trigger.clone()]].concat());
    assert_eq!(told.code, 0, "{told:?}");
    fs::write(trigger, "").unwrap();
    let status = zdr.wait_until("the old one to serve again", |status| in_seat(status, "serving") == Some(1));
    assert_eq!(status["last_verdict"]["cause"], "crashed", "{status}");
    assert_eq!(output(&status["last_verdict"]), ["out of luck"]);
}

#[test]
fn what_is_no_line_is_told_as_text_and_nothing_as_nothing() {
    let zdr = Setup::of(&sample(&[])).option("--tail", "3").start();
    for (code, wanted) in [
        ("", vec![]),
        (r"os.write(2, b'1\n2\n3\n4\n5')", vec!["3".to_owned(), "4".to_owned(), "5".to_owned()]),
        (r"os.write(2, b'\xff\x00\x1b[31mred\x1b[0m\n')", vec!["\u{fffd}red".to_owned()]),
        (r"os.write(2, b'x' * 1000)", vec!["x".repeat(500)]),
        (r"[os.write(2, b'y' * 1000) for _ in range(3000)]", vec!["y".repeat(500)]),
        (r"[os.write(2, b'%d\n' % i) for i in range(100000)]", (99_997..100_000).map(|i| i.to_string()).collect()),
    ] {
        let verdict = verdict_of(&zdr, &[python(), "-c", &format!("import os\n{code}\nos._exit(1)")]);
        assert_eq!(output(&verdict), wanted, "{code}");
    }
}

#[test]
fn every_byte_reaches_a_file_or_a_pipe() {
    let zdr = writer().start();
    zdr.get("/write");
    wait_for_log(&zdr, &written());

    let (mut read, write) = pipe().unwrap();
    let reader = thread::spawn(move || {
        let mut all = vec![0; written().len()];
        read.read_exact(&mut all).map(|()| all).unwrap()
    });
    let zdr = writer().start_with(Stdio::null(), write.into());
    zdr.get("/write");
    assert!(reader.join().unwrap() == written());
}

#[test]
fn a_server_has_a_terminal_where_zdr_has_one() {
    let size = Winsize { ws_row: 12, ws_col: 34, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = openpty(&size, None).unwrap();
    let told = "
size = os.get_terminal_size(2)
os.write(2, b'%d %d %d %d\\n' % (os.isatty(1), os.isatty(2), size.lines, size.columns))
os.write(1, b'\\x1b[1mto stdout\\x1b[0m\\n')
os.write(2, b'to stderr\\n')
try:
    os.close(os.open('/dev/tty', os.O_RDWR))
except OSError:
    os.write(2, b'no controlling terminal\\n')
serve(listener(), lambda path: 'hello')
";
    let end = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
    let setup = Setup::of(&server(told)).flag("--quiet").through(&["setsid"]);
    let _zdr = setup.start_with(end(&terminal.slave), end(&terminal.slave));
    let wanted = "1 1 12 34\r\n\x1b[1mto stdout\x1b[0m\r\nto stderr\r\nno controlling terminal\r\n";
    let mut said = vec![0; wanted.len()];
    File::from(terminal.master).read_exact(&mut said).unwrap();
    assert_eq!(String::from_utf8_lossy(&said), wanted);
}

/// Writes a number to each of both, in turn, then serves.
const BOTH: &str = "
for i in range(5000):
    os.write(1 + i % 2, b'%d\\n' % i)
serve(listener(), lambda path: json.dumps(tell()))
";

#[test]
fn what_goes_to_one_place_by_both_ways_keeps_its_order() {
    let setup = Setup::of(&server(BOTH)).flag("--quiet");
    let log = File::create(setup.folder().join("log")).unwrap();
    let zdr = setup.start_with(log.try_clone().unwrap().into(), log.into());
    wait_for_log(&zdr, &(0..5000).flat_map(|i| format!("{i}\n").into_bytes()).collect::<Vec<_>>());
}

#[test]
fn a_standard_output_that_goes_elsewhere_is_zdrs_own() {
    let setup = Setup::of(&server(BOTH)).flag("--quiet");
    let (log, out) = (setup.folder().join("log"), setup.folder().join("out"));
    let zdr = setup.start_with(File::create(&out).unwrap().into(), File::create(log).unwrap().into());
    let told: Value = serde_json::from_str(&zdr.get("/")).unwrap();
    assert_eq!(told["fds"]["1"].as_str(), out.to_str(), "{told}");
    assert!(told["fds"]["2"].as_str().unwrap().starts_with("pipe:"), "{told}");
    assert_eq!(fs::read_to_string(out).unwrap().lines().count(), 2500);
    wait_for_log(
        &zdr,
        &(0..5000).filter(|i| i % 2 == 1).flat_map(|i| format!("{i}\n").into_bytes()).collect::<Vec<_>>(),
    );
}

#[test]
fn a_server_goes_on_writing_when_zdr_is_stopped_or_was_killed() {
    for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
        let zdr = writer().start();
        let (address, relay) = (zdr.address(), relays(&zdr)[0]);
        zdr.signal(signal);
        assert_eq!(crate::harness::get(address, "/write").1, "written");
        wait_for_log(&zdr, &written());
        assert!(is_relay(relay));
        for pid in zdr.processes() {
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        }
        wait_for("the relay to end", || (!is_relay(relay)).then_some(()));
    }
}

#[test]
fn a_server_goes_on_when_nobody_reads_any_more() {
    let (read, write) = pipe().unwrap();
    let zdr = writer().start_with(Stdio::null(), write.into());
    drop(read);
    for _ in 0..3 {
        assert_eq!(zdr.get("/write"), "written");
    }
    assert_eq!((zdr.status()["crashes"].as_u64(), relays(&zdr).len()), (Some(0), 1));
}

#[test]
fn a_release_that_fails_tells_why_where_nobody_reads_the_log() {
    let (read, write) = pipe().unwrap();
    let zdr = Setup::of(&sample(&[])).flag("--quiet").start_with(Stdio::null(), write.into());
    // More than a pipe has room for, and less than two of them and what a relay keeps.
    let fills = "import os\nfor i in range(6000): os.write(2, b'line %06d\\n' % i)\nos._exit(1)";
    assert_eq!(verdict_of(&zdr, &[python(), "-c", fills])["cause"], "exited");
    let verdict = verdict_of(&zdr, &[python(), "-c", "import no_such_thing"]);
    assert_eq!(output(&verdict).last(), Some(&"ModuleNotFoundError: No module named 'no_such_thing'"), "{verdict}");
    drop::<PipeReader>(read);
}

#[test]
fn a_killed_relay_is_followed_by_another_and_the_server_loses_nothing() {
    let zdr = Setup::of(&server(WRITER)).start();
    let mut relay = relays(&zdr)[0];
    for round in 1..=3 {
        kill(Pid::from_raw(relay), Signal::SIGKILL).unwrap();
        assert_eq!(zdr.get("/write"), "written");
        let next = wait_for("another relay", || relays(&zdr).first().copied().filter(|next| *next != relay));
        relay = next;
        let log = zdr.folder().join("log");
        let whole = |log: &Vec<u8>| log.ends_with(&written()) && log.len() >= round * written().len();
        wait_for("the log to be whole", || fs::read(&log).ok().filter(whole));
    }
    assert_eq!(zdr.status()["crashes"], 0);
    assert_eq!(zdr.log().matches("another takes over").count(), 3);
}

#[test]
fn relays_end_with_their_instances() {
    let mut zdr = Setup::of(&sample(&[])).option("--bake", "0s").start();
    for _ in 0..20 {
        assert_eq!(zdr.reload().code, 0);
    }
    assert_eq!(verdict_of(&zdr, &["/no/such/program"])["cause"], "not_started");
    wait_for("one relay", || (relays(&zdr).len() == 1).then_some(()));
    let last = relays(&zdr)[0];
    assert_eq!(zdr.client(&["stop"]).code, 0);
    assert_eq!(zdr.ended().code(), Some(0));
    wait_for("no relay", || (!is_relay(last)).then_some(()));
}

#[test]
fn everything_has_been_passed_on_when_the_first_process_of_a_container_ends() {
    let writes = "
def end(*_):
    for i in range(300000):
        os.write(2, b'%d\\n' % i)
    os._exit(0)
signal.signal(signal.SIGTERM, end)
serve(listener(), lambda path: 'hello')
";
    let setup = Setup::of(&server(writes)).flag("--quiet");
    let mut zdr = setup.through(&["unshare", "--fork", "--pid", "--mount-proc", "--kill-child"]).start();
    assert_eq!(zdr.client(&["stop"]).code, 0);
    assert_eq!(zdr.ended().code(), Some(0));
    assert_eq!(zdr.log().lines().last(), Some("299999"));
}

#[test]
fn with_a_tail_of_none_nobody_is_in_between() {
    let setup = |tail| Setup::of(&teller()).environment("JOURNAL_STREAM", "8:1").option("--tail", tail);
    let zdr = setup("0").start();
    let told: Value = serde_json::from_str(&zdr.get("/")).unwrap();
    assert_eq!(told["fds"]["2"].as_str(), zdr.folder().join("log").to_str(), "{told}");
    assert_eq!(told["environment"]["JOURNAL_STREAM"], "8:1");
    assert!(relays(&zdr).is_empty());
    assert!(output(&verdict_of(&zdr, &["sh", "-c", "echo why >&2; exit 1"])).is_empty());
    assert!(zdr.log().contains("why\n"));

    let zdr = setup("1").start();
    let told: Value = serde_json::from_str(&zdr.get("/")).unwrap();
    assert_eq!(told["environment"]["JOURNAL_STREAM"], Value::Null, "{told}");
    assert_eq!(relays(&zdr).len(), 1);
}
