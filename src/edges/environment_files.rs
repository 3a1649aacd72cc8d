//! Reading the files that variables for the server come from, afresh at every start.
//!
//! Read with zdr's own rights, so that a file of secrets can be root's alone.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use crate::config::EnvironmentFile;
use crate::config::environment_text::{Mistake, parse};

/// More than a program can be given (`MAX_ARG_STRLEN` for each variable, execve(2)).
const LARGEST: u64 = 1 << 20;

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
                let why = match source.raw_os_error() {
                    Some(libc::ENOENT) => "no such file or directory".to_owned(),
                    Some(_) => source.kind().to_string(),
                    None => source.to_string(),
                };
                write!(f, "cannot read the environment file {}: {why}", path.display())
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
        let text = match text(file) {
            Err(error) if file.optional && error.kind() == io::ErrorKind::NotFound => continue,
            Err(source) => return Err(EnvironmentFileError::Read { path: file.path.clone(), source }),
            Ok(text) => text,
        };
        let read = parse(&text).map_err(|mistake| EnvironmentFileError::Line { path: file.path.clone(), mistake })?;
        variables.extend(read);
    }
    Ok(variables)
}

/// Nothing but a file: a pipe gives its text once, and could hold zdr up until somebody writes to it.
fn text(file: &EnvironmentFile) -> io::Result<Vec<u8>> {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&file.path)?;
    if !opened.metadata()?.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut text = Vec::new();
    match opened.take(LARGEST + 1).read_to_end(&mut text)? as u64 > LARGEST {
        true => Err(io::Error::other("larger than 1 MiB")),
        false => Ok(text),
    }
}
