//! Relays of real writers, to destinations of every kind.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::thread;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, pipe2};

use super::super::companion::tests::End;
use super::*;

/// A pipe that no other test's child gets.
fn pipe() -> (OwnedFd, File) {
    let (read, write) = pipe2(OFlag::O_CLOEXEC).unwrap();
    (read, File::from(write))
}

/// A relay between two pipes.
struct Relay {
    notes: Notes,
    pid: i32,
    input: File,
    source: OwnedFd,
    output: File,
    destination: File,
}

impl Relay {
    fn start() -> Self {
        let (source, input) = pipe();
        let (output, destination) = pipe();
        let notes = Notes::new().unwrap();
        let pid = start(source.as_fd(), destination.as_fd(), &notes).unwrap();
        Self { notes, pid, input, source, output: File::from(output), destination }
    }

    /// Waits for the end of the relay, which comes when the input is closed, and gives what it has noted.
    fn end(self) -> Notes {
        drop(self.input);
        ended(self.pid);
        self.notes
    }
}

fn ended(pid: i32) {
    use nix::sys::wait::WaitStatus;
    assert_eq!(waitpid(Pid::from_raw(pid), None).unwrap(), WaitStatus::Exited(Pid::from_raw(pid), 0));
}

/// Bytes of which no part is like another.
fn many() -> Vec<u8> {
    (0..300_000_u32).flat_map(u32::to_le_bytes).collect()
}

fn takes_more(pipe: &File) -> bool {
    let mut asked = [PollFd::new(pipe.as_fd(), PollFlags::POLLOUT)];
    poll(&mut asked, PollTimeout::ZERO).unwrap() == 1
}

/// Waits for something that the relay is about to do.
fn until(condition: impl Fn() -> bool) {
    while !condition() {
        thread::yield_now();
    }
}

#[test]
fn every_byte_arrives_and_the_last_16_kib_are_known() {
    let mut relay = Relay::start();
    let mut output = relay.output.try_clone().unwrap();
    let reader = thread::spawn(move || {
        let mut all = Vec::new();
        output.read_to_end(&mut all).map(|_| all).unwrap()
    });
    relay.input.write_all(&many()).unwrap();
    drop(relay.destination);
    drop(relay.input);
    ended(relay.pid);
    assert!(reader.join().unwrap() == many());
    let tail = relay.notes.tail();
    assert!(tail.is_cut && tail.bytes == many()[many().len() - 16 * 1024..]);
    assert!(relay.notes.are_passed());
}

#[test]
fn what_is_written_at_last_without_an_end_of_line_is_passed_on_at_once() {
    let mut relay = Relay::start();
    // As long as what is read at once, so that more might follow.
    let mut text = [b"line\n".repeat(800), b"x".repeat(96)].concat();
    assert_eq!(text.len(), 4096);
    relay.input.write_all(&text).unwrap();
    let mut arrived = vec![0; text.len()];
    relay.output.read_exact(&mut arrived).unwrap();
    assert!(arrived == text);
    text.truncate(text.len() - 1);
    relay.input.write_all(&text).unwrap();
    relay.output.read_exact(&mut arrived[..text.len()]).unwrap();
    relay.end();
}

#[test]
fn a_line_of_another_writer_comes_between_lines_and_not_into_them() {
    let mut relay = Relay::start();
    let mut other = relay.destination.try_clone().unwrap();
    let output = relay.output.try_clone().unwrap();
    let lines = |name: &str| format!("{name}{}\n", "y".repeat(90)).repeat(4_000);
    // One write for each line, as a log does.
    let write = move |to: &mut File, name: &str| {
        for line in lines(name).split_inclusive('\n') {
            to.write_all(line.as_bytes()).unwrap();
        }
    };
    let writer = thread::spawn(move || write(&mut other, "other"));
    let reader = thread::spawn(move || io::read_to_string(output).unwrap());
    write(&mut relay.input, "server");
    writer.join().unwrap();
    drop((relay.destination, relay.input));
    ended(relay.pid);
    let said = reader.join().unwrap();
    let whole = |line: &&str| [5, 6].contains(&line.trim_end_matches('y').len()) && line.matches('y').count() == 90;
    assert_eq!(said.lines().filter(whole).count(), 8_000);
}

#[test]
fn a_writer_does_not_notice_that_nobody_reads_any_more() {
    let mut relay = Relay::start();
    drop(relay.output);
    // More than all the pipes have room for.
    relay.input.write_all(&many()).unwrap();
    drop(relay.input);
    ended(relay.pid);
    assert_eq!(relay.notes.tail().bytes, many()[many().len() - 16 * 1024..]);
}

#[test]
fn a_destination_that_does_not_block_gets_everything_as_well() {
    let mut relay = Relay::start();
    fcntl(relay.destination.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let mut input = relay.input.try_clone().unwrap();
    let writer = thread::spawn(move || input.write_all(&many()).unwrap());
    let mut arrived = vec![0; many().len()];
    relay.output.read_exact(&mut arrived).unwrap();
    assert!(arrived == many());
    writer.join().unwrap();
    relay.end();
}

#[test]
fn what_a_killed_relay_had_read_and_not_passed_on_is_passed_on_by_the_next() {
    let mut relay = Relay::start();
    // More than the destination takes and the relay holds, and less than with what the source takes.
    let text = &many()[..100_000];
    relay.input.write_all(text).unwrap();
    // It reads no more by then: killed between reading and noting, it takes what it has read with it.
    until(|| relay.notes.page().room() == 0 && !takes_more(&relay.destination));
    kill(Pid::from_raw(relay.pid), Signal::SIGKILL).unwrap();
    waitpid(Pid::from_raw(relay.pid), None).unwrap();
    relay.pid = start(relay.source.as_fd(), relay.destination.as_fd(), &relay.notes).unwrap();
    let mut arrived = vec![0; text.len()];
    relay.output.read_exact(&mut arrived).unwrap();
    assert!(arrived == text);
    relay.end();
}

#[test]
fn a_full_disk_costs_what_is_written_to_it_and_nothing_else() {
    let Ok(full) = File::options().write(true).open("/dev/full") else { return };
    let (source, mut input) = pipe();
    let notes = Notes::new().unwrap();
    let pid = start(source.as_fd(), full.as_fd(), &notes).unwrap();
    input.write_all(&many()).unwrap();
    drop(input);
    ended(pid);
    assert!(notes.are_passed());
}

#[test]
fn a_relay_holds_nothing_of_zdrs_and_cannot_be_interrupted() {
    let relay = Relay::start();
    let pid = relay.pid;
    let of = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap();
    until(|| of("status").contains("Name:\tzdr-relay\n") && of("status").contains("State:\tS"));
    let link = |name: &str| fs::read_link(format!("/proc/{pid}/{name}")).unwrap().display().to_string();
    assert_eq!(link("cwd"), "/");
    let held: Vec<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|fd| link(&format!("fd/{}", fd.unwrap().file_name().display())))
        .collect();
    assert_eq!(held.len(), 5, "{held:?}");
    assert_eq!(held.iter().filter(|link| *link == "/dev/null").count(), 3, "{held:?}");
    // All but SIGKILL, the ninth, and SIGSTOP, the nineteenth.
    assert!(of("status").contains("SigBlk:\tfffffffffffbfeff\n"), "{}", of("status"));
    assert_eq!(of("stat").split(") S ").nth(1).unwrap().split(' ').nth(1), Some(pid.to_string().as_str()), "its group");
    let maps = of("maps");
    assert!(!maps.contains("[heap]") && maps.matches("/dev/zero").count() == 1, "{maps}");
    let end = End::of(pid);
    assert!(!end.has_come());
    relay.end();
    end.comes();
}
