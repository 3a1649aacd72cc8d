//! The story as lines for people: when, which generation, what, and the words for it.

use std::fmt::Write as _;

use anstyle::Style;
use serde_json::Value;

use super::screen::{BAD, FAINT, GOOD, PASSING, PLAIN, Screen, WARNING, clean};
use super::status::{lines, style_of};
use super::words::number;

/// Writes one event after the other.
#[derive(Debug)]
pub(in crate::client) struct Story {
    screen: Screen,
    /// The day of the last one.
    day: String,
    /// What a generation had written by then: a failure and its verdict have the same.
    output: Vec<String>,
}

impl Story {
    pub(in crate::client) fn new(screen: Screen) -> Self {
        Self { screen, day: String::new(), output: Vec::new() }
    }

    /// The text of one event: a line, and what a generation wrote below it. On a terminal the time is short, and the day
    /// stands above where it changes; elsewhere each line can stand by itself.
    pub(in crate::client) fn text(&mut self, data: &str) -> String {
        let told: Value = serde_json::from_str(data).unwrap_or_default();
        let event = told["event"].as_str().map(clean).unwrap_or_default();
        let message = told["message"].as_str().unwrap_or(data);
        let time = told["time"].as_str().map(clean).unwrap_or_default();
        let (mut out, time) = match time.split_once('T') {
            Some((day, time)) if self.screen.terminal => (self.heading(day), time.to_owned()),
            _ => (String::new(), time),
        };
        let style = style_of_event(&event, &told);
        let before = format!("{}  {:>3}  ", self.screen.paint(FAINT, &time), number(&told["generation"]));
        let indent = time.chars().count() + 7;
        let event = format!("{event:<9}  ");
        let screen = Screen { columns: self.screen.columns.saturating_sub(indent), ..self.screen };
        let said = match self.screen.terminal {
            true => screen.hanging(&event, style, message),
            false => format!("{}{}\n", screen.paint(style, &event), clean(message)),
        };
        for (position, line) in said.lines().enumerate() {
            let before = if position == 0 { before.clone() } else { " ".repeat(indent) };
            let _ = writeln!(out, "{before}{line}");
        }
        let output = lines(&told["output"]);
        if output != self.output {
            out.push_str(&self.screen.output(&" ".repeat(indent + event.chars().count()), &output));
        }
        self.output = output;
        out
    }

    fn heading(&mut self, day: &str) -> String {
        if self.day == day {
            return String::new();
        }
        day.clone_into(&mut self.day);
        format!("{}\n", self.screen.paint(FAINT, day))
    }
}

fn style_of_event(event: &str, told: &Value) -> Style {
    match event {
        "serving" | "recovered" | "returned" | "resumed" => GOOD,
        "spawned" | "instance_ready" | "sharing" => PASSING,
        "failed" | "crashed" | "stuck" | "instance_lost" | "refused" => BAD,
        "killed" | "retrying" | "unready" | "stopping" | "paused" | "unapplied" | "worn" | "waiting" => WARNING,
        "hook" if told["failure"].is_string() => BAD,
        "verdict" => told["outcome"].as_str().map_or(PLAIN, style_of),
        "check" => told["state"].as_str().map_or(PLAIN, style_of),
        _ => PLAIN,
    }
}
