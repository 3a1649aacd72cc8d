//! Where the settings come from, so that a reload can have them afresh.
//!
//! Never reads anything itself: whoever knows the command line and the file hands over how.

use super::{Config, Fault};

/// Reads the settings again, from the command line as it was and the file as it is; or says why they are no good.
pub type Reread = Box<dyn Fn() -> Result<Reading, String>>;

/// Says what is wrong with settings, and where it was written.
pub type Placed = Box<dyn Fn(Fault) -> String>;

/// The settings as they were at one moment.
pub struct Reading {
    /// What they say.
    pub config: Config,
    /// What was in the file, where there is one, to see whether it has changed.
    pub text: Option<String>,
    /// How to say what turns out to be wrong with them.
    pub placed: Placed,
}
