//! The client commands: find the supervisor, ask it over its admin socket, say what it said.
//!
//! Decides nothing about servers; the verdict and its exit code come from the supervisor.

mod canvas;
mod connection;
mod error;
mod show;
mod time;
mod watch;

use std::collections::VecDeque;
use std::fs;
use std::io::{self, IsTerminal, Stdout, Write, stdout};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::thread::park_timeout;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags};
use nix::unistd::geteuid;
use serde_json::{Value, json};

use self::connection::{Connection, Next};
use self::error::ClientError;
use self::show::{Progress, Screen, Story, lines, list_text, status_text};
use self::time::{Patience, Stopwatch};
use crate::cli::{
    EventsArgs, HealthArgs, ListArgs, PauseArgs, ReloadArgs, ScaleArgs, StatusArgs, UntilArgs, WaitArgs, WaitFor, Which,
};
use crate::runtime_directory::{admin_socket, directory, name_of};
use crate::supervisor::Scale;

/// What a client command ends with: an exit code, or a sentence and an exit code.
pub type Outcome = Result<u8, ClientError>;

/// `zdr reload`.
pub fn reload(args: &ReloadArgs) -> Outcome {
    let mut body = json!({ "wait": wait_word(args) });
    if !args.command.is_empty() {
        body["command"] = args.command.clone().into();
    }
    order(&args.which, "/v1/reload", &body.to_string(), args.timeout, args.json)
}

fn wait_word(args: &ReloadArgs) -> &'static str {
    match args.wait {
        _ if args.no_wait => "none",
        WaitFor::Serving => "serving",
        WaitFor::Drained => "drained",
    }
}

/// `zdr restart`.
pub fn restart(args: &WaitArgs) -> Outcome {
    order(&args.which, "/v1/restart", "", args.timeout, args.json)
}

/// `zdr rollback`.
pub fn rollback(args: &WaitArgs) -> Outcome {
    order(&args.which, "/v1/rollback", "", args.timeout, args.json)
}

/// `zdr scale`.
pub fn scale(args: &ScaleArgs) -> Outcome {
    let body = match args.instances {
        Scale::To(number) => json!({ "instances": number }),
        Scale::By(more) => json!({ "more": more }),
    };
    order(&args.wait.which, "/v1/scale", &body.to_string(), args.wait.timeout, args.wait.json)
}

/// `zdr pause`.
pub fn pause(args: &PauseArgs) -> Outcome {
    let body = json!({ "for_secs": args.time.as_secs_f64() });
    order(&args.wait.which, "/v1/pause", &body.to_string(), args.wait.timeout, args.wait.json)
}

/// `zdr resume`.
pub fn resume(args: &WaitArgs) -> Outcome {
    order(&args.which, "/v1/resume", "", args.timeout, args.json)
}

/// `zdr stop`.
pub fn stop(args: &WaitArgs) -> Outcome {
    order(&args.which, "/v1/stop", "", args.timeout, args.json)
}

/// Follows the story until the verdict, whose code is ours.
fn order(which: &Which, path: &str, body: &str, timeout: Option<Duration>, as_json: bool) -> Outcome {
    let patience = Patience::of(timeout);
    let admin = find(which)?;
    let mut connection = Connection::open(&admin)?;
    connection.ask("POST", path, body, patience)?;
    let mut progress = Progress::new(stdout(), (!as_json).then(Screen::of_stdout));
    let told = follow(&mut connection, &mut progress, patience);
    progress.end();
    let told = told?;
    if path == "/v1/stop" {
        wait_until_it_is_gone(&admin);
    }
    match told {
        Some(told) if told["accepted"] == true => Ok(0),
        Some(told) => verdict(&told, as_json),
        None if path == "/v1/stop" => Ok(0),
        None => Err(ClientError::Ended),
    }
}

/// After its last word a supervisor still passes on what its servers wrote and removes its paths. Whoever stops one and starts
/// the next is not to find it there.
fn wait_until_it_is_gone(admin: &Path) {
    const PAUSE: Duration = Duration::from_millis(1);
    let patience = Patience::of(Some(Duration::from_secs(5)));
    while Connection::open(admin).is_ok() && !patience.is_over() {
        park_timeout(PAUSE);
    }
}

/// Shows what happens until the last word.
fn follow(
    connection: &mut Connection,
    progress: &mut Progress<Stdout>,
    patience: Patience,
) -> Result<Option<Value>, ClientError> {
    let begun = Stopwatch::start();
    loop {
        let limit = [patience.left(), progress.pace()].into_iter().flatten().min();
        match connection.next(limit, None)? {
            Next::End => return Ok(None),
            Next::Line(line) => {
                let Ok(told) = serde_json::from_str::<Value>(&line) else { continue };
                progress.show(&line, &told, begun.elapsed());
                if told["accepted"] == true || told["event"] == "verdict" {
                    return Ok(Some(told));
                }
            }
            Next::Late | Next::Interrupted => progress.tick(begun.elapsed()),
        }
        if patience.is_over() {
            return Err(ClientError::TimedOut);
        }
    }
}

fn verdict(told: &Value, as_json: bool) -> Outcome {
    let code = told["code"].as_u64().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    let reason = told["message"].as_str().unwrap_or_default().to_owned();
    match code {
        0 => Ok(0),
        _ if as_json => Ok(code),
        _ => Err(ClientError::Verdict { code, reason, output: lines(&told["output"]) }),
    }
}

/// `zdr wait`: also until the supervisor itself is there.
pub fn wait(args: &UntilArgs) -> Outcome {
    const PAUSE: Duration = Duration::from_millis(20);
    let patience = Patience::of(Some(args.timeout));
    loop {
        let state = match find(&args.which).and_then(|path| asked(&path, "/readyz")) {
            Ok(_) => return Ok(0),
            Err(error) => error.to_string(),
        };
        if patience.is_over() {
            return Err(ClientError::NotServing { limit: args.timeout, state });
        }
        park_timeout(PAUSE);
    }
}

/// `zdr status`.
pub fn status(args: &StatusArgs) -> Outcome {
    let path = find(&args.which)?;
    if args.watch {
        return watch::watch(&path, args.json);
    }
    let status = status_of(&path)?;
    let text = if args.json { format!("{status}\n") } else { status_text(&status, Screen::of_stdout()) };
    // A reader that has gone, as in `zdr status | head -1`, has seen enough.
    let _ = stdout().write_all(text.as_bytes());
    Ok(0)
}

/// `zdr health`. Docker reserves every code but 0 and 1, so that whatever keeps it from an answer ends with 1 as well.
pub fn health(args: &HealthArgs) -> Outcome {
    let (target, field, no) = match () {
        () if args.live => ("/livez", "live", "not alive"),
        () if args.ready => ("/readyz", "ready", "not ready"),
        () if args.startup => ("/health/startup", "started", "nothing has ever served"),
        () => ("/healthz", "status", "unhealthy"),
    };
    let asked = find(&args.which).and_then(|path| {
        let mut connection = Connection::open(&path)?;
        let status = connection.ask_whatever("GET", target, "", Patience::of(None))?;
        let body = connection.next_line(Patience::of(Some(error::ANSWER)))?.ok_or(ClientError::Ended)?;
        Ok((status.contains(" 200"), serde_json::from_str::<Value>(&body).map_err(|_| ClientError::Ended)?))
    });
    let (good, told) = asked.map_err(|error| ClientError::Refused(error.to_string()))?;
    let why = show::health_line(&told);
    if !good {
        return Err(ClientError::Refused(if why.is_empty() { no.to_owned() } else { format!("{no}: {why}") }));
    }
    let word = told["status"].as_str().unwrap_or(field);
    let line = if why.is_empty() { word.to_owned() } else { format!("{word}: {why}") };
    let _ = writeln!(stdout(), "{line}");
    Ok(0)
}

/// `zdr events`: what is kept, then what comes.
pub fn events(args: &EventsArgs) -> Outcome {
    let path = find(&args.which)?;
    let mut reader = Reader { story: Story::new(Screen::of_stdout()), as_json: args.json };
    let mut since = args.since;
    let mut no_follow = args.no_follow;
    if let Some(number) = args.number {
        let mut kept = VecDeque::new();
        ask_events(&path, since, false, |data| {
            kept.push_back(data.to_owned());
            kept.drain(..kept.len().saturating_sub(number.max(1)));
            Ok(())
        })?;
        since = kept.back().and_then(|data| id_of(data)).or(since);
        kept.drain(..kept.len().saturating_sub(number));
        no_follow |= kept.iter().any(|data| reader.print(data).is_err());
        if no_follow {
            return Ok(0);
        }
    }
    ask_events(&path, since, !no_follow, |data| reader.print(data))
}

/// Everything that is kept behind an event, and what comes after it if asked for.
fn ask_events(path: &Path, since: Option<u64>, follow: bool, mut each: impl FnMut(&str) -> io::Result<()>) -> Outcome {
    let mut connection = Connection::open(path)?;
    let since = since.map(|id| format!("last_event_id={id}"));
    let query: Vec<String> = since.into_iter().chain((!follow).then(|| "follow=false".to_owned())).collect();
    let mark = if query.is_empty() { "" } else { "?" };
    connection.ask("GET", &format!("/v1/events{mark}{}", query.join("&")), "", Patience::of(None))?;
    let stdout = stdout();
    let gone = reader_gone(stdout.as_fd());
    loop {
        match connection.next(None, Some(&gone))? {
            Next::Line(line) if line.strip_prefix("data: ").is_none_or(|data| each(data).is_ok()) => {}
            Next::End if follow => return Err(ClientError::Ended),
            // What was asked for is there, or the reader has gone, as in `zdr events | head`.
            _ => return Ok(0),
        }
    }
}

/// When nobody reads the standard output any more: a pipe without a reader is an error even where nothing is asked of it
/// (poll(2)).
fn reader_gone(stdout: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::new(stdout, PollFlags::empty())
}

/// Whoever reads events.
struct Reader {
    story: Story,
    as_json: bool,
}

impl Reader {
    fn print(&mut self, data: &str) -> io::Result<()> {
        let text = if self.as_json { format!("{data}\n") } else { self.story.text(data) };
        stdout().write_all(text.as_bytes())?;
        stdout().flush()
    }
}

fn id_of(data: &str) -> Option<u64> {
    serde_json::from_str::<Value>(data).ok()?["id"].as_u64()
}

/// `zdr list`.
pub fn list(args: &ListArgs) -> u8 {
    let mut all = Vec::new();
    for path in sockets() {
        all.extend(status_of(&path));
    }
    if args.json {
        let _ = writeln!(stdout(), "{}", Value::from(all));
        return 0;
    }
    if all.is_empty() && stdout().is_terminal() {
        let _ = writeln!(stdout(), "no supervisor runs here");
    }
    let _ = stdout().write_all(list_text(&all, Screen::of_stdout()).as_bytes());
    0
}

/// Where the supervisor of this name is asked, if its settings name no other place.
pub fn admin_of(name: &str) -> PathBuf {
    admin_socket(&runtime_directory(), name)
}

/// The process of the supervisor that answers there.
pub fn process_at(admin: &Path) -> Option<i32> {
    status_of(admin).ok()?["pid"].as_i64().and_then(|pid| pid.try_into().ok())
}

fn status_of(path: &Path) -> Result<Value, ClientError> {
    asked(path, "/v1/status")
}

fn asked(path: &Path, target: &str) -> Result<Value, ClientError> {
    let mut connection = Connection::open(path)?;
    connection.ask("GET", target, "", Patience::of(None))?;
    let text = connection.next_line(Patience::of(Some(Duration::from_secs(10))))?.unwrap_or_default();
    serde_json::from_str(&text).map_err(|_| ClientError::Ended)
}

/// By --admin or ZDR_ADMIN, by --name, or the only one that runs here.
fn find(which: &Which) -> Result<PathBuf, ClientError> {
    if let Some(name) = &which.name {
        return Ok(admin_socket(&runtime_directory(), name));
    }
    if let Some(path) = &which.admin {
        return Ok(path.clone());
    }
    let mut living = sockets().into_iter().filter(|path| Connection::open(path).is_ok());
    match (living.next(), living.next()) {
        (Some(only), None) => Ok(only),
        (None, _) => Err(ClientError::NoneHere { directory: runtime_directory() }),
        (Some(one), Some(another)) => {
            let names = [one, another].into_iter().chain(living).filter_map(|path| name_of(&path).map(str::to_owned));
            Err(ClientError::Several { names: names.collect() })
        }
    }
}

/// Every admin socket in the runtime directory; the living and the dead.
fn sockets() -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(runtime_directory()) else { return Vec::new() };
    let mut paths: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| name_of(path).is_some()).collect();
    paths.sort();
    paths
}

fn runtime_directory() -> PathBuf {
    directory(|name| std::env::var_os(name), geteuid().as_raw())
}
