//! What text is shown on: how wide it is and whether it takes colour; and text that fits on it.
//!
//! What others wrote never moves the cursor or changes a colour.

use std::fmt::Write as _;
use std::io::{IsTerminal, stdout};

use anstream::adapter::strip_str;
use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};
use terminal_size::{Height, Width, terminal_size_of};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Where nothing tells how wide it is.
const COLUMNS: usize = 80;

/// Good, passing and bad news, names, and what matters less.
pub(super) const GOOD: Style = AnsiColor::Green.on_default();
pub(super) const PASSING: Style = AnsiColor::Cyan.on_default();
pub(super) const WARNING: Style = AnsiColor::Yellow.on_default();
pub(super) const BAD: Style = AnsiColor::Red.on_default();
pub(super) const NAME: Style = Style::new().bold();
pub(super) const FAINT: Style = Style::new().dimmed();
pub(super) const PLAIN: Style = Style::new();

/// What text is shown on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::client) struct Screen {
    /// Somebody sees it, and what is on it can be written over.
    pub(in crate::client) terminal: bool,
    pub(super) colour: bool,
    pub(super) columns: usize,
    /// Where it is known.
    pub(super) rows: Option<usize>,
}

impl Screen {
    /// The standard output.
    pub(in crate::client) fn of_stdout() -> Self {
        let size = terminal_size_of(stdout()).filter(|(width, height)| width.0 > 0 && height.0 > 0);
        let told = || std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).filter(|it| *it > 0);
        Self {
            terminal: stdout().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb"),
            colour: AutoStream::choice(&stdout()) != ColorChoice::Never,
            columns: size.map(|(Width(width), _)| usize::from(width)).or_else(told).unwrap_or(COLUMNS),
            rows: size.map(|(_, Height(height))| usize::from(height)),
        }
    }

    /// For what is drawn again and again: the last column stays free, where some terminals begin a new line.
    pub(in crate::client) fn to_draw_on(self) -> Self {
        Self { columns: self.columns.saturating_sub(1), ..self }
    }

    pub(in crate::client) fn rows(&self) -> Option<usize> {
        self.rows
    }

    /// A line that should be seen.
    pub(in crate::client) fn warning(&self, text: &str) -> String {
        format!("{}\n", self.paint(BAD, &cut(&clean(text), self.columns)))
    }

    pub(super) fn paint(&self, style: Style, text: &str) -> String {
        match self.colour && style != PLAIN && !text.is_empty() {
            true => format!("{style}{text}{style:#}"),
            false => text.to_owned(),
        }
    }

    /// Columns side by side, each as wide as its widest cell; the last one is cut where the screen ends.
    pub(super) fn table<const N: usize>(&self, indent: &str, rows: &[[Cell; N]]) -> String {
        let width = |column: usize| rows.iter().map(|row| row[column].text.width()).max().unwrap_or(0);
        let widths: [usize; N] = std::array::from_fn(width);
        let mut out = String::new();
        for row in rows {
            out.push_str(indent);
            let (mut left, mut spaces) = (self.columns.saturating_sub(indent.width()), 0);
            for (cell, width) in row.iter().zip(widths).filter(|(_, width)| *width > 0) {
                let text = cut(&cell.text, left);
                let space = width.min(left).saturating_sub(text.width());
                let (before, after) = if cell.right { (space, 0) } else { (0, space) };
                spaces += before;
                if !text.is_empty() {
                    let _ = write!(out, "{:spaces$}{}", "", self.paint(cell.style, &text));
                    spaces = 0;
                }
                spaces += after + 2;
                left = left.saturating_sub(width + 2);
            }
            out.push('\n');
        }
        out
    }

    /// A heading and text behind it that goes on below itself. Lines of the text stay lines: they may show those of a file.
    pub(super) fn hanging(&self, heading: &str, style: Style, text: &str) -> String {
        let indent = heading.width();
        let mut out = String::new();
        let lines = text.split('\n').flat_map(|line| wrap(line, self.columns.saturating_sub(indent)));
        for (position, line) in lines.enumerate() {
            let before = if position == 0 { self.paint(style, heading) } else { " ".repeat(indent) };
            let _ = writeln!(out, "{before}{line}");
        }
        out
    }

    /// The last lines of a server.
    pub(super) fn output(&self, indent: &str, lines: &[String]) -> String {
        let mut out = String::new();
        // Where nobody sees where it ends, a line stays whole.
        let columns = if self.terminal { self.columns.saturating_sub(indent.width() + 2) } else { usize::MAX };
        for line in lines {
            for part in wrap(line, columns) {
                let _ = writeln!(out, "{indent}{}{part}", self.paint(FAINT, "| "));
            }
        }
        out
    }
}

/// One of a table.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    text: String,
    style: Style,
    /// Numbers stand at the right.
    right: bool,
}

impl Cell {
    pub(super) fn new(style: Style, text: &str) -> Self {
        Self { text: clean(text), style, right: false }
    }

    pub(super) fn plain(text: &str) -> Self {
        Self::new(PLAIN, text)
    }

    pub(super) fn right(style: Style, text: &str) -> Self {
        Self { right: true, ..Self::new(style, text) }
    }
}

/// Without escape sequences and control characters.
pub(super) fn clean(text: &str) -> String {
    let text = strip_str(text).to_string();
    text.chars().map(|it| if it.is_whitespace() { ' ' } else { it }).filter(|it| !it.is_control()).collect()
}

/// As much of the beginning as fits, with a mark where something is left out.
pub(super) fn cut(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut cut = String::new();
    cut.push_str(beginning(text, columns.saturating_sub(1)).trim_end());
    if columns > 0 {
        cut.push('…');
    }
    cut
}

/// Cleaned, in lines that fit, parted at spaces where there are some.
pub(super) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(10);
    let text = clean(text);
    let (mut lines, mut rest) = (Vec::new(), text.trim_end());
    while rest.width() > columns {
        let fits = beginning(rest, columns);
        // The space behind what fits is a good place as well.
        let behind = rest[fits.len()..].starts_with(' ').then_some(fits.len());
        let space = behind.or(fits.rfind(' ')).filter(|at| !fits[..*at].trim().is_empty());
        let (line, next) = rest.split_at(space.unwrap_or(fits.len()));
        lines.push(line.trim_end().to_owned());
        rest = next.trim_start();
    }
    lines.push(rest.to_owned());
    lines
}

/// As many whole characters as fit, and at least one.
fn beginning(text: &str, columns: usize) -> &str {
    let mut used = 0;
    for (at, character) in text.char_indices() {
        used += character.width().unwrap_or(0);
        if used > columns {
            return &text[..at];
        }
    }
    text
}
