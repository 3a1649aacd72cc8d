//! The page contrib/servers.md: the table of the matrix, and what is to be known of each server. It is made by `tests/matrix` alone.

use crate::Result;
use crate::rows::Mode;
use crate::trial::{Counts, Figures};

const HEAD: &str = "\
# Real servers under zdr

Made by `tests/matrix`; do not edit. Every server below runs as its own documentation says, from the folder of that name in
`tests/servers`. Each goes through the same: start, five reloads and a bad release (verdict 3, the old one serves on) under
eight clients, four with a new connection for each request and four with keep-alive; `kill -9` of its main process, during which
nobody is refused; a stop that leaves no process behind. Lost is what was refused, reset, cut, late or answered with
another status than 2xx. *Not asked*: its clients keep no connection in this trial. *Again* counts requests that crossed
the closing of an idle connection, which any client sends once more (RFC 9112 §9.3.1). *Ready* is the median time from `zdr reload` to its verdict. Every generation drains at once
(`--bake 0s`) with `--drain-idle 1s`.

";

/// The whole page.
pub fn page(results: &[Result]) -> String {
    let mut page = HEAD.to_owned();
    page += "| server | takes | `--drain-signal` | new: answered, lost | keep-alive: answered, lost, again | ready |\n";
    page += "|---|---|---|---|---|---|\n";
    results.iter().for_each(|result| page += &line(result));
    page += &notes(results);
    page += include_str!("servers/not-tried.md");
    page
}

fn line((row, figures): &Result) -> String {
    let mode = &row.mode;
    let takes = mode.way();
    let Some(figures) = figures else {
        return format!("| {} | {takes} | {} | **failed** | **failed** | |\n", row.server.title, mode.drain_signal);
    };
    let Counts { ok, failed, .. } = figures.new;
    let kept = match figures.kept {
        Counts { ok: 0, failed: 0, .. } => "not asked".to_owned(),
        Counts { ok, failed, again } => format!("{ok}, **{failed}**, {again}"),
    };
    let ready = match mode.no_second {
        Some(_) => "never".to_owned(),
        None => format!("{} ms", figures.ready.as_millis()),
    };
    let Figures { version, drain_signal, .. } = figures;
    format!("| {} {version} | {takes} | {drain_signal} | {ok}, **{failed}** | {kept} | {ready} |\n", row.server.title)
}

fn notes(results: &[Result]) -> String {
    let mut notes = String::from("\n## To be known\n\n");
    let mut last = "";
    for (row, _) in results {
        if row.name != last {
            notes += &format!("- **{}** ({})", row.server.title, row.server.documentation);
            notes += &if row.server.notes.is_empty() { "\n".to_owned() } else { format!(": {}\n", row.server.notes) };
        }
        last = &row.name;
        let Mode { loses_new, loses_kept, no_second, crash_cuts, .. } = &row.mode;
        let known = [
            ("may lose new connections", loses_new),
            ("may lose requests over kept-alive connections", loses_kept),
            ("cannot be reloaded", no_second),
            ("suffers from a crash", crash_cuts),
        ];
        for (what, why) in known {
            if let Some(why) = why {
                notes += &format!("  - {} {what}: {why}.\n", row.mode.way());
            }
        }
    }
    notes
}
