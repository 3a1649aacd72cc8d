//! The options of `zdr run`: what each is called, what it takes, and what the help says of it.
//!
//! Knows each option alone; what only several together can show is checked in `settings.rs`.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args};

use super::values;
use crate::address::Listener;
use crate::config::{self, Check, EnvironmentFile, Limit, LogFormat, Ready, Statuses, Surge};
use crate::supervisor::{Budget, Hook, Lifetime, QueueMode, Restart};

/// `zdr run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub(crate) options: RunOptions,
    /// The server and its arguments; {fd} {port} {address} {generation} and {instance} are filled in.
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<OsString>,
}

/// `zdr check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The configuration file; without it, what the options say is checked.
    #[arg(value_name = "CONFIG", conflicts_with = "config")]
    pub(crate) file: Option<PathBuf>,
    /// Print all settings as a configuration file would have them, and where each comes from.
    #[arg(long)]
    pub(crate) print: bool,
    #[command(flatten)]
    pub(crate) run: RunArgs,
}

/// The options of `zdr run`, which `zdr check` and `zdr rehearse` take as well.
#[derive(Clone, Debug, Args)]
pub struct RunOptions {
    /// Listen on [NAME=]ADDRESS[,KEY=VALUE...] and lend it to the command: `8080`, `127.0.0.1:8080`, `[::1]:8080`,
    /// `tcp://..`, `udp://..`, `unix:/run/app.sock`, `unix:@abstract`. Keys: backlog, nodelay, v6only, freebind,
    /// nonblocking, defer-accept; mode, owner, group for paths. Port 0 lets the kernel choose. Without it, the sockets of
    /// `$LISTEN_FDS`, or `$PORT` of every address, or what the command binds by itself.
    #[arg(short, long, value_name = "LISTENER", value_parser = values::listener, help_heading = "Sockets")]
    pub(crate) listen: Vec<Listener>,
    /// Leave LISTEN_PID out, for a command that starts the server as its child: a shell, `cargo watch`, `uv run`.
    #[arg(long, help_heading = "Sockets")]
    pub(crate) no_listen_pid: bool,

    /// Whether what the command binds by itself is taken over: when nothing is listened on, also at the addresses of
    /// --listen and at ports below 1024, or never.
    #[arg(long, value_name = "MODE", value_enum, default_value = "auto", help_heading = "Sockets")]
    pub(crate) capture: CaptureMode,

    /// When a new generation is ready: `/path` (GET on the first listener), a URL, `tcp`, `notify` (READY=1),
    /// `exec:COMMAND`, or a duration that it must have stayed up. Without it, READY=1 or an accepted connection.
    #[arg(long, visible_alias = "ready-url", value_name = "SPEC", value_parser = Ready::parse, help_heading = "Readiness")]
    pub(crate) ready: Option<Ready>,
    /// How long a generation may take to be ready.
    #[arg(long, value_name = "D", value_parser = config::duration, default_value = "60s", help_heading = "Readiness")]
    pub(crate) ready_timeout: Duration,
    /// The longest pause between two probes; the first come every 5 ms.
    #[arg(long, value_name = "D", value_parser = config::duration, default_value = "250ms", help_heading = "Readiness")]
    pub(crate) ready_interval: Duration,
    /// The time limit of one probe.
    #[arg(long, value_name = "D", value_parser = config::duration, default_value = "5s", help_heading = "Readiness")]
    pub(crate) ready_limit: Duration,
    /// The HTTP statuses that count as ready.
    #[arg(long, value_name = "STATUSES", value_parser = Statuses::parse, default_value = "200-399", help_heading = "Readiness")]
    pub(crate) ready_status: Statuses,
    /// How many good answers in a row are wanted.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000), default_value_t = 1, help_heading = "Readiness")]
    pub(crate) ready_successes: u32,
    /// How long an instance must have stayed up where nothing else can be asked.
    #[arg(long, value_name = "D", value_parser = config::duration, default_value = "2s", help_heading = "Readiness")]
    pub(crate) startup_grace: Duration,

    /// The signal that asks an old generation to finish; without it, TERM.
    #[arg(long, value_name = "SIGNAL", value_parser = values::signal, help_heading = "Drain")]
    pub(crate) drain_signal: Option<i32>,
    /// How long an old generation may take to end after its signal, before it is killed.
    #[arg(long, value_name = "D", value_parser = config::duration, default_value = "30s", help_heading = "Drain")]
    pub(crate) drain_timeout: Duration,
    /// How long to wait, before the signal, until no request is in flight; 0s signals at once.
    #[arg(long, value_name = "D", value_parser = config::duration, default_value = "5s", help_heading = "Drain")]
    pub(crate) drain_idle: Duration,
    /// How long a new release is on trial: if it dies, gets stuck or makes a critical check fail, the old one has the
    /// connections back.
    #[arg(long, value_name = "D", value_parser = config::duration, default_value = "2s", help_heading = "Drain")]
    pub(crate) bake: Duration,
    /// How long the old generation is kept warm for a rollback; without it, the time of --bake.
    #[arg(long, value_name = "D", value_parser = config::duration, help_heading = "Drain")]
    pub(crate) bake_keep: Option<Duration>,
    /// On stop: how long readiness says no before the drain begins.
    #[arg(long, value_name = "D", value_parser = config::duration, default_value = "0s", help_heading = "Drain")]
    pub(crate) lame_duck: Duration,

    /// How many instances of the command a generation has.
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(config::MOST_INSTANCES)), default_value_t = 1, help_heading = "Instances")]
    pub(crate) instances: u32,
    /// How many instances of a new generation are started at a time: `all`, or N, and each N that are ready take over their
    /// share.
    #[arg(long, value_name = "all|N", value_parser = config::surge, default_value = "all", help_heading = "Instances")]
    pub(crate) surge: Surge,
    /// Whether the instances take connections from one queue, so that whoever is free has the next, or each from its own,
    /// so that the kernel spreads them evenly.
    #[arg(long, value_name = "MODE", value_parser = values::queue(), default_value = "shared", help_heading = "Instances")]
    pub(crate) queue: QueueMode,
    /// Whether an instance that has ended is started again: always, when it failed, or never.
    #[arg(long, value_name = "WHEN", value_parser = values::restart(), default_value = "always", help_heading = "Instances")]
    pub(crate) restart: Restart,
    /// How often that may be, in which time: 5/10m. Without a time, in 10m; without the option, as often as it takes.
    #[arg(long, value_name = "N[/WINDOW]", value_parser = config::budget, help_heading = "Instances")]
    pub(crate) max_restarts: Option<Budget>,
    /// How long an instance must have been up for its end not to be a failed start.
    #[arg(long, value_name = "D", value_parser = config::duration, default_value = "10s", help_heading = "Instances")]
    pub(crate) min_uptime: Duration,
    /// Replace an instance whose processes have more memory than this together: bytes, or 512M, 2G.
    #[arg(long, value_name = "SIZE", value_parser = config::memory, help_heading = "Instances")]
    pub(crate) max_memory: Option<u64>,
    /// Replace an instance after this time, varied by chance by up to JITTER: 24h~1h.
    #[arg(long, value_name = "D[~JITTER]", value_parser = config::lifetime, help_heading = "Instances")]
    pub(crate) max_lifetime: Option<Lifetime>,

    /// The working directory, looked up afresh at every start.
    #[arg(short = 'C', long, value_name = "DIR", help_heading = "Process")]
    pub(crate) chdir: Option<PathBuf>,
    /// A variable for the environment; may be given more than once.
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = values::variable, help_heading = "Process")]
    pub(crate) env: Vec<(OsString, OsString)>,
    /// A file of KEY=VALUE lines for the environment, read afresh at every start; may be given more than once. -e wins.
    /// With `-` before the path it may be missing.
    #[arg(long, value_name = "PATH", value_parser = EnvironmentFile::parse, allow_hyphen_values = true, help_heading = "Process")]
    pub(crate) env_file: Vec<EnvironmentFile>,
    /// The user that the server runs as; zdr makes its sockets before, by its own rights.
    #[arg(long, value_name = "NAME|UID", help_heading = "Process")]
    pub(crate) user: Option<String>,
    /// Its primary group; without it, the user's.
    #[arg(long, value_name = "NAME|GID", help_heading = "Process")]
    pub(crate) group: Option<String>,
    /// Which permissions its new files never have, in octal: 0027.
    #[arg(long, value_name = "MASK", value_parser = config::umask, help_heading = "Process")]
    pub(crate) umask: Option<u32>,
    /// A resource limit as in setrlimit(2), such as nofile=65536 or core=0:infinity; may be given more than once.
    #[arg(long, value_name = "NAME=N[:HARD]", value_parser = Limit::parse, help_heading = "Process")]
    pub(crate) limit: Vec<Limit>,
    /// No set-uid program gives the server new rights.
    #[arg(long, help_heading = "Process")]
    pub(crate) no_new_privs: bool,

    /// Answer health questions on this TCP address or Unix path (unix:/PATH[,mode=0666]); may be given more than once.
    #[arg(long, value_name = "ADDRESS", value_parser = values::health, help_heading = "Health and admin")]
    pub(crate) health: Vec<Listener>,
    /// Under which path; may be given more than once.
    #[arg(long, value_name = "PREFIX", value_parser = values::prefix, default_values = ["/health", "/_health"], help_heading = "Health and admin")]
    pub(crate) health_path: Vec<String>,
    /// A health check that is asked while somebody looks: NAME=SPEC and, behind commas, interval=10s, timeout=5s or critical.
    /// SPEC is a path, a URL, `tcp` or `exec:COMMAND`. May be given more than once.
    #[arg(long, value_name = "CHECK", value_parser = Check::parse, help_heading = "Health and admin")]
    pub(crate) check: Vec<Check>,
    /// Ask the serving generation whether it is alive, and replace it when it is stuck. SPEC is that of a check.
    #[arg(long, value_name = "SPEC", value_parser = config::question, help_heading = "Health and admin")]
    pub(crate) live: Option<Ready>,
    /// How often it is asked.
    #[arg(long, value_name = "D", value_parser = config::interval, default_value = "10s", help_heading = "Health and admin")]
    pub(crate) live_interval: Duration,
    /// How long it may take to answer.
    #[arg(long, value_name = "D", value_parser = config::interval, default_value = "5s", help_heading = "Health and admin")]
    pub(crate) live_timeout: Duration,
    /// After how many failures in a row it is stuck.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000), default_value_t = 3, help_heading = "Health and admin")]
    pub(crate) live_failures: u32,
    /// How long the serving generation may send no WATCHDOG=1 before it is stuck (sd_watchdog_enabled(3)).
    #[arg(long, value_name = "D", value_parser = config::interval, help_heading = "Health and admin")]
    pub(crate) watchdog: Option<Duration>,
    /// What clients call this supervisor; without it, the name of the program.
    #[arg(long, value_name = "NAME", value_parser = values::name, help_heading = "Health and admin")]
    pub(crate) name: Option<String>,
    /// The admin socket; without it, NAME.sock in the runtime directory.
    #[arg(long, value_name = "PATH", help_heading = "Health and admin")]
    pub(crate) admin: Option<PathBuf>,

    /// Run a command at a turn of a reload: WHEN=COMMAND, where WHEN is before-start, before-cut-over, after-serving or
    /// after-drain. One that fails before it serves keeps the old generation. May be given more than once.
    #[arg(long, value_name = "WHEN=COMMAND", value_parser = config::hook, help_heading = "Hooks")]
    pub(crate) hook: Vec<(Hook, String)>,
    /// How long such a command may take.
    #[arg(long, value_name = "D", value_parser = config::interval, default_value = "30s", help_heading = "Hooks")]
    pub(crate) hook_timeout: Duration,

    /// A file with these options, each by its long name, and the command. What is given here wins. Paths in it are taken
    /// from where zdr is started, as here.
    #[arg(short, long, value_name = "FILE", help_heading = "Configuration and development")]
    pub(crate) config: Option<PathBuf>,
    /// Reload when this file, or a file in this directory, changes; may be given more than once.
    #[arg(long, value_name = "PATH", help_heading = "Configuration and development")]
    pub(crate) watch: Vec<PathBuf>,
    /// How long nothing more must have changed before that.
    #[arg(long, value_name = "D", value_parser = config::duration, default_value = "100ms", help_heading = "Configuration and development")]
    pub(crate) watch_debounce: Duration,

    /// How many of the last lines of a generation that failed are told with the reason; with 0, the server has zdr's own
    /// standard error, with nobody in between.
    #[arg(long, value_name = "LINES", value_parser = clap::value_parser!(u16).range(0..=1000), default_value_t = 20, help_heading = "Log")]
    pub(crate) tail: u16,
    /// How log lines look; without it, as the journal's own entries where stderr is the journal, else text.
    #[arg(long, value_name = "FORMAT", value_parser = values::log_format(), help_heading = "Log")]
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
