//! The options of the commands that ask a running supervisor.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::values;
use crate::config;
use crate::supervisor::Scale;

/// Which supervisor.
#[derive(Clone, Debug, Args)]
pub struct Which {
    /// The supervisor with this name.
    #[arg(long, value_name = "NAME", value_parser = values::name)]
    pub(crate) name: Option<String>,
    /// The supervisor with this admin socket; without it and --name, the only one running here.
    #[arg(long, value_name = "PATH", env = "ZDR_ADMIN")]
    pub(crate) admin: Option<PathBuf>,
}

/// `zdr reload`.
#[derive(Debug, Args)]
pub struct ReloadArgs {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Ask and leave; the verdict is in `zdr status`.
    #[arg(long)]
    pub(crate) no_wait: bool,
    /// What to wait for: until the new generation serves, or until the old one is gone as well.
    #[arg(long, value_name = "UNTIL", value_enum, default_value = "serving", conflicts_with = "no_wait")]
    pub(crate) wait: WaitFor,
    /// How long to wait for the verdict; the reload goes on.
    #[arg(long, value_name = "D", value_parser = config::duration)]
    pub(crate) timeout: Option<Duration>,
    /// Print what happens as JSON lines.
    #[arg(long)]
    pub(crate) json: bool,
    /// A new command; without it, the one that is there.
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// What to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum WaitFor {
    /// The new generation serves.
    Serving,
    /// The old one is gone as well.
    Drained,
}

/// `zdr wait`.
#[derive(Debug, Args)]
pub struct UntilArgs {
    #[command(flatten)]
    pub(crate) which: Which,
    /// How long to wait.
    #[arg(long, value_name = "D", value_parser = config::duration, default_value = "60s")]
    pub(crate) timeout: Duration,
}

/// Commands that only wait.
#[derive(Debug, Args)]
pub struct WaitArgs {
    #[command(flatten)]
    pub(crate) which: Which,
    /// How long to wait.
    #[arg(long, value_name = "D", value_parser = config::duration)]
    pub(crate) timeout: Option<Duration>,
    /// Print what happens as JSON lines.
    #[arg(long)]
    pub(crate) json: bool,
}

/// `zdr scale`.
#[derive(Debug, Args)]
pub struct ScaleArgs {
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    /// How many: N, or +N more, or -N fewer. More join those that serve; fewer are a new generation.
    #[arg(value_name = "N|+N|-N", value_parser = values::scale, allow_hyphen_values = true)]
    pub(crate) instances: Scale,
}

/// `zdr pause`.
#[derive(Debug, Args)]
pub struct PauseArgs {
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
    /// After what time they are let go by themselves; at most 1h.
    #[arg(long = "for", value_name = "D", value_parser = values::pause, default_value = "30s")]
    pub(crate) time: Duration,
}

/// `zdr status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Print the whole picture as JSON.
    #[arg(long)]
    pub(crate) json: bool,
    /// Go on showing it, every second, until Ctrl-C.
    #[arg(long)]
    pub(crate) watch: bool,
}

/// `zdr health`.
#[derive(Debug, Args)]
pub struct HealthArgs {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Whether zdr answers, whatever its server does.
    #[arg(long, conflicts_with_all = ["ready", "startup"])]
    pub(crate) live: bool,
    /// Whether a generation serves and no stop was asked for.
    #[arg(long, conflicts_with = "startup")]
    pub(crate) ready: bool,
    /// Whether a generation has ever served.
    #[arg(long)]
    pub(crate) startup: bool,
}

/// `zdr events`.
#[derive(Debug, Args)]
pub struct EventsArgs {
    #[command(flatten)]
    pub(crate) which: Which,
    /// Print JSON lines.
    #[arg(long)]
    pub(crate) json: bool,
    /// Begin with the last N events; without it, with all that are kept.
    #[arg(short, long, value_name = "N")]
    pub(crate) number: Option<usize>,
    /// Begin behind the event with this `id`.
    #[arg(long, value_name = "ID", conflicts_with = "number")]
    pub(crate) since: Option<u64>,
    /// End where nothing more has happened yet.
    #[arg(long)]
    pub(crate) no_follow: bool,
}

/// `zdr list`.
#[derive(Debug, Args)]
pub struct ListArgs {
    /// Print JSON.
    #[arg(long)]
    pub(crate) json: bool,
}
