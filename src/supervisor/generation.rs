//! Names of things: generations, instances, tickets, exits.

use std::fmt;

use serde::Serialize;

/// Counts the boots, reloads and restarts; the first is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Generation(pub u64);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One running copy of the command; those of a generation are numbered from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance {
    /// The generation it belongs to.
    pub generation: Generation,
    /// Which of its instances it is.
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
    /// It finishes what waited for one that died.
    Finish,
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
            Self::Finish => " to finish what waits for one that died",
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
