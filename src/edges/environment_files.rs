//! Reading the files that variables for the server come from, afresh at every start.
//!
//! Read with zdr's own rights, so that a file of secrets can be root's alone.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::text_file::{self, words};
use crate::config::EnvironmentFile;
use crate::config::environment_text::{Mistake, parse};

/// Why there are no variables.
#[derive(Debug)]
pub enum EnvironmentFileError {
    /// The file cannot be read.
    Read {
        /// Which.
        path: PathBuf,
        /// How.
        source: io::Error,
    },
    /// A line of it is no variable.
    Line {
        /// Which file.
        path: PathBuf,
        /// Which line and why.
        mistake: Mistake,
    },
}

impl fmt::Display for EnvironmentFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read { path, source } => {
                write!(f, "cannot read the environment file {}: {}", path.display(), words(source))
            }
            Self::Line { path, mistake } => write!(f, "{}:{}: {}", path.display(), mistake.line, mistake.why),
        }
    }
}

impl std::error::Error for EnvironmentFileError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Read { source, .. } => Some(source),
            Self::Line { .. } => None,
        }
    }
}

/// The variables of all files in order.
pub fn read(files: &[EnvironmentFile]) -> Result<Vec<(String, String)>, EnvironmentFileError> {
    let mut variables = Vec::new();
    for file in files {
        let text = match text_file::read(&file.path) {
            Err(error) if file.optional && error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(EnvironmentFileError::Read { path: file.path.clone(), source }),
            Ok(text) => text,
        };
        let read = parse(&text).map_err(|mistake| EnvironmentFileError::Line { path: file.path.clone(), mistake })?;
        variables.extend(read);
    }
    Ok(variables)
}
