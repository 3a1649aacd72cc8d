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
    /// What was shown last: the verdict often says the same.
    last: String,
    /// A failure that is not shown yet: if it is ours, it is the verdict that tells it.
    held_back: Option<Value>,
}

impl<W: Write> Progress<W> {
    pub(in crate::client) fn new(out: W, screen: Option<Screen>) -> Self {
        Self { out, screen, passing: None, most: 0, last: String::new(), held_back: None }
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
            Some("failed") => self.held_back = Some(told.clone()),
            Some("verdict") if told["code"] != 0 => {}
            Some("not_ready") if screen.terminal => self.pass(screen, message, after),
            Some("draining") if screen.terminal => {
                let bar = self.bar(told);
                self.pass(screen, format!("{message}{bar}"), after);
            }
            _ if message.is_empty() || message == self.last => {}
            event => {
                let is_crash = event == Some("crashed");
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
    fn bar(&mut self, told: &Value) -> String {
        let Some(open) = told["open"].as_u64() else { return String::new() };
        self.most = self.most.max(open);
        let gone = usize::try_from(self.most - open).unwrap_or(0);
        let most = usize::try_from(self.most).unwrap_or(0).max(1);
        let full = if self.most == 0 { BAR } else { gone * BAR / most };
        format!("  {}{}", "█".repeat(full), "░".repeat(BAR - full))
    }
}

fn stamp(after: Duration) -> String {
    format!("{:<8}", format!("+{:.1}s", after.as_secs_f64()))
}
