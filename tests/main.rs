//! What zdr promises, shown with real processes: one binary, one file for each behaviour.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "tests say what went wrong by panicking"
)]

mod harness;
mod reload;
