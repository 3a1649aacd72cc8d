//! The command line: every command and option, and what they are turned into.
//!
//! Only here, in `cli/` and in `commands.rs` is clap named.

mod asked;
mod asking;
mod excerpt;
mod file;
mod options;
mod print;
#[cfg(test)]
mod schema;
mod settings;
mod values;

use std::ffi::OsString;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Args, Parser, Subcommand};
use clap_complete::Shell;

pub use asked::{Asked, Refusal};
pub use asking::{
    EventsArgs, HealthArgs, ListArgs, PauseArgs, ReloadArgs, ScaleArgs, StatusArgs, UntilArgs, WaitArgs, WaitFor, Which,
};
pub use options::{CaptureMode, CheckArgs, RunArgs, RunOptions};
pub use settings::Surroundings;

use crate::config;
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
    /// Say what is wrong with a configuration before it is run, all of it and where.
    Check(Box<CheckArgs>),
    /// Replace the serving generation by a new one with no lost connection.
    Reload(ReloadArgs),
    /// Stop the serving generation and start the next in its place; connections wait meanwhile.
    Restart(WaitArgs),
    /// Go back to the generation before: at once while it is kept warm, else by starting it again as it was.
    Rollback(WaitArgs),
    /// Change the number of instances.
    Scale(ScaleArgs),
    /// Let new connections wait in the kernel for a while.
    Pause(PauseArgs),
    /// Let them go.
    Resume(WaitArgs),
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

/// The options of `zdr run` that were given to a command that takes them, as they were meant.
pub fn handed_on(given: &ArgMatches) -> Vec<OsString> {
    let run = RunOptions::augment_args(clap::Command::new("run"));
    let mut options = Vec::new();
    for option in run.get_arguments() {
        let id = option.get_id().as_str();
        if given.value_source(id) != Some(ValueSource::CommandLine) {
            continue;
        }
        let mut name = OsString::from(format!("--{}", option.get_long().unwrap_or(id)));
        if !option.get_action().takes_values() {
            let times = if matches!(option.get_action(), ArgAction::Count) { given.get_count(id) } else { 1 };
            options.extend((0..times).map(|_| name.clone()));
            continue;
        }
        // In one word, because a value may begin as an option does.
        name.push("=");
        options.extend(given.get_raw(id).into_iter().flatten().map(|value| [&name, value].into_iter().collect()));
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
        let wanted = ["--env=A=1", "--env=B=2", "--log-format=json", "--verbose", "--verbose"];
        assert_eq!(options, wanted);
    }
}
