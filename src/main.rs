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
use cli::Cli;

fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    let Cli { command } = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let given = matches.subcommand().map_or(&matches, |(_, given)| given);
    let outcome = commands::perform(command, given);
    ExitCode::from(outcome.unwrap_or_else(commands::said))
}
