//! What zdr promises, shown with real processes: one binary, one file for each behaviour.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "tests say what went wrong by panicking"
)]

mod admin;
mod answers;
mod bake;
mod broken_files;
mod capture;
mod capture_hostile;
mod checks;
mod configuration;
mod control_groups;
mod dashboard;
mod deploy;
mod dialects;
mod drain;
mod environment_files;
mod events;
mod exchange;
mod floors;
mod frugal;
mod harness;
mod health;
mod health_clients;
mod health_command;
mod hooks;
mod inherited;
mod instances;
mod last_words;
mod left_behind;
mod life;
mod limits;
mod listeners;
mod liveness;
#[path = "../src/rehearse/load.rs"]
#[expect(dead_code, reason = "the tests need less of it than `zdr rehearse`")]
mod load;
mod log;
mod losses;
mod managed;
mod manual;
mod many;
mod metrics;
mod pause;
mod process;
mod prometheus;
mod promptness;
mod python;
mod random_reloads;
mod readiness;
mod readiness_http;
mod real_servers;
mod reconfigure;
mod refusal;
mod relisten;
mod reload;
mod rollback;
#[expect(dead_code, reason = "the page that `tests/matrix` makes shows more of them")]
mod rows;
mod scale;
mod schemas;
mod servers;
mod start;
mod start_errors;
mod streams;
mod surge;
mod terminal;
mod trial;
mod udp;
mod unix;
mod unix_paths;
mod usage;
mod watch;
