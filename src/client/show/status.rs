//! The picture of a supervisor for people: what matters most comes first.
//!
//! Fields that are missing leave their place empty: the supervisor may be older or newer than its client.

use std::fmt::Write as _;

use anstyle::Style;
use serde_json::Value;
use unicode_width::UnicodeWidthStr;

use super::screen::{BAD, Cell, FAINT, GOOD, NAME, PASSING, PLAIN, Screen, WARNING, clean, cut};
use super::seats::seats;
use super::words::{age, bytes, list, several};

/// Who it is and how it is, then what is wrong, then its generations, its listeners and what is well.
pub(in crate::client) fn status_text(status: &Value, screen: Screen) -> String {
    let failed = &status["last_verdict"]["outcome"] != "done";
    let verdict = verdict(&status["last_verdict"], screen);
    let ill = checks(status, screen, |state| state != "healthy");
    let well = checks(status, screen, |state| state == "healthy");
    let rows: Vec<_> = list(&status["listeners"]).iter().map(listener).collect();
    let mut parts = vec![figures(status, screen), ill];
    parts.extend(failed.then(|| verdict.clone()));
    parts.extend([seats(list(&status["generations"]), screen), screen.table("  ", &rows), well]);
    let last = if failed { String::new() } else { verdict };
    parts.push(format!("{last}{}", rollback(&status["rollback"], screen)));
    parts.retain(|part| !part.is_empty());
    format!("{}{}", heading(status, screen), parts.join("\n"))
}

/// One line for each supervisor.
pub(in crate::client) fn list_text(all: &[Value], screen: Screen) -> String {
    let row = |status: &Value| {
        let generation = status["generation"].as_u64().or_else(|| {
            let seat = list(&status["generations"]).iter().find(|seat| seat["seat"] == "serving")?;
            seat["generation"].as_u64()
        });
        [
            Cell::new(NAME, text(status, "name")),
            colourful(text(status, "state")),
            colourful(status["status"].as_str().unwrap_or_default()),
            Cell::plain(&format!("pid {}", status["pid"])),
            Cell::plain(&generation.map(|it| format!("generation {it}")).unwrap_or_default()),
        ]
    };
    screen.table("", &all.iter().map(row).collect::<Vec<_>>())
}

/// What must differ for a picture to be another one: not what changes by itself all the time.
pub(in crate::client) fn without_times(status: &Value) -> Value {
    match status {
        Value::Object(fields) => {
            let passing =
                |name: &str| ["uptime_secs", "since_secs", "age_secs", "cpu_secs", "memory_bytes"].contains(&name);
            let lasting = |(name, value): (&String, &Value)| match name.as_str() {
                // That new connections are held lasts.
                "paused_secs" => (name.clone(), value.is_number().into()),
                _ => (name.clone(), without_times(value)),
            };
            Value::Object(fields.iter().filter(|(name, _)| !passing(name)).map(lasting).collect())
        }
        Value::Array(all) => all.iter().map(without_times).collect(),
        other => other.clone(),
    }
}

/// What a word of a state, a seat, an outcome or a health means to somebody who looks at its colour.
pub(super) fn style_of(word: &str) -> Style {
    match word {
        "serving" | "healthy" | "done" => GOOD,
        "starting" | "reloading" => PASSING,
        "draining" | "degraded" | "kept" | "stopping" => WARNING,
        "waiting" | "unhealthy" | "failed" => BAD,
        _ => PLAIN,
    }
}

pub(super) fn colourful(word: &str) -> Cell {
    Cell::new(style_of(word), word)
}

fn heading(status: &Value, screen: Screen) -> String {
    let mut how = vec![text(status, "state")];
    how.extend(status["status"].as_str());
    let who = clean(text(status, "name"));
    let up = age(&status["uptime_secs"]).map(|up| format!(", up {up}")).unwrap_or_default();
    let pid = status["pid"].as_u64().map(|pid| format!(", pid {pid}")).unwrap_or_default();
    let facts = clean(&format!("zdr {}{pid}{up}", text(status, "version")));
    let plain = format!("{who}: {}", how.join(", "));
    let gap = screen.columns.min(80).saturating_sub(plain.width() + facts.width()).max(2);
    let fits = plain.width() + gap + facts.width() <= screen.columns;
    let painted: Vec<String> = how.iter().map(|word| screen.paint(style_of(word), &clean(word))).collect();
    let facts = if fits { screen.paint(FAINT, &facts) } else { String::new() };
    let line = format!("{}: {}{:gap$}{facts}", screen.paint(NAME, &who), painted.join(", "), "");
    format!("{}\n", line.trim_end())
}

/// What the serving generation and all of them together do.
fn figures(status: &Value, screen: Screen) -> String {
    let seat = list(&status["generations"]).iter().find(|seat| seat["seat"] == "serving");
    let mut said = match seat {
        Some(seat) => {
            let since = age(&seat["since_secs"]).map(|since| format!(" for {since}")).unwrap_or_default();
            format!("generation {} has served{since}", seat["generation"])
        }
        None => "nothing serves".to_owned(),
    };
    let queue = list(&status["listeners"]).iter().filter_map(|it| it["queue"].as_u64()).sum::<u64>();
    let mut figures = Vec::new();
    figures.extend(status["connections"].as_u64().map(|open| several(open, "connection")));
    figures.extend(status["in_flight"].as_u64().map(|busy| format!("{busy} in flight")));
    figures.extend((queue > 0).then(|| format!("{queue} waiting")));
    figures.extend(status["memory_bytes"].as_u64().filter(|it| *it > 0).map(bytes));
    figures.extend(status["cpu_secs"].as_f64().filter(|it| *it > 0.0).map(|cpu| format!("{cpu:.1}s of cpu")));
    if !figures.is_empty() {
        let _ = write!(said, ": {}", figures.join(", "));
    }
    let mut out = screen.hanging("  ", PLAIN, &said);
    if let Some(left) = age(&status["paused_secs"]) {
        let held = format!("new connections are held, for {left} more at most");
        let _ = writeln!(out, "  {}", screen.paint(WARNING, &held));
    }
    if let Some(crashes) = status["crashes"].as_u64().filter(|it| *it > 0) {
        let _ = writeln!(out, "  {}", screen.paint(WARNING, &several(crashes, "crash")));
    }
    out
}

fn listener(listener: &Value) -> [Cell; 3] {
    let figure = |key: &str| listener[key].as_u64().filter(|figure| *figure > 0);
    let overflows = figure("overflows");
    let mut said = Vec::new();
    said.extend(overflows.map(|overflows| format!("{overflows} refused")));
    if let Some(queue) = figure("queue") {
        let limit = figure("queue_limit").map(|limit| format!(" of {limit}")).unwrap_or_default();
        said.push(format!("{queue}{limit} waiting"));
    }
    said.extend(figure("slots").map(|slots| several(slots, "slot")));
    let style = if overflows.is_some() { WARNING } else { PLAIN };
    [
        Cell::new(NAME, text(listener, "name")),
        Cell::plain(text(listener, "address")),
        Cell::new(style, &said.join(", ")),
    ]
}

/// Those in these states, the worst first. What other lines say is not said twice.
fn checks(status: &Value, screen: Screen, wanted: impl Fn(&str) -> bool) -> String {
    let Some(checks) = status["checks"].as_object() else { return String::new() };
    let state = |check: &Value| check["state"].as_str().unwrap_or("?").to_owned();
    let told = |(name, check): &(&String, &Value)| {
        let by_the_verdict = check["message"].is_string() && check["message"] == status["last_verdict"]["reason"];
        let is_held = status["paused_secs"].is_number() && check["state"] == "degraded";
        by_the_verdict || (*name == "serving" && (check["state"] == "healthy" || is_held))
    };
    let mut checks: Vec<_> = checks.iter().filter(|(_, check)| wanted(&state(check))).filter(|it| !told(it)).collect();
    checks.sort_by_key(|(name, check)| (check["state"] == "degraded", name.as_str()));
    let widest = checks.iter().map(|(name, _)| clean(name).width()).max().unwrap_or(0).min(24);
    let mut out = String::new();
    for (name, check) in checks {
        let (state, name) = (clean(&state(check)), cut(&clean(name), widest));
        let space = widest - name.width();
        let heading = format!("  {state:<9}  {name}{:space$}  ", "");
        out.push_str(&screen.hanging(&heading, style_of(&state), text(check, "message")));
    }
    out
}

/// A good one on one line; below one that is not, what the generation wrote last.
fn verdict(verdict: &Value, screen: Screen) -> String {
    let Some(outcome) = verdict["outcome"].as_str() else { return String::new() };
    let reason = verdict["reason"].as_str().unwrap_or_default();
    if outcome == "done" {
        return screen.hanging("  last verdict: done, ", PLAIN, reason);
    }
    let title = format!("  last verdict: {}", screen.paint(style_of(outcome), &clean(outcome)));
    let said = screen.hanging("    ", PLAIN, reason);
    format!("{title}\n{said}{}", screen.output("    ", &lines(&verdict["output"])))
}

/// What one would go back to.
fn rollback(goal: &Value, screen: Screen) -> String {
    let Some(generation) = goal["generation"].as_u64() else { return String::new() };
    let how = if goal["warm"] == true { "is kept warm" } else { "is started again as it was" };
    screen.hanging("  rollback: ", PLAIN, &format!("to generation {generation}, which {how}"))
}

/// What keeps a supervisor from being well, in one line: its checks, or its state where it does not serve.
pub(in crate::client) fn health_line(told: &Value) -> String {
    let checks = told["checks"].as_object().into_iter().flatten();
    let ill = checks.filter(|(_, check)| check["state"] != "healthy");
    let said: Vec<String> = ill.map(|(name, check)| format!("{name}: {}", text(check, "message"))).collect();
    if !said.is_empty() {
        return clean(&said.join("; "));
    }
    let state = told["state"].as_str().filter(|state| *state != "serving");
    state.or(told["error"].as_str()).map(clean).unwrap_or_default()
}

/// The lines of an output.
pub(in crate::client) fn lines(output: &Value) -> Vec<String> {
    list(output).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

pub(super) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or("?")
}
