//! Finding the file that would be executed, without executing it.
//!
//! What only execve(2) can tell, such as the format of the file, is not known here.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use super::child::{Start, StartError, path_of};
use super::identity::Identity;
use super::kernel::clone::{SpawnError, Step, candidates};
use crate::config::Config;
use crate::supervisor::{Generation, Instance};

/// The file, looked for as at a start, with these variables from files.
pub fn find(
    config: &Config,
    from_files: &[(String, String)],
    identity: Option<&Identity>,
) -> Result<PathBuf, StartError> {
    let start = Start {
        instance: Instance { generation: Generation(1), number: 1 },
        process: &config.process,
        identity,
        control_group: None,
        outlets: [None; 2],
        said_on: None,
        watchdog: None,
        admin: Path::new(""),
        lent: Vec::new(),
        capture: None,
    };
    let program = config.command.first().map(|program| start.fill_in(program)).unwrap_or_default();
    let environment = start.environment(std::env::vars_os(), from_files);
    let directory = config.process.directory.clone().unwrap_or_default();
    let mut why = libc::ENOENT;
    for candidate in candidates(&program, path_of(&environment)) {
        let path = directory.join(std::ffi::OsStr::from_bytes(candidate.as_bytes()));
        match path.metadata() {
            Ok(found) if found.is_file() && access(&path, AccessFlags::X_OK).is_ok() => return Ok(path),
            Ok(_) => why = libc::EACCES,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => why = libc::EACCES,
            Err(_) => {}
        }
    }
    let source = SpawnError { step: Step::Execute, source: io::Error::from_raw_os_error(why) };
    Err(StartError::Spawn { program, directory: None, as_another: false, source })
}
