//! What was asked for, checked: the settings of one supervisor as plain values.
//!
//! Knows no command line and no file system; `cli.rs` converts into it.

mod check;
mod fault;
mod hooks;
mod instances;
mod log;
mod process;
pub mod servers;
mod source;

use std::ffi::OsString;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

pub use self::check::{Check, Live, distinct_checks, interval, question};
pub use self::fault::Fault;
pub use self::hooks::{distinct_hooks, hook};
pub use self::instances::{MOST_INSTANCES, Surge, budget, lifetime, memory, surge};
pub use self::log::{Log, LogFormat};
pub use self::process::{EnvironmentFile, INFINITY, Limit, Process, Resource, environment_text, umask};
pub use self::source::{Reading, Reread};
use crate::address::Listener;
use crate::supervisor::{Hook, Policy};
use crate::url::Url;

/// The settings of one supervisor.
#[derive(Clone, Debug)]
pub struct Config {
    /// What clients call this supervisor.
    pub name: String,
    /// Somebody chose that name; else it is the program's.
    pub name_was_chosen: bool,
    /// Where the admin socket is asked to be; None for the runtime directory.
    pub admin: Option<PathBuf>,
    /// Addresses that answer health questions.
    pub health: Vec<Listener>,
    /// The paths under which they answer.
    pub health_paths: Vec<String>,
    /// The addresses that are lent to the command.
    pub listeners: Vec<Listener>,
    /// The sockets that zdr itself was started with are lent instead.
    pub inherit: bool,
    /// Whether what the command binds by itself is taken over.
    pub capture: Capture,
    /// The program and its arguments.
    pub command: Vec<OsString>,
    /// How each generation is started.
    pub process: Process,
    /// How a generation proves itself.
    pub readiness: Readiness,
    /// What is asked while somebody looks.
    pub checks: Vec<Check>,
    /// How the serving generation is asked whether it is alive, if it is.
    pub live: Option<Live>,
    /// How long the serving generation may send no WATCHDOG=1, if that is watched.
    pub watchdog: Option<Duration>,
    /// How an old generation ends.
    pub drain: Drain,
    /// What zdr writes of all this.
    pub log: Log,
    /// How many of the last lines that a failed generation wrote are told; for none, its standard error is ours.
    pub tail: usize,
    /// How much memory the processes of an instance may have together, in bytes.
    pub max_memory: Option<u64>,
    /// Files and directories whose change is a reload.
    pub watch: Vec<PathBuf>,
    /// How long nothing more must have changed before that.
    pub watch_debounce: Duration,
    /// Commands of the user's, and when they run.
    pub hooks: Vec<(Hook, String)>,
    /// How long such a command may take.
    pub hook_timeout: Duration,
    /// What the rules need to know.
    pub policy: Policy,
}

/// Whether what the command binds by itself is taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Capture {
    /// It is left alone.
    #[default]
    Nothing,
    /// What it binds by its own right.
    Own,
    /// The addresses that zdr listens on as well, and ports below 1024 for a command that may not bind them.
    Everything,
}

/// How a generation proves itself.
#[derive(Clone, Debug)]
pub struct Readiness {
    /// The question that is asked.
    pub ready: Ready,
    /// The longest time between two probes; the first come quicker.
    pub interval: Duration,
    /// Time limit of one probe.
    pub limit: Duration,
    /// HTTP statuses that count as ready.
    pub statuses: Statuses,
    /// How many good answers in a row are wanted.
    pub successes: u32,
    /// How long an instance must stay up where nothing else can be asked.
    pub startup_grace: Duration,
}

/// How an old generation ends.
#[derive(Clone, Debug)]
pub struct Drain {
    /// The signal that asks it to finish, as a number (signal(7)).
    pub signal: i32,
    /// Where nobody chose the signal: what is to be said about it.
    pub advice: Option<String>,
    /// How long to wait, before the signal, until no request is in flight.
    pub idle: Duration,
}

/// The readiness question.
#[derive(Clone, Debug, PartialEq)]
pub enum Ready {
    /// None was given: READY=1 or an accepted connection, whichever is first.
    Default,
    /// GET of this path on the first listener.
    Path(String),
    /// GET of this URL.
    Http(Url),
    /// It has accepted a connection on its own slot of every stream listener.
    Tcp,
    /// It has sent READY=1 to its NOTIFY_SOCKET.
    Notify,
    /// This shell command ends with code 0.
    Exec(String),
    /// It has stayed up that long.
    Uptime(Duration),
}

impl Ready {
    /// Reads a readiness SPEC.
    pub fn parse(given: &str) -> Result<Self, String> {
        let why = |why: &str| format!("`{given}` is no readiness: {why}");
        if given.starts_with('/') {
            return match given.chars().any(|c| c.is_whitespace() || c.is_control() || c == '#') {
                true => Err(why("a path has no spaces, control characters or `#`")),
                false => Ok(Self::Path(given.to_owned())),
            };
        }
        if given.contains("://") {
            return Url::parse(given).map(Self::Http).map_err(|error| why(&error));
        }
        if let Some(command) = given.strip_prefix("exec:") {
            return match command.trim().is_empty() {
                true => Err(why("the command behind `exec:` is missing")),
                false => Ok(Self::Exec(command.to_owned())),
            };
        }
        match given {
            "tcp" => Ok(Self::Tcp),
            "notify" => Ok(Self::Notify),
            _ if given.starts_with(|c: char| c.is_ascii_digit()) => {
                duration(given).map(Self::Uptime).map_err(|error| why(&error))
            }
            _ => Err(why(
                "write a path such as /health, a URL, `tcp`, `notify`, `exec:COMMAND`, or a duration such as 2s",
            )),
        }
    }
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("READY=1 or an accepted connection"),
            Self::Path(path) => f.write_str(path),
            Self::Http(url) => write!(f, "{url}"),
            Self::Tcp => f.write_str("tcp"),
            Self::Notify => f.write_str("notify"),
            Self::Exec(command) => write!(f, "exec:{command}"),
            Self::Uptime(time) => write!(f, "{}", humantime::format_duration(*time)),
        }
    }
}

/// HTTP statuses that count as ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statuses(Vec<RangeInclusive<u16>>);

impl Statuses {
    /// Reads `200-399` or `200,204`.
    pub fn parse(given: &str) -> Result<Self, String> {
        let status = |text: &str| text.trim().parse::<u16>().ok().filter(|status| (100..600).contains(status));
        let range = |part: &str| {
            let (low, high) = part.split_once('-').unwrap_or((part, part));
            let (low, high) = (status(low)?, status(high)?);
            (low <= high).then_some(low..=high)
        };
        let ranges: Option<Vec<_>> = given.split(',').map(range).collect();
        ranges.map(Self).ok_or_else(|| format!("`{given}` should be HTTP statuses such as `200-399` or `200,204`"))
    }

    /// True where the status counts as ready.
    pub fn contains(&self, status: u16) -> bool {
        self.0.iter().any(|range| range.contains(&status))
    }
}

/// Reads a duration with its unit, such as `250ms`, `30s` or `1m 30s`.
pub fn duration(given: &str) -> Result<Duration, String> {
    if given.bytes().all(|byte| byte.is_ascii_digit()) && given != "0" {
        return Err(format!("the duration `{given}` has no unit; write for example `{given}s` or `{given}ms`"));
    }
    humantime::parse_duration(given)
        .map_err(|error| format!("`{given}` is no duration: {error}; write for example `30s` or `250ms`"))
}

/// Reads a signal: `TERM`, `SIGTERM` or `15`.
pub fn signal(given: &str, number_of: impl Fn(&str) -> Option<i32>) -> Result<i32, String> {
    let upper = given.to_ascii_uppercase();
    let name = if upper.starts_with("SIG") { upper } else { format!("SIG{upper}") };
    let by_number = given.parse::<i32>().ok().filter(|number| (1..=64).contains(number));
    by_number
        .or_else(|| number_of(&name))
        .ok_or_else(|| format!("`{given}` is no signal; write for example TERM, QUIT or INT"))
}

/// Checks what no single value can show: two listeners of one name or one address.
pub fn distinct(listeners: &[Listener]) -> Result<(), String> {
    for (position, one) in listeners.iter().enumerate() {
        for other in &listeners[..position] {
            if one.name == other.name {
                return Err(format!("two listeners are called `{}`; give each its own NAME=", one.name));
            }
            let chosen_by_kernel = one.address.socket().is_some_and(|socket| socket.port() == 0);
            if one.address == other.address && !chosen_by_kernel {
                return Err(format!("the address {} is given twice", one.address));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_readiness_is_understood() {
        assert_eq!(Ready::parse("/health?full=1"), Ok(Ready::Path("/health?full=1".to_owned())));
        assert_eq!(Ready::parse("tcp"), Ok(Ready::Tcp));
        assert_eq!(Ready::parse("notify"), Ok(Ready::Notify));
        assert_eq!(Ready::parse("exec:./check --all"), Ok(Ready::Exec("./check --all".to_owned())));
        assert_eq!(Ready::parse("1500ms"), Ok(Ready::Uptime(Duration::from_millis(1500))));
        for url in ["http://127.0.0.1:9000/ready", "https://[::1]:8443/", "http://unix:/run/x.sock:/path"] {
            assert!(matches!(Ready::parse(url), Ok(Ready::Http(_))), "{url}");
        }
    }

    #[test]
    fn a_readiness_that_means_nothing_is_refused_with_the_way_out() {
        for given in ["", "health", "exec:", "exec:  ", "30", "ftp://x/", "/a b", "-1s", "http://", "udp"] {
            let error = Ready::parse(given).unwrap_err();
            assert!(error.starts_with(&format!("`{given}` is no readiness: ")), "{error}");
        }
        assert!(Ready::parse("30").unwrap_err().contains("write for example `30s`"));
    }

    #[test]
    fn statuses_are_single_numbers_and_ranges() {
        let statuses = Statuses::parse("200-299,304").unwrap();
        assert!(statuses.contains(204) && statuses.contains(304) && !statuses.contains(303));
        for given in ["", "ok", "399-200", "99", "600", "200-", "200,,201"] {
            assert!(Statuses::parse(given).is_err(), "{given}");
        }
    }

    #[test]
    fn a_duration_without_a_unit_is_refused() {
        assert!(duration("30").unwrap_err().contains("has no unit"));
        assert!(duration("soon").unwrap_err().contains("is no duration"));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        assert_eq!(duration("1m 30s"), Ok(Duration::from_secs(90)));
    }

    #[test]
    fn a_signal_is_a_name_or_a_number() {
        let number_of = |name: &str| (name == "SIGQUIT").then_some(3);
        for given in ["QUIT", "quit", "SIGQUIT", "3"] {
            assert_eq!(signal(given, number_of), Ok(3));
        }
        assert!(signal("NOPE", number_of).is_err());
        assert!(signal("0", number_of).is_err());
    }

    #[test]
    fn two_listeners_differ_in_name_and_address() {
        let listeners =
            |given: &[&str]| given.iter().map(|given| Listener::parse(given, "web").unwrap()).collect::<Vec<_>>();
        assert!(distinct(&listeners(&["a=127.0.0.1:0", "b=127.0.0.1:0"])).is_ok());
        assert!(distinct(&listeners(&["a=127.0.0.1:80", "b=127.0.0.1:80"])).unwrap_err().contains("given twice"));
        assert!(distinct(&listeners(&["a=127.0.0.1:80", "a=127.0.0.1:81"])).unwrap_err().contains("called `a`"));
    }
}
