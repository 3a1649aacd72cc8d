//! What people see of a status and of what happens.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write, stdout};
use std::time::Duration;

use humantime::format_duration;
use serde_json::Value;

/// Prints what happens: lines, and on a terminal what changes often on one line that is written over.
pub(super) struct Progress {
    as_json: bool,
    terminal: bool,
    unfinished: bool,
    /// What was shown last: the verdict often says the same.
    last: String,
    /// A failure that is not shown yet: if it is ours, it is the verdict that tells it.
    held_back: Option<String>,
}

impl Progress {
    pub(super) fn new(as_json: bool) -> Self {
        Self {
            as_json,
            terminal: !as_json && stdout().is_terminal(),
            unfinished: false,
            last: String::new(),
            held_back: None,
        }
    }

    /// A reader that has gone is no reason to end: the verdict is the exit code.
    pub(super) fn show(&mut self, line: &str, told: &Value) {
        if self.as_json {
            let _ = writeln!(stdout(), "{line}");
            return;
        }
        if let Some(failure) = self.held_back.take().filter(|failure| told["message"] != **failure) {
            let _ = writeln!(stdout(), "{failure}");
        }
        if told["event"] == "failed" {
            self.held_back = told["message"].as_str().map(str::to_owned);
            return self.finish_line();
        }
        let bad_verdict = told["event"] == "verdict" && told["code"] != 0;
        let Some(message) = told["message"].as_str().filter(|said| !bad_verdict && *said != self.last) else {
            return self.finish_line();
        };
        message.clone_into(&mut self.last);
        let passing = self.terminal && (told["event"] == "not_ready" || told["event"] == "draining");
        let start = if self.unfinished { "\r\x1b[K" } else { "" };
        let end = if passing { "" } else { "\n" };
        self.unfinished = passing;
        let _ = write!(stdout(), "{start}{message}{end}");
        let _ = stdout().flush();
    }

    fn finish_line(&mut self) {
        if std::mem::take(&mut self.unfinished) {
            let _ = writeln!(stdout());
        }
    }
}

/// `2026-11-21T10:00:00.123Z  generation 2 serves after 0.1s`.
pub(super) fn one_line(data: &str) -> String {
    let told: Value = serde_json::from_str(data).unwrap_or_default();
    format!("{}  {}", told["time"].as_str().unwrap_or_default(), told["message"].as_str().unwrap_or(data))
}

/// One supervisor on one line.
pub(super) fn list_line(status: &Value) -> String {
    let generation = serving(status).map(|generation| format!("generation {generation}")).unwrap_or_default();
    let line =
        format!("{:<16} {:<10} pid {:<8} {generation}", text(status, "name"), text(status, "state"), status["pid"]);
    line.trim_end().to_owned()
}

/// The most important first.
pub(super) fn status_text(status: &Value) -> String {
    let mut out = String::new();
    let since = age(&status["uptime_secs"]);
    let _ = writeln!(
        out,
        "{}: {} (zdr {}, process {}, up {since})",
        text(status, "name"),
        text(status, "state"),
        text(status, "version"),
        status["pid"]
    );
    let rows = status["generations"].as_array().into_iter().flatten().map(|seat| {
        let command: Vec<&str> = seat["command"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        [
            format!("  generation {}", seat["generation"]),
            text(seat, "seat").to_owned(),
            format!("{} ", age(&seat["since_secs"])),
            format!("pid {}", seat["pid"]),
            command.join(" "),
        ]
    });
    write_table(&mut out, rows.collect());
    let rows = status["listeners"].as_array().into_iter().flatten().map(|listener| {
        [
            format!("  {}", text(listener, "name")),
            text(listener, "address").to_owned(),
            format!("{} slots", listener["slots"]),
        ]
    });
    write_table(&mut out, rows.collect());
    let _ = writeln!(out, "  {} connections, {} with a request in flight", status["connections"], status["in_flight"]);
    if let Some(reason) = status["last_verdict"]["reason"].as_str() {
        let _ = writeln!(out, "  last: {reason}");
    }
    out
}

fn write_table<const N: usize>(out: &mut String, rows: Vec<[String; N]>) {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(out, "{}", cells.join("  ").trim_end());
    }
}

fn serving(status: &Value) -> Option<&Value> {
    let seats = status["generations"].as_array()?;
    seats.iter().find(|seat| seat["seat"] == "serving").map(|seat| &seat["generation"])
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("?")
}

fn age(seconds: &Value) -> String {
    let seconds = seconds.as_f64().unwrap_or(0.0).clamp(0.0, 1e12);
    format_duration(Duration::from_secs(Duration::from_secs_f64(seconds).as_secs())).to_string()
}
