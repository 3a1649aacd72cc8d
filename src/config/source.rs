//! Where the settings come from, so that a reload can have them afresh.
//!
//! Never reads anything itself: whoever knows the command line and the file hands over how.

use super::Config;

/// Reads the settings again, from the command line as it was and the file as it is; or says why they are no good.
pub type Reread = Box<dyn Fn() -> Result<Reading, String>>;

/// The settings as they were at one moment.
#[derive(Clone, Debug)]
pub struct Reading {
    /// What they say.
    pub config: Config,
    /// What was in the file, where there is one, to see whether it has changed.
    pub text: Option<String>,
}
