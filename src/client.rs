//! The client commands: find the supervisor, ask it over its admin socket, say what it said.
//!
//! Decides nothing about servers; the verdict and its exit code come from the supervisor.

mod connection;
mod show;

#[expect(clippy::disallowed_methods, reason = "a client has its own time limits, and no part in the rules' clock")]
mod patience {
    use std::time::{Duration, Instant};

    /// A time limit of the user's.
    #[derive(Clone, Copy, Debug)]
    pub(super) struct Patience(Option<Instant>);

    impl Patience {
        pub(super) fn of(limit: Option<Duration>) -> Self {
            Self(limit.map(|limit| Instant::now() + limit))
        }

        /// What is left; None without a limit, zero when it has passed.
        pub(super) fn left(self) -> Option<Duration> {
            self.0.map(|end| end.saturating_duration_since(Instant::now()))
        }

        pub(super) fn is_over(self) -> bool {
            self.left() == Some(Duration::ZERO)
        }
    }
}

use std::fs;
use std::io::{IsTerminal, Write, stdout};
use std::path::{Path, PathBuf};
use std::thread::park_timeout;
use std::time::Duration;

use nix::unistd::geteuid;
use serde_json::{Value, json};

use self::connection::{ClientError, Connection};
use self::patience::Patience;
use self::show::{Progress, one_line, status_text};
use crate::cli::{EventsArgs, ListArgs, ReloadArgs, StatusArgs, UntilArgs, WaitArgs, WaitFor, Which};
use crate::runtime_directory::{admin_socket, directory, name_of};

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

/// `zdr stop`.
pub fn stop(args: &WaitArgs) -> Outcome {
    order(&args.which, "/v1/stop", "", args.timeout, args.json)
}

/// Follows the story until the verdict, whose code is ours.
fn order(which: &Which, path: &str, body: &str, timeout: Option<Duration>, as_json: bool) -> Outcome {
    let patience = Patience::of(timeout);
    let mut connection = Connection::open(&find(which)?)?;
    connection.ask("POST", path, body, patience)?;
    let mut progress = Progress::new(as_json);
    while let Some(line) = connection.next_line(patience)? {
        let Ok(told) = serde_json::from_str::<Value>(&line) else { continue };
        progress.show(&line, &told);
        if told["accepted"] == true {
            return Ok(0);
        }
        if told["event"] == "verdict" {
            return verdict(&told, as_json);
        }
    }
    match path {
        "/v1/stop" => Ok(0),
        _ => Err(ClientError::Ended),
    }
}

fn verdict(told: &Value, as_json: bool) -> Outcome {
    let code = told["code"].as_u64().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
    let reason = told["message"].as_str().unwrap_or_default().to_owned();
    match code {
        0 => Ok(0),
        _ if as_json => Ok(code),
        _ => Err(ClientError::Verdict { code, reason }),
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
    const REDRAW: Duration = Duration::from_secs(1);
    let path = find(&args.which)?;
    loop {
        let status = status_of(&path)?;
        let text = if args.json { format!("{status}\n") } else { status_text(&status) };
        let clear = if args.watch && !args.json { "\x1b[H\x1b[2J" } else { "" };
        let written = write!(stdout(), "{clear}{text}").and_then(|()| stdout().flush());
        if !args.watch || written.is_err() {
            return Ok(0);
        }
        park_timeout(REDRAW);
    }
}

/// `zdr events`.
pub fn events(args: &EventsArgs) -> Outcome {
    let mut connection = Connection::open(&find(&args.which)?)?;
    connection.ask("GET", "/v1/events", "", Patience::of(None))?;
    while let Some(line) = connection.next_line(Patience::of(None))? {
        let Some(data) = line.strip_prefix("data: ") else { continue };
        let text = if args.json { data.to_owned() } else { one_line(data) };
        // A reader that has gone, as in `zdr events | head`, ends it.
        if writeln!(stdout(), "{text}").is_err() {
            return Ok(0);
        }
    }
    Err(ClientError::Ended)
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
    for status in all {
        let _ = writeln!(stdout(), "{}", show::list_line(&status));
    }
    0
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
