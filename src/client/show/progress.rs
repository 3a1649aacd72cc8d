//! What happens until the verdict: lines, and on a terminal what changes often on one line that is written over.

use std::io::Write;
use std::time::Duration;

use serde_json::Value;
use unicode_width::UnicodeWidthStr;

use super::screen::{FAINT, Screen, clean, cut};
use super::status::lines;

/// How wide the bar of a drain is.
const BAR: usize = 20;

/// Shows what happens to whoever asked for it.
pub(in crate::client) struct Progress<W> {
    out: W,
    /// None for JSON lines as they come.
    screen: Option<Screen>,
    /// What is on the line that is written over.
    passing: Option<String>,
    /// The most connections that a draining generation had.
    most: u64,
    /// The generation of which it is known how many instances are ready, and how many.
    ready: Option<(u64, u64)>,
    /// What was shown last: the verdict often says the same.
    last: String,
    /// A failure that is not shown yet: if it is ours, it is the verdict that tells it.
    held_back: Option<Value>,
}

impl<W: Write> Progress<W> {
    pub(in crate::client) fn new(out: W, screen: Option<Screen>) -> Self {
        Self { out, screen, passing: None, most: 0, ready: None, last: String::new(), held_back: None }
    }

    /// How soon the line that is written over is out of date.
    pub(in crate::client) fn pace(&self) -> Option<Duration> {
        self.passing.as_ref().map(|_| Duration::from_millis(100))
    }

    /// A reader that has gone is no reason to end: the verdict is the exit code.
    pub(in crate::client) fn show(&mut self, line: &str, told: &Value, after: Duration) {
        let Some(screen) = self.screen else {
            let _ = writeln!(self.out, "{line}");
            let _ = self.out.flush();
            return;
        };
        let message = told["message"].as_str().map(clean).unwrap_or_default();
        if let Some(failure) = self.held_back.take().filter(|failure| failure["message"] != told["message"]) {
            let said = failure["message"].as_str().map(clean).unwrap_or_default();
            self.line(screen, &said, after);
            self.output(&failure);
        }
        match told["event"].as_str() {
            Some("failed" | "refused") => self.held_back = Some(told.clone()),
            Some("verdict") if told["code"] != 0 => {}
            Some("spawned" | "instance_ready" | "sharing") if screen.terminal && is_one_of_several(told) => {
                let text = self.instances(told).unwrap_or(message);
                self.pass(screen, text, after);
            }
            Some("not_ready") if screen.terminal => self.pass(screen, message, after),
            Some("draining") if screen.terminal => {
                let bar = self.bar_of_connections(told);
                self.pass(screen, format!("{message}{bar}"), after);
            }
            _ if message.is_empty() || message == self.last => {}
            event => {
                let is_crash = matches!(event, Some("crashed" | "instance_lost"));
                self.line(screen, &message, after);
                self.last = message;
                if is_crash {
                    self.output(told);
                }
            }
        }
    }

    /// Writes the passing line again, because time has passed.
    pub(in crate::client) fn tick(&mut self, after: Duration) {
        if let (Some(screen), Some(message)) = (self.screen, self.passing.take()) {
            self.pass(screen, message, after);
        }
    }

    /// Nothing is written over any more.
    pub(in crate::client) fn end(&mut self) {
        if self.passing.take().is_some() {
            let _ = writeln!(self.out);
        }
        let _ = self.out.flush();
    }

    fn line(&mut self, screen: Screen, message: &str, after: Duration) {
        let line = match screen.terminal {
            true => {
                let start = if self.passing.take().is_some() { "\r\x1b[K" } else { "" };
                format!("{start}{}{message}\n", screen.paint(FAINT, &stamp(after)))
            }
            false => format!("{message}\n"),
        };
        let _ = self.out.write_all(line.as_bytes());
        let _ = self.out.flush();
    }

    /// In one piece and without clearing the line first, so that nothing flickers.
    fn pass(&mut self, screen: Screen, message: String, after: Duration) {
        let stamp = stamp(after);
        // The last column stays free: some terminals begin a new line when it is filled.
        let fits = cut(&message, screen.columns.saturating_sub(stamp.width() + 1));
        let line = format!("\r{}{fits}\x1b[K", screen.paint(FAINT, &stamp));
        let _ = self.out.write_all(line.as_bytes());
        let _ = self.out.flush();
        self.passing = Some(message);
    }

    fn output(&mut self, told: &Value) {
        for line in lines(&told["output"]) {
            let _ = writeln!(self.out, "  | {}", clean(&line));
        }
        let _ = self.out.flush();
    }

    /// Full when nobody is left.
    fn bar_of_connections(&mut self, told: &Value) -> String {
        let Some(open) = told["open"].as_u64() else { return String::new() };
        self.most = self.most.max(open);
        bar(self.most - open, self.most)
    }

    /// What is steady while one after the other starts and becomes ready. Full when all are; None until it is known how
    /// many are.
    fn instances(&mut self, told: &Value) -> Option<String> {
        let (generation, of) = (told["generation"].as_u64()?, told["of"].as_u64()?);
        self.ready = told["ready"].as_u64().map(|ready| (generation, ready)).or(self.ready);
        let (_, ready) = self.ready.filter(|(known, _)| *known == generation)?;
        Some(format!("generation {generation}: {ready} of {of} instances are ready{}", bar(ready, of)))
    }
}

/// So many of them come and go that each would push away what matters.
fn is_one_of_several(told: &Value) -> bool {
    told["of"].as_u64().is_some_and(|of| of > 1)
}

fn bar(done: u64, all: u64) -> String {
    let (done, all) = (usize::try_from(done.min(all)).unwrap_or(0), usize::try_from(all).unwrap_or(0));
    let full = (done * BAR).checked_div(all).unwrap_or(BAR);
    format!("  {}{}", "█".repeat(full), "░".repeat(BAR - full))
}

fn stamp(after: Duration) -> String {
    format!("{:<8}", format!("+{:.1}s", after.as_secs_f64()))
}
