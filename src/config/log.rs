//! What zdr writes of what happens, as it was asked for.
//!
//! Writes nothing itself.

/// The log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// How lines look; None for what fits to where they go.
    pub format: Option<LogFormat>,
    /// How often more was asked for,
    pub verbose: u8,
    /// and how often less.
    pub quiet: u8,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
    /// Entries of the systemd journal, with fields.
    Journal,
}
