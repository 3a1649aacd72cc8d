//! What a server would meet where it is started, with its rights: its directory, and the file that would be executed.
//!
//! Starts nothing, so what only execve(2) can tell, such as the format of the file, is not known here.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::unistd::{AccessFlags, faccessat};

use super::child::{Start, StartError, path_of};
use super::identity::Identity;
use super::kernel::clone::{SpawnError, Step, candidates};
use super::kernel::owner::as_user;
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
    let ids = identity.and_then(|identity| identity.ids.as_ref());
    let mut why = libc::ENOENT;
    for candidate in candidates(&program, path_of(&environment)) {
        let path = directory.join(OsStr::from_bytes(candidate.as_bytes()));
        match as_user(ids, || path.metadata().map(|found| found.is_file() && may_pass(&path).is_ok())) {
            Ok(true) => return Ok(path),
            Ok(false) => why = libc::EACCES,
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => why = libc::EACCES,
            Err(_) => {}
        }
    }
    let source = SpawnError { step: Step::Execute, source: io::Error::from_raw_os_error(why) };
    Err(StartError::Spawn { program, directory: None, as_another: ids.is_some(), source })
}

/// Whether it could enter this directory.
pub fn enter(directory: &Path, identity: Option<&Identity>) -> io::Result<()> {
    let ids = identity.and_then(|identity| identity.ids.as_ref());
    as_user(ids, || match directory.metadata()?.is_dir() {
        true => may_pass(directory),
        false => Err(io::ErrorKind::NotADirectory.into()),
    })
}

/// With the rights that this thread has for files now, not with those of whoever started it (access(2)).
fn may_pass(path: &Path) -> io::Result<()> {
    Ok(faccessat(AT_FDCWD, path, AccessFlags::X_OK, AtFlags::AT_EACCESS)?)
}
