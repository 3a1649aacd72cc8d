//! zdr runs any server so that it can be replaced without one lost request.
//!
//! # The map
//!
//! Floors, the lower never naming the higher (`tests/floors.rs` checks it):
//!
//! 0. rules, without I/O, clock or event loop: `supervisor`, `config`, `address`, `url`, `runtime_directory`
//! 1. `edges`: all that can be sensed or done, one file each; `edges::kernel` has the only `unsafe`
//! 2. `run`: the loop, where both meet
//! 3. the face: `main`, `cli`, `commands`, `check`, `log`, `client`, `rehearse`
//!
//! # Invariants
//!
//! - Only `supervisor` decides; it is told what happened and answers with actions.
//! - Only `run` reads the clock for the rules.
//! - One task owns everything: no lock. Other tasks tell it, and hold nothing that it could miss.
//! - Seats are fields: two serving generations cannot be said.
//! - Sockets leave only through `Listeners::lend`, or over a server's own (`listeners::captured`); no slot is closed before
//!   its listener.
//! - First start, reload, restart and the start after a crash are one path, `Supervisor::launch`.

mod address;
mod check;
mod cli;
mod client;
mod commands;
mod config;
mod edges;
mod log;
mod rehearse;
mod run;
mod runtime_directory;
mod supervisor;
mod url;

use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};
use cli::{Cli, Command};

fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let Cli { command } = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let given = matches.subcommand().map_or(&matches, |(_, given)| given);
    let outcome = match command {
        Command::Run(args) => commands::run(*args, given),
        Command::Check(args) => commands::check(*args, given),
        Command::Reload(args) => commands::told(client::reload(&args)),
        Command::Restart(args) => commands::told(client::restart(&args)),
        Command::Stop(args) => commands::told(client::stop(&args)),
        Command::Status(args) => commands::told(client::status(&args)),
        Command::Health(args) => commands::told(client::health(&args)),
        Command::Wait(args) => commands::told(client::wait(&args)),
        Command::Events(args) => commands::told(client::events(&args)),
        Command::List(args) => Ok(client::list(&args)),
        Command::Rehearse(args) => commands::rehearse(*args, given),
        Command::Completions { shell } => commands::completions(shell),
        Command::SampleServer(args) => commands::sample(args),
    };
    ExitCode::from(outcome.unwrap_or_else(commands::said))
}
