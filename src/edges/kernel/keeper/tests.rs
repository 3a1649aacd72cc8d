//! Keepers of real servers, and a zdr that is killed.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};

use nix::sys::socket::{SockaddrIn, bind};

use super::super::companion::tests::End;
use super::super::pidfd::PidFd;
use super::super::seccomp::tests::{NOBODY, next, python, start};
use super::super::seccomp::{Call, Notification};
use super::*;

/// A server under the filter of a keeper.
fn kept(server: &mut Command) -> (Child, Notifier, i32) {
    let keeper = Keeper::start().unwrap();
    let pid = keeper.pid();
    let (program, notify) = start(server, keeper.filter());
    (program, keeper.keep(notify), pid)
}

/// Ten threads bind and keep what they have bound, then one binds, listens and unlinks again and again, until its input ends.
const SERVER: &str = "
import os, socket, sys, tempfile, threading
bound = []
def bind():
    s = socket.socket(); s.bind(('127.0.0.1', 0)); bound.append(s)
ts = [threading.Thread(target=bind) for _ in range(10)]
[t.start() for t in ts]; [t.join() for t in ts]
print('bound', len({s.getsockname()[1] for s in bound} - {0}), flush=True)
sys.stdin.read()
for _ in range(500):
    name = tempfile.mktemp(); s = socket.socket(socket.AF_UNIX); s.bind(name); s.listen(); os.unlink(name); s.close()
print('over', flush=True)
";

/// Carries the call out on a copy of the caller's socket.
fn carry_out(notification: &Notification) {
    let Call::Bind { fd, .. } = notification.call else { panic!("{notification:?}") };
    let copy = PidFd::of_thread(notification.thread).unwrap().copy_of(fd).unwrap();
    bind(copy.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
}

/// Plays zdr, in a process of its own, and waits to be killed with ten calls that it has received and not answered.
#[test]
#[ignore = "a part that the tests below play in a process of their own"]
fn plays_zdr() {
    let Ok(part) = std::env::var("PART") else { return };
    let (_program, notifier, keeper) = kept(&mut python(SERVER));
    let unanswered: Vec<_> = (0..10).map(|_| next(&notifier).unwrap()).collect();
    if part == "done" {
        for notification in &unanswered {
            carry_out(notification);
            notifier.done(notification);
        }
    }
    writeln!(io::stderr(), "keeper {keeper}").unwrap();
    loop {
        std::thread::park();
    }
}

struct Killed {
    keeper: End,
    input: std::process::ChildStdin,
    output: BufReader<ChildStdout>,
}

/// Kills a zdr that plays this part, with SIGKILL.
fn kill_one_that(part: &str, user: Option<u32>) -> Killed {
    let mut command = Command::new("/proc/self/exe");
    command.args(["--ignored", "--exact", "--nocapture", "edges::kernel::keeper::tests::plays_zdr"]);
    command.env("PART", part).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    let mut zdr = command.spawn().unwrap();
    let mut told = BufReader::new(zdr.stderr.take().unwrap()).lines();
    let keeper = told.find_map(|line| line.unwrap().strip_prefix("keeper ")?.parse().ok()).unwrap();
    let keeper = End::of(keeper);
    // Taken first, because waiting would close it.
    let input = zdr.stdin.take().unwrap();
    zdr.kill().unwrap();
    zdr.wait().unwrap();
    Killed { keeper, input, output: BufReader::new(zdr.stdout.take().unwrap()) }
}

fn nothing_fails_or_hangs_after(part: &str, user: Option<u32>) {
    let Killed { keeper, input, mut output } = kill_one_that(part, user);
    let mut said = String::new();
    while !said.contains("bound ") {
        assert_ne!(output.read_line(&mut said).unwrap(), 0, "{said}");
    }
    assert!(said.ends_with("bound 10\n"), "{said}");
    assert!(!keeper.has_come());
    drop(input);
    output.read_to_string(&mut said).unwrap();
    assert!(said.ends_with("over\n"), "{said}");
    keeper.comes();
}

#[test]
fn calls_go_on_after_zdr_was_killed_also_those_that_it_had_received() {
    nothing_fails_or_hangs_after("received", None);
}

#[test]
fn calls_that_zdr_had_carried_out_are_answered_after_it_was_killed() {
    nothing_fails_or_hangs_after("done", None);
}

#[test]
fn an_ordinary_user_has_a_keeper_too() {
    nothing_fails_or_hangs_after("received", nix::unistd::geteuid().is_root().then_some(NOBODY));
}

#[test]
fn a_keeper_answers_nothing_while_zdr_does_and_everything_when_it_has_let_go() {
    let mut server = python("import socket\nfor _ in range(20): socket.socket().bind(('127.0.0.1', 0))\nprint('over')");
    let (mut program, notifier, keeper) = kept(server.stdout(Stdio::piped()));
    let keeper = End::of(keeper);
    for _ in 0..10 {
        let call = next(&notifier).unwrap();
        assert!(notifier.is_valid(&call));
        notifier.go_on(&call).unwrap();
    }
    drop(notifier);
    let mut said = String::new();
    program.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(said, "over\n");
    program.wait().unwrap();
    keeper.comes();
}

#[test]
fn a_keeper_that_gets_nothing_to_keep_ends() {
    let keeper = Keeper::start().unwrap();
    let end = End::of(keeper.pid());
    drop(keeper);
    end.comes();
}

#[test]
fn a_keeper_ends_with_the_last_process_of_its_server_while_zdr_lives() {
    let (mut program, _notifier, keeper) = kept(python("import sys; sys.stdin.read()").stdin(Stdio::piped()));
    let keeper = End::of(keeper);
    assert!(!keeper.has_come());
    drop(program.stdin.take());
    program.wait().unwrap();
    keeper.comes();
}

#[test]
fn a_keeper_holds_nothing_of_zdrs_and_cannot_be_interrupted() {
    let (mut program, _notifier, keeper) = kept(python("import sys; sys.stdin.read()").stdin(Stdio::piped()));
    let of = |name: &str| fs::read_to_string(format!("/proc/{keeper}/{name}")).unwrap();
    let ready = |status: &str| status.contains("Name:\tzdr-keeper\n") && status.contains("State:\tS");
    let link = |name: &str| fs::read_link(format!("/proc/{keeper}/{name}")).unwrap().display().to_string();
    let held = || fs::read_dir(format!("/proc/{keeper}/fd")).unwrap();
    while !ready(&of("status")) || held().count() != 5 {
        std::thread::yield_now();
    }
    assert_eq!(link("cwd"), "/");
    assert_eq!([link("fd/0"), link("fd/1"), link("fd/2")], ["/dev/null"; 3]);
    let held: Vec<_> = held().map(|fd| link(&format!("fd/{}", fd.unwrap().file_name().display()))).collect();
    assert!(held.iter().any(|link| link.contains("seccomp notify")), "{held:?}");
    // All but SIGKILL, the ninth, and SIGSTOP, the nineteenth.
    assert!(of("status").contains("SigBlk:\tfffffffffffbfeff\n"), "{}", of("status"));
    assert!(of("stat").split(") S ").nth(1).unwrap().split(' ').nth(1) == Some(&keeper.to_string()), "its own group");
    assert!(!of("maps").contains("[heap]"));
    drop(program.stdin.take());
    program.wait().unwrap();
}
