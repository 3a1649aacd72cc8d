//! What a terminal sees of the client commands: a pty with somebody who types and resizes.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::spawn;

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;
use serde_json::Value;

use crate::harness::{Setup, ZDR, Zdr, get, sample, wait_for};

const ENTER: &str = "\u{1b}[?1049h\u{1b}[?25l";
const LEAVE: &str = "\u{1b}[?25h\u{1b}[?1049l";

/// A client command on a terminal of its own.
struct Terminal {
    child: Child,
    master: File,
    slave: OwnedFd,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    fn new(zdr: &Zdr, arguments: &[&str], columns: u16, environment: &[(&str, &str)]) -> Self {
        let size = Winsize { ws_row: 40, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(Some(&size), None).unwrap();
        let end = || Stdio::from(pair.slave.try_clone().unwrap());
        // So that the terminal's keys and sizes send signals.
        let mut command = Command::new("setsid");
        // Whoever started the tests in the background may have had these signals ignored, which is inherited.
        command.args(["--ctty", "env", "--default-signal=INT,QUIT,TSTP"]);
        command.arg(ZDR).args(arguments).env("ZDR_ADMIN", zdr.admin()).env("TERM", "xterm-256color");
        for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLUMNS", "CI"] {
            command.env_remove(name);
        }
        command.envs(environment.iter().copied());
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let (master, seen) = (File::from(pair.master), Arc::new(Mutex::new(Vec::new())));
        let (mut reader, all) = (master.try_clone().unwrap(), Arc::clone(&seen));
        spawn(move || {
            let mut chunk = [0; 4096];
            while let Ok(length) = reader.read(&mut chunk) {
                all.lock().unwrap().extend_from_slice(&chunk[..length]);
            }
        });
        Self { child, master, slave: pair.slave, seen }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }

    #[track_caller]
    fn shows(&self, words: &str) -> String {
        self.shows_since(0, words)
    }

    /// Behind what was shown at some time before.
    #[track_caller]
    fn shows_since(&self, from: usize, words: &str) -> String {
        wait_for(&format!("{words:?} on the terminal"), || {
            Some(self.text()).filter(|text| text.get(from..).is_some_and(|text| text.contains(words)))
        })
    }

    fn types(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        wait_for("the end of the client", || child.try_wait().unwrap())
    }

    /// Everything that it showed until its end; a last word shows that all of it was read.
    fn whole(mut self) -> (Option<i32>, String) {
        let code = self.ended().code();
        let mut end = File::from(self.slave.try_clone().unwrap());
        end.write_all(b"<end>").unwrap();
        let text = self.shows("<end>");
        (code, text.replace("<end>", "").replace("\r\n", "\n"))
    }

    fn echoes(&self) -> bool {
        tcgetattr(&self.slave).unwrap().local_flags.contains(LocalFlags::ECHO)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- terminal ---\n{:?}", self.text());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn started() -> Zdr {
    Setup::of(&sample(&[])).option("--bake", "0s").start()
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

#[test]
fn colour_is_for_terminals_and_for_those_who_ask_for_it() {
    let zdr = started();
    let coloured = |environment: &[(&str, &str)]| {
        let (code, text) = Terminal::new(&zdr, &["status"], 80, environment).whole();
        assert_eq!(code, Some(0), "{text}");
        text.contains('\u{1b}')
    };
    assert!(coloured(&[]));
    assert!(!coloured(&[("NO_COLOR", "1")]));
    assert!(!coloured(&[("TERM", "dumb")]));
    let piped = |name: &str| {
        let output = zdr.client_command(&["status"]).env(name, "1").output().unwrap();
        String::from_utf8(output.stdout).unwrap().contains('\u{1b}')
    };
    assert!(!piped("SOMETHING"));
    assert!(piped("CLICOLOR_FORCE"));
}

#[test]
fn a_status_fits_the_terminal() {
    let zdr = started();
    assert_eq!(zdr.reload_to(&sample(&["--bad", "exit:1"])).code, 3);
    for columns in [45, 80, 132] {
        let (_, text) = Terminal::new(&zdr, &["status"], columns, &[("NO_COLOR", "1")]).whole();
        let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= columns.into() && text.lines().count() > 6, "{columns}: {text}");
    }
}

#[test]
fn watching_draws_in_one_place_and_gives_the_terminal_back() {
    let zdr = started();
    let mut terminal = Terminal::new(&zdr, &["status", "--watch"], 80, &[]);
    let text = terminal.shows("has served for");
    assert!(text.starts_with(ENTER) && text.contains("\u{1b}[?2026h\u{1b}[H"), "{text:?}");
    assert!(!terminal.echoes());
    assert_eq!(zdr.reload().code, 0);
    let text = terminal.shows("generation 2 has served for");
    assert!(!text.contains("\u{1b}[2J") && !text.contains(LEAVE), "{text:?}");
    terminal.types("\u{3}");
    assert_eq!(terminal.ended().signal(), Some(Signal::SIGINT as i32));
    assert!(terminal.shows(LEAVE).ends_with(LEAVE));
    assert!(terminal.echoes());
}

#[test]
fn watching_follows_the_size_of_the_terminal() {
    let zdr = started();
    let terminal = Terminal::new(&zdr, &["status", "--watch"], 80, &[("NO_COLOR", "1")]);
    let text = terminal.shows("\u{1b}[?2026l");
    assert!(text.contains("COMMAND"), "{text:?}");
    let before = text.len();
    let mut resize = Command::new("stty");
    resize.args(["cols", "30", "rows", "3"]).stdin(terminal.slave.try_clone().unwrap());
    assert!(resize.status().unwrap().success());
    // Each of the two is a change of its own.
    wait_for("three lines", || {
        let text = terminal.text();
        let drawn = text.get(before..)?.rsplit("\u{1b}[?2026h");
        let last = drawn.into_iter().find(|part| part.contains("2026l"))?;
        (last.matches("\r\n").count() == 2 && !last.contains("COMMAND")).then_some(())
    });
}

#[test]
fn watching_can_be_suspended() {
    let zdr = started();
    let mut terminal = Terminal::new(&zdr, &["status", "--watch"], 80, &[]);
    terminal.shows("has served for");
    terminal.types("\u{1a}");
    let left = terminal.shows(LEAVE).len();
    let stat = format!("/proc/{}/stat", terminal.child.id());
    wait_for("it to be stopped", || std::fs::read_to_string(&stat).unwrap().contains(") T ").then_some(()));
    assert!(terminal.echoes());
    kill(pid_of(&terminal.child), Signal::SIGCONT).unwrap();
    terminal.shows_since(left, ENTER);
    terminal.shows_since(left, "has served for");
    assert!(!terminal.echoes());
}

#[test]
fn watching_goes_on_with_the_next_supervisor() {
    let setup = Setup::of(&sample(&[]));
    let folder = tempfile::tempdir().unwrap();
    let admin = folder.path().join("admin").display().to_string();
    let mut zdr = setup.at(&admin).start();
    let mut terminal = Terminal::new(&zdr, &["status", "--watch"], 80, &[]);
    terminal.shows(&format!("pid {}", zdr.pid()));
    zdr.signal(Signal::SIGTERM);
    zdr.ended();
    terminal.shows("no supervisor answered for");
    let next = Setup::of(&sample(&[])).at(&admin).start();
    terminal.shows(&format!("pid {}", next.pid()));
    terminal.types("\u{3}");
    assert_eq!(terminal.ended().signal(), Some(Signal::SIGINT as i32));
}

#[test]
fn watching_without_a_terminal_prints_what_has_changed() {
    let zdr = started();
    let mut child = zdr.client_in_background(&["status", "--watch"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("generation 1 has served")));
    assert_eq!(zdr.reload().code, 0);
    assert!(lines.any(|line| line.contains("generation 2 has served")));
    assert_eq!(zdr.client(&["stop"]).code, 0);
    assert!(lines.any(|line| line == "no supervisor answered"));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn watching_as_json_is_a_status_on_each_line() {
    let zdr = started();
    let mut child = zdr.client_in_background(&["status", "--watch", "--json"]);
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap()).unwrap();
    let (watched, asked) = (next(), zdr.status());
    let fields = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(fields(&watched), fields(&asked));
    assert_eq!(fields(&watched["generations"][0]), fields(&asked["generations"][0]));
    assert_eq!(next()["generation"], 1);
    drop(lines);
    // It ends when it finds that nobody reads it.
    let end = wait_for("the end of watching", || child.try_wait().unwrap());
    assert_eq!(end.code(), Some(0));
}

#[test]
fn watching_nobody_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("none").display().to_string();
    assert_eq!(crate::harness::zdr(&["status", "--watch", "--admin", &path]).code, 4);
}

#[test]
fn a_reload_on_a_terminal_shows_times_and_a_drain_that_goes_on() {
    let zdr = Setup::of(&sample(&["--work", "1500ms"])).option("--bake", "0s").start();
    let address = zdr.address();
    let clients: Vec<_> = (0..4).map(|_| spawn(move || get(address, "/").0)).collect();
    zdr.wait_until("four requests", |status| status["in_flight"] == 4);
    let arguments = ["reload", "--wait", "drained"];
    let (code, text) = Terminal::new(&zdr, &arguments, 100, &[("NO_COLOR", "1")]).whole();
    assert!(clients.into_iter().all(|client| client.join().unwrap() == 200));
    assert_eq!(code, Some(0), "{text}");
    for words in ["+0.0s   generation 2 started", "4 connections left, 4 busy  ░░░░░░░░░░░░░░░░░░░░\u{1b}[K\r"]
    {
        assert!(text.contains(words), "{words}: {text:?}");
    }
    assert!(text.matches("generation 1 drains").count() > 5, "{text:?}");
    // What is written over is gone at the end.
    let last = text.trim_end().rsplit(['\r', '\n']).next().unwrap();
    assert!(text.ends_with('\n') && !last.contains("connections left"), "{text:?}");
}

#[test]
fn a_reload_of_several_instances_on_a_terminal_is_one_line_that_fills_a_bar() {
    let zdr = Setup::of(&sample(&[])).option("--instances", "4").start();
    let (code, text) = Terminal::new(&zdr, &["reload"], 100, &[("NO_COLOR", "1")]).whole();
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("generation 2: 4 of 4 instances are ready  ████████████████████\u{1b}[K\r"), "{text:?}");
    assert_eq!(text.trim_end().lines().count(), 1, "{text:?}");
}

#[test]
fn a_reload_that_is_not_ready_yet_says_for_how_long_on_one_line() {
    let zdr = Setup::of(&sample(&[])).option("--ready", "/health").start();
    let command = sample(&["--bad", "status:503"]);
    let mut arguments = vec!["reload", "--timeout", "700ms", "--"];
    arguments.extend(command.iter().map(String::as_str));
    let (code, text) = Terminal::new(&zdr, &arguments, 50, &[("NO_COLOR", "1")]).whole();
    assert_eq!(code, Some(1), "{text}");
    let end = "\u{1b}[K\nzdr: no verdict in the time given; it goes on, `zdr status` shows how\n";
    assert!(text.ends_with(end), "{text:?}");
    let lines = text.split(['\r', '\n']).filter(|line| line.contains("not ready"));
    let widths: Vec<_> = lines.map(|line| line.trim_end().trim_end_matches("\u{1b}[K").chars().count()).collect();
    let times: BTreeSet<&str> = text.split('\r').filter_map(|line| line.split(' ').next()).collect();
    assert!(times.len() > 3, "{text:?}");
    assert!(widths.len() > 3 && widths.iter().all(|width| *width < 50), "{text:?}");
}
