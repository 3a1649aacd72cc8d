//! The command line: every command and option, and what they are turned into.
//!
//! Only here, in `cli/` and in `commands.rs` is clap named.

mod asking;
mod settings;
mod values;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Args, Parser, Subcommand};
use clap_complete::Shell;

pub use asking::{EventsArgs, HealthArgs, ListArgs, ReloadArgs, StatusArgs, UntilArgs, WaitArgs, WaitFor, Which};
pub use settings::Surroundings;

use crate::config::{self, Check, EnvironmentFile, Limit, Ready, Statuses};
use crate::rehearse::sample::{Bad, Sample};

/// Replace any server without one lost request.
#[derive(Debug, Parser)]
#[command(name = "zdr", version, max_term_width = 100, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run COMMAND under supervision, in the foreground.
    Run(Box<RunArgs>),
    /// Replace the serving generation by a new one with no lost connection.
    Reload(ReloadArgs),
    /// Stop the serving generation and start the next in its place; connections wait meanwhile.
    Restart(WaitArgs),
    /// Drain the serving generation, then end zdr.
    Stop(WaitArgs),
    /// Show generations, listeners, connections and the last verdict.
    Status(StatusArgs),
    /// Say whether it is well, by exit code 0 or 1, as a container's health check.
    Health(HealthArgs),
    /// Wait until a generation serves, and first until there is a supervisor.
    Wait(UntilArgs),
    /// Follow what happens.
    Events(EventsArgs),
    /// List the supervisors running here.
    List(ListArgs),
    /// Try reloads of COMMAND, or of a built-in sample server, under load and report what they lose.
    Rehearse(Box<RehearseArgs>),
    /// Print shell completions.
    Completions {
        /// For which shell.
        shell: Shell,
    },
    /// The server that `zdr rehearse` reloads when it is given none.
    #[command(hide = true)]
    SampleServer(SampleArgs),
}

/// `zdr run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub(crate) options: RunOptions,
    /// The server and its arguments; {fd} {port} {address} {generation} and {instance} are filled in.
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// The options of `zdr run`, which `zdr rehearse` takes as well.
#[derive(Clone, Debug, Args)]
pub struct RunOptions {
    /// Listen on [NAME=]ADDRESS[,KEY=VALUE...] and lend it to the command: `8080`, `127.0.0.1:8080`, `[::1]:8080`,
    /// `tcp://..`, `udp://..`, `unix:/run/app.sock`, `unix:@abstract`. Keys: backlog, nodelay, v6only, freebind,
    /// nonblocking, defer-accept; mode, owner, group for paths. Port 0 lets the kernel choose. Without it, the sockets of
    /// `$LISTEN_FDS`, or `$PORT` of every address, or what the command binds by itself.
    #[arg(short, long, value_name = "LISTENER", help_heading = "Sockets")]
    listen: Vec<String>,
    /// Leave LISTEN_PID out, for a command that starts the server as its child: a shell, `cargo watch`, `uv run`.
    #[arg(long, help_heading = "Sockets")]
    no_listen_pid: bool,

    /// Whether what the command binds by itself is taken over: when nothing is listened on, also at the addresses of
    /// --listen and at ports below 1024, or never.
    #[arg(long, value_name = "MODE", value_enum, default_value = "auto", help_heading = "Sockets")]
    capture: CaptureMode,

    /// When a new generation is ready: `/path` (GET on the first listener), a URL, `tcp`, `notify` (READY=1),
    /// `exec:COMMAND`, or a duration that it must have stayed up. Without it, READY=1 or an accepted connection.
    #[arg(long, visible_alias = "ready-url", value_name = "SPEC", value_parser = Ready::parse, help_heading = "Readiness")]
    ready: Option<Ready>,
    /// How long a generation may take to be ready.
    #[arg(long, value_name = "D", value_parser = config::duration, default_value = "60s", help_heading = "Readiness")]
    ready_timeout: Duration,
    /// The longest pause between two probes; the first come every 5 ms.
    #[arg(long, value_name = "D", value_parser = config::duration, default_value = "250ms", help_heading = "Readiness")]
    ready_interval: Duration,
    /// The time limit of one probe.
    #[arg(long, value_name = "D", value_parser = config::duration, default_value = "5s", help_heading = "Readiness")]
    ready_limit: Duration,
    /// The HTTP statuses that count as ready.
    #[arg(long, value_name = "STATUSES", value_parser = Statuses::parse, default_value = "200-399", help_heading = "Readiness")]
    ready_status: Statuses,
    /// How many good answers in a row are wanted.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000), default_value_t = 1, help_heading = "Readiness")]
    ready_successes: u32,
    /// How long an instance must have stayed up where nothing else can be asked.
    #[arg(long, value_name = "D", value_parser = config::duration, default_value = "2s", help_heading = "Readiness")]
    startup_grace: Duration,

    /// The signal that asks an old generation to finish; without it, TERM.
    #[arg(long, value_name = "SIGNAL", value_parser = values::signal, help_heading = "Drain")]
    drain_signal: Option<i32>,
    /// How long an old generation may take to end after its signal, before it is killed.
    #[arg(long, value_name = "D", value_parser = config::duration, default_value = "30s", help_heading = "Drain")]
    drain_timeout: Duration,
    /// How long to wait, before the signal, until no request is in flight; 0s signals at once.
    #[arg(long, value_name = "D", value_parser = config::duration, default_value = "5s", help_heading = "Drain")]
    drain_idle: Duration,
    /// How long the old generation is kept before it drains, so that it can have the connections back if the new one
    /// dies.
    #[arg(long, value_name = "D", value_parser = config::duration, default_value = "2s", help_heading = "Drain")]
    bake: Duration,
    /// On stop: how long readiness says no before the drain begins.
    #[arg(long, value_name = "D", value_parser = config::duration, default_value = "0s", help_heading = "Drain")]
    lame_duck: Duration,

    /// The working directory, looked up afresh at every start.
    #[arg(short = 'C', long, value_name = "DIR", help_heading = "Process")]
    chdir: Option<PathBuf>,
    /// A variable for the environment; may be given more than once.
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = values::variable, help_heading = "Process")]
    env: Vec<(OsString, OsString)>,
    /// A file of KEY=VALUE lines for the environment, read afresh at every start; may be given more than once. -e wins.
    /// With `-` before the path it may be missing.
    #[arg(long, value_name = "PATH", value_parser = EnvironmentFile::parse, allow_hyphen_values = true, help_heading = "Process")]
    env_file: Vec<EnvironmentFile>,
    /// The user that the server runs as; zdr makes its sockets before, by its own rights.
    #[arg(long, value_name = "NAME|UID", help_heading = "Process")]
    user: Option<String>,
    /// Its primary group; without it, the user's.
    #[arg(long, value_name = "NAME|GID", help_heading = "Process")]
    group: Option<String>,
    /// Which permissions its new files never have, in octal: 0027.
    #[arg(long, value_name = "MASK", value_parser = config::umask, help_heading = "Process")]
    umask: Option<u32>,
    /// A resource limit as in setrlimit(2), such as nofile=65536 or core=0:infinity; may be given more than once.
    #[arg(long, value_name = "NAME=N[:HARD]", value_parser = Limit::parse, help_heading = "Process")]
    limit: Vec<Limit>,
    /// No set-uid program gives the server new rights.
    #[arg(long, help_heading = "Process")]
    no_new_privs: bool,

    /// Answer health questions on this TCP address or Unix path (unix:/PATH[,mode=0666]); may be given more than once.
    #[arg(long, value_name = "ADDRESS", help_heading = "Health and admin")]
    health: Vec<String>,
    /// Under which path; may be given more than once.
    #[arg(long, value_name = "PREFIX", value_parser = values::prefix, default_values = ["/health", "/_health"], help_heading = "Health and admin")]
    health_path: Vec<String>,
    /// A health check that is asked while somebody looks: NAME=SPEC and, behind commas, interval=10s, timeout=5s or critical.
    /// SPEC is a path, a URL, `tcp` or `exec:COMMAND`. May be given more than once.
    #[arg(long, value_name = "CHECK", value_parser = Check::parse, help_heading = "Health and admin")]
    check: Vec<Check>,
    /// Ask the serving generation whether it is alive, and replace it when it is stuck. SPEC is that of a check.
    #[arg(long, value_name = "SPEC", value_parser = config::question, help_heading = "Health and admin")]
    live: Option<Ready>,
    /// How often it is asked.
    #[arg(long, value_name = "D", value_parser = config::interval, default_value = "10s", help_heading = "Health and admin")]
    live_interval: Duration,
    /// How long it may take to answer.
    #[arg(long, value_name = "D", value_parser = config::interval, default_value = "5s", help_heading = "Health and admin")]
    live_timeout: Duration,
    /// After how many failures in a row it is stuck.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000), default_value_t = 3, help_heading = "Health and admin")]
    live_failures: u32,
    /// How long the serving generation may send no WATCHDOG=1 before it is stuck (sd_watchdog_enabled(3)).
    #[arg(long, value_name = "D", value_parser = config::interval, help_heading = "Health and admin")]
    watchdog: Option<Duration>,
    /// What clients call this supervisor; without it, the name of the program.
    #[arg(long, value_name = "NAME", value_parser = values::name, help_heading = "Health and admin")]
    name: Option<String>,
    /// The admin socket; without it, NAME.sock in the runtime directory.
    #[arg(long, value_name = "PATH", help_heading = "Health and admin")]
    admin: Option<PathBuf>,

    /// How many of the last lines of a generation that failed are told with the reason; with 0, the server has zdr's own
    /// standard error, with nobody in between.
    #[arg(long, value_name = "LINES", value_parser = clap::value_parser!(u16).range(0..=1000), default_value_t = 20, help_heading = "Log")]
    tail: u16,
    /// How log lines look; without it, as the journal's own entries where stderr is the journal, else text.
    #[arg(long, value_name = "FORMAT", value_enum, help_heading = "Log")]
    pub(crate) log_format: Option<LogFormat>,
    /// Log more: -v for debugging, -vv for everything. Without it and -q, as $ZDR_LOG says: error, warn, info, debug or trace.
    #[arg(short, long, action = ArgAction::Count, help_heading = "Log")]
    pub(crate) verbose: u8,
    /// Log warnings and errors only; -qq errors only.
    #[arg(short, long, action = ArgAction::Count, conflicts_with = "verbose", help_heading = "Log")]
    pub(crate) quiet: u8,
}

/// Whether what the command binds by itself is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum CaptureMode {
    /// When there is no listener.
    Auto,
    /// The addresses of --listen and ports below 1024 as well.
    Always,
    /// It is left alone.
    Never,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
    /// Entries of the systemd journal, with fields.
    Journal,
}

/// `zdr rehearse`.
#[derive(Debug, Args)]
pub struct RehearseArgs {
    #[command(flatten)]
    pub(crate) options: RunOptions,
    /// How many reloads to try, one bad release among them.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=10_000), default_value_t = 10)]
    pub(crate) reloads: u32,
    /// Requests a second of each of the eight clients.
    #[arg(long, value_name = "RATE", value_parser = values::rate)]
    pub(crate) rate: Option<f64>,
    /// The path that the load asks for.
    #[arg(long, value_name = "PATH", default_value = "/")]
    pub(crate) path: String,
    /// The server to be tried; without it, a sample server built into zdr.
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// The options of `zdr run` that were given to `zdr rehearse`, as they were written.
pub fn handed_on(given: &ArgMatches) -> Vec<OsString> {
    let run = RunOptions::augment_args(clap::Command::new("run"));
    let mut options = Vec::new();
    for option in run.get_arguments() {
        let id = option.get_id().as_str();
        if given.value_source(id) != Some(ValueSource::CommandLine) {
            continue;
        }
        let name = OsString::from(format!("--{}", option.get_long().unwrap_or(id)));
        if !option.get_action().takes_values() {
            let times = if matches!(option.get_action(), ArgAction::Count) { given.get_count(id) } else { 1 };
            options.extend((0..times).map(|_| name.clone()));
            continue;
        }
        for value in given.get_raw(id).into_iter().flatten() {
            options.extend([name.clone(), value.to_owned()]);
        }
    }
    options
}

/// `zdr sample-server`.
#[derive(Clone, Debug, Args)]
pub struct SampleArgs {
    /// How long each request takes.
    #[arg(long, value_parser = config::duration, default_value = "0s")]
    work: Duration,
    /// How long it takes before it accepts.
    #[arg(long, value_parser = config::duration, default_value = "0s")]
    start_after: Duration,
    /// Die at once of SIGTERM, in the middle of whatever is going on.
    #[arg(long)]
    abrupt: bool,
    /// What is wrong with this release: exit:CODE, hang, status:CODE or crash-after:DURATION.
    #[arg(long, value_parser = values::bad)]
    bad: Option<Bad>,
}

impl From<SampleArgs> for Sample {
    fn from(args: SampleArgs) -> Self {
        Self { work: args.work, start_after: args.start_after, graceful: !args.abrupt, bad: args.bad }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn options_are_handed_on_as_often_as_they_were_given() {
        let words = ["zdr", "rehearse", "-vv", "-e", "A=1", "--log-format", "json", "-e", "B=2", "--reloads", "3"];
        let matches = Cli::command().get_matches_from(words);
        let mut options = handed_on(matches.subcommand_matches("rehearse").unwrap());
        options.sort();
        let wanted = ["--env", "--env", "--log-format", "--verbose", "--verbose", "A=1", "B=2", "json"];
        assert_eq!(options, wanted);
    }
}
