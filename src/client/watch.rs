//! `zdr status --watch`: the picture again and again, by the stream of a supervisor, also of the one that comes after it.
//!
//! Ends at a signal or where nobody reads it any more, never by itself.

use std::collections::HashMap;
use std::io::{self, Write, stdout};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use nix::poll::{PollFd, PollTimeout, poll};
use serde_json::Value;

use super::canvas::Canvas;
use super::connection::{Connection, Next};
use super::error::ClientError;
use super::show::{Screen, status_text, without_times};
use super::time::{Patience, Stopwatch};
use super::{Outcome, reader_gone, status_of};

/// A report every second. One that is later than this is missed.
const STREAM: &str = "/health/$stream?poll_interval=1";
const LATE: Duration = Duration::from_secs(3);

/// How often a supervisor that has gone is looked for.
const PAUSE: Duration = Duration::from_millis(200);

/// `zdr status --watch`.
pub(super) fn watch(path: &Path, as_json: bool) -> Outcome {
    let stream = Some(Stream::open(path)?);
    let screen = Screen::of_stdout();
    let view = match () {
        () if as_json => View::Json,
        () if screen.terminal => View::Canvas(Canvas::take().map_err(system)?),
        () => View::Blocks { last: Value::Null },
    };
    let picture = Picture { report: Value::Null, seen: Stopwatch::start(), lost: None };
    let mut watch = Watch { path, screen, stream, picture, view };
    // A reader that has gone ends it, as a signal does.
    while watch.go_on()?.unwrap_or(false) {}
    Ok(0)
}

/// Somebody who watches.
#[derive(Debug)]
struct Watch<'a> {
    path: &'a Path,
    screen: Screen,
    /// None while no supervisor answers.
    stream: Option<Stream<'a>>,
    picture: Picture,
    view: View,
}

impl Watch<'_> {
    /// Until something came and was shown; false where it is to end.
    fn go_on(&mut self) -> Result<io::Result<bool>, ClientError> {
        let Some(stream) = &mut self.stream else { return self.look_again() };
        match stream.next(&self.view)? {
            Came::Report(report) => self.picture = Picture { report, seen: Stopwatch::start(), lost: None },
            Came::Nothing => self.picture.lost = Some("nothing was heard"),
            Came::Signal => return Ok(self.view.signalled(&self.picture)),
            Came::End => {
                self.stream = None;
                self.picture.lost = Some("no supervisor answered");
            }
        }
        Ok(self.view.show(&self.picture, self.screen))
    }

    fn look_again(&mut self) -> Result<io::Result<bool>, ClientError> {
        self.stream = Stream::open(self.path).ok();
        if self.stream.is_some() {
            return Ok(Ok(true));
        }
        let signal = self.view.pause().map_err(system)?;
        Ok(if signal { self.view.signalled(&self.picture) } else { self.view.redraw(&self.picture) })
    }
}

fn system(error: impl Into<io::Error>) -> ClientError {
    ClientError::Terminal(error.into())
}

/// What is shown.
#[derive(Debug)]
struct Picture {
    report: Value,
    seen: Stopwatch,
    /// Why it is an old one.
    lost: Option<&'static str>,
}

impl Picture {
    fn text(&self, screen: Screen) -> String {
        let lost = self.lost.map(|why| screen.warning(&format!("{why} for {:.0}s", self.seen.elapsed().as_secs_f64())));
        let known = !self.report.is_null();
        lost.into_iter().chain(known.then(|| status_text(&self.report, screen))).collect()
    }
}

/// How it is shown.
#[derive(Debug)]
enum View {
    /// A line for each report.
    Json,
    /// The text whenever more than times and sizes has changed.
    Blocks { last: Value },
    /// On a terminal, in one place.
    Canvas(Canvas),
}

impl View {
    /// False where it is to end.
    fn show(&mut self, picture: &Picture, screen: Screen) -> io::Result<bool> {
        match self {
            Self::Json if picture.lost.is_some() => {}
            Self::Json => writeln!(stdout(), "{}", picture.report)?,
            Self::Canvas(_) => return self.redraw(picture),
            Self::Blocks { last } => {
                let mut now = without_times(&picture.report);
                now["lost"] = picture.lost.into();
                if now == *last {
                    return Ok(true);
                }
                let gap = if last.is_null() { "" } else { "\n" };
                *last = now;
                match picture.lost {
                    Some(why) => write!(stdout(), "{gap}{}", screen.warning(why))?,
                    None => write!(stdout(), "{gap}{}", status_text(&picture.report, screen))?,
                }
            }
        }
        stdout().flush()?;
        Ok(true)
    }

    fn redraw(&mut self, picture: &Picture) -> io::Result<bool> {
        let Self::Canvas(canvas) = self else { return Ok(true) };
        // It may be larger or smaller by now.
        let screen = Screen::of_stdout().to_draw_on();
        canvas.draw(&picture.text(screen), screen.rows())?;
        Ok(true)
    }

    fn signalled(&mut self, picture: &Picture) -> io::Result<bool> {
        let Self::Canvas(canvas) = self else { return Ok(false) };
        Ok(canvas.go_on()? && self.redraw(picture)?)
    }

    /// A signal, or that nobody reads it any more.
    fn interrupt<'a>(&'a self, stdout: BorrowedFd<'a>) -> PollFd<'a> {
        match self {
            Self::Canvas(canvas) => canvas.interrupt(),
            Self::Json | Self::Blocks { .. } => reader_gone(stdout),
        }
    }

    /// Waits a moment; true where it was interrupted.
    fn pause(&self) -> nix::Result<bool> {
        let limit = PollTimeout::try_from(PAUSE).unwrap_or(PollTimeout::ZERO);
        Ok(poll(&mut [self.interrupt(stdout().as_fd())], limit)? > 0)
    }
}

/// The reports of a supervisor.
#[derive(Debug)]
struct Stream<'a> {
    path: &'a Path,
    connection: Connection,
    /// What generations run, which a stream does not tell: arguments may hold secrets.
    commands: HashMap<u64, Value>,
}

enum Came {
    Report(Value),
    Nothing,
    Signal,
    End,
}

impl<'a> Stream<'a> {
    fn open(path: &'a Path) -> Result<Self, ClientError> {
        let mut connection = Connection::open(path)?;
        connection.ask("GET", STREAM, "", Patience::of(None))?;
        Ok(Self { path, connection, commands: HashMap::new() })
    }

    fn next(&mut self, view: &View) -> Result<Came, ClientError> {
        let stdout = stdout();
        let interrupt = view.interrupt(stdout.as_fd());
        loop {
            let line = match self.connection.next(Some(LATE), Some(&interrupt))? {
                Next::Line(line) => line,
                Next::End => return Ok(Came::End),
                Next::Late => return Ok(Came::Nothing),
                Next::Interrupted => return Ok(Came::Signal),
            };
            if let Some(report) = line.strip_prefix("data: ").and_then(|data| serde_json::from_str(data).ok()) {
                return Ok(Came::Report(self.with_commands(report)));
            }
        }
    }

    fn with_commands(&mut self, mut report: Value) -> Value {
        let Some(seats) = report["generations"].as_array_mut() else { return report };
        let missing = |seat: &Value| seat.get("command").is_none();
        let number = |seat: &Value| seat["generation"].as_u64().unwrap_or(0);
        if seats.iter().any(|seat| missing(seat) && !self.commands.contains_key(&number(seat))) {
            let status = status_of(self.path).unwrap_or_default();
            let all = status["generations"].as_array().into_iter().flatten();
            self.commands = all.map(|seat| (number(seat), seat["command"].clone())).collect();
        }
        for seat in seats.iter_mut().filter(|seat| missing(seat)) {
            if let Some(command) = self.commands.get(&number(seat)) {
                seat["command"] = command.clone();
            }
        }
        report
    }
}
