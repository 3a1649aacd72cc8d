//! Names of things: generations, tickets, exits.

use std::fmt;

use serde::Serialize;

/// Counts the boots, reloads and restarts; the first is 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One running copy of the command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance {
    /// The generation it belongs to.
    pub generation: Generation,
    /// Its number in there, from 1; another one that takes its place has it again.
    pub number: u32,
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.generation, self.number)
    }
}

/// Names who waits for a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// Why a generation is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// It is the first.
    Boot,
    /// Somebody asked for a reload.
    #[default]
    Reload,
    /// Somebody asked for a restart.
    Restart,
    /// The serving one died.
    Crash,
    /// One before it failed, and nothing serves.
    Retry,
    /// The serving one is stuck.
    Stuck,
    /// The serving one is about to end by itself.
    Leaving,
    /// It finishes what waited for one that died, or while new connections were held.
    Finish,
    /// A watched file has changed.
    Change,
    /// The generation before is to serve again.
    Rollback,
    /// Another number of instances is wanted.
    Scale,
    /// The serving one uses more memory than it may.
    Memory,
    /// The serving one has lived as long as it may.
    Lifetime,
}

impl Why {
    /// True for what may run something else than what served before: that is where one can go back from.
    pub(super) fn is_for_something_new(self) -> bool {
        matches!(self, Self::Boot | Self::Reload | Self::Restart | Self::Change)
    }
}

impl Why {
    /// As it stands in a sentence.
    fn words(self) -> &'static str {
        match self {
            Self::Boot => "",
            Self::Reload => " for a reload",
            Self::Restart => " for a restart",
            Self::Crash => " after the crash",
            Self::Retry => " for another try",
            Self::Stuck => " in place of one that is stuck",
            Self::Leaving => " in place of one that is about to end",
            Self::Finish => " to finish what waits",
            Self::Change => " for a change",
            Self::Rollback => " for a rollback",
            Self::Scale => " for another number of instances",
            Self::Memory => " in place of one that uses too much memory",
            Self::Lifetime => " in place of one that has lived long enough",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

/// When the verdict of a reload is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Until {
    /// When the new generation serves.
    #[default]
    Serving,
    /// When the old one is gone as well.
    Drained,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => {
                write!(f, "was killed by signal {signal}{}", signal_name(*signal))
            }
        }
    }
}

/// The signals that end servers in practice (signal(7), the numbers of x86 and ARM).
fn signal_name(signal: i32) -> &'static str {
    match signal {
        1 => " (HUP)",
        2 => " (INT)",
        3 => " (QUIT)",
        4 => " (ILL)",
        6 => " (ABRT)",
        7 => " (BUS)",
        8 => " (FPE)",
        9 => " (KILL)",
        11 => " (SEGV)",
        13 => " (PIPE)",
        15 => " (TERM)",
        24 => " (XCPU)",
        31 => " (SYS)",
        _ => "",
    }
}
