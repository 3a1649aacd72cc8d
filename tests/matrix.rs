//! The whole matrix: every server in tests/servers in every mode, one after the other. `tests/matrix` installs them and runs it.
//!
//! Arguments choose rows: each is a part of a label. Without any it writes contrib/servers.md; a row that fails is in it,
//! and makes the run fail.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a trial says what went wrong by panicking"
)]

mod exchange;
#[expect(dead_code, reason = "shared with the tests, which need more of it")]
mod harness;
#[path = "../src/rehearse/load.rs"]
#[expect(dead_code, reason = "the trials need less of it than `zdr rehearse`")]
mod load;
#[expect(dead_code, reason = "shared with the tests, which choose single rows")]
mod rows;
mod servers_page;
mod trial;

use std::panic::catch_unwind;
use std::process::ExitCode;
use std::{env, fs};

use rows::Row;
use trial::{Figures, trial};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/servers.md");

/// A row and what it came to; None where it broke a promise.
type Result = (Row, Option<Figures>);

fn main() -> ExitCode {
    let chosen: Vec<String> = env::args().skip(1).collect();
    let wanted = |row: &Row| chosen.is_empty() || chosen.iter().any(|part| row.label().contains(part));
    let results: Vec<Result> = rows::rows().into_iter().filter(wanted).map(tried).collect();
    let failed: Vec<_> = results.iter().filter(|(_, figures)| figures.is_none()).map(|(row, _)| row.label()).collect();
    if chosen.is_empty() {
        fs::write(PAGE, servers_page::page(&results)).unwrap();
    }
    eprintln!("{} rows, {} failed", results.len(), failed.len());
    failed.iter().for_each(|label| eprintln!("failed: {label}"));
    if results.is_empty() || !failed.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn tried(row: Row) -> Result {
    let figures = catch_unwind(|| trial(&row)).ok();
    match &figures {
        Some(figures) => eprintln!("{figures}"),
        None => eprintln!("{}: FAILED", row.label()),
    }
    (row, figures)
}
