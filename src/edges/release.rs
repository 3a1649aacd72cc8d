//! What a generation was started from, kept so that it can be started again exactly as it was: the same command and
//! variables, the same working directory, and the very file that was executed.
//!
//! Starts nothing and keeps no file in memory: it holds two descriptors open and remembers where names led.

mod directory;
mod executable;
mod trail;

#[cfg(test)]
mod tests;

use std::ffi::{CString, OsStr, OsString};
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use self::directory::Directory;
use self::executable::Executable;
use self::trail::Trail;
use super::environment_files::{self, EnvironmentFileError};
use crate::config::Process;
use crate::supervisor::Generation;

/// What a generation was started from.
#[derive(Debug)]
pub struct Release {
    generation: Generation,
    command: Vec<OsString>,
    /// Read from files when it was taken.
    variables: Vec<(String, String)>,
    /// None for ours.
    directory: Option<Directory>,
    /// None until its first start has succeeded, and where zdr may not open what the server may execute.
    executable: Option<Executable>,
    /// The arguments after the first that named something.
    arguments: Vec<Trail>,
}

impl Release {
    /// Reads the variables and opens the working directory, as both are now. What cannot be opened is for the first start
    /// to complain of.
    pub fn take(generation: Generation, process: &Process, command: &[OsString]) -> Result<Self, EnvironmentFileError> {
        Ok(Self {
            generation,
            command: command.to_vec(),
            variables: environment_files::read(&process.environment_files)?,
            directory: process.directory.as_deref().map(Directory::open),
            executable: None,
            arguments: Vec::new(),
        })
    }

    /// The program and its arguments, with placeholders.
    pub fn command(&self) -> &[OsString] {
        &self.command
    }

    /// What was read from files.
    pub fn variables(&self) -> &[(String, String)] {
        &self.variables
    }

    /// The working directory, if it is not ours and could be opened.
    pub fn directory(&self) -> Option<BorrowedFd<'_>> {
        self.directory.as_ref().and_then(Directory::file)
    }

    /// Where the working directory was, if it exists no more.
    pub fn gone(&self) -> Option<&Path> {
        self.directory.as_ref().filter(|directory| directory.is_gone()).map(Directory::path)
    }

    /// Opens each of the files that may be executed by this name, before it is known which one will be.
    pub(super) fn open(&self, name: &OsStr, candidates: &[CString]) -> Vec<Option<Executable>> {
        let base = self.base();
        candidates.iter().map(|path| Executable::open(&base, name, OsStr::from_bytes(path.to_bytes()))).collect()
    }

    /// Its first start has succeeded, with this file and these arguments.
    pub(super) fn started(&mut self, executable: Option<Executable>, arguments: &[OsString]) {
        let base = self.base();
        self.executable = executable;
        self.arguments = arguments.iter().filter_map(|argument| Trail::of(&base, argument)).collect();
    }

    /// How to execute the same file again, if it is known.
    pub fn program(&self) -> Option<Program<'_>> {
        let base = self.base();
        self.executable.as_ref().map(|executable| Program {
            called: executable.called(&base),
            path: executable.path(&base),
            file: executable.file(),
        })
    }

    /// The argument, or where it led once if that is somewhere else by now.
    pub fn argument(&self, written: OsString) -> OsString {
        let trail = self.arguments.iter().find(|trail| trail.is(&written));
        trail.and_then(|trail| trail.as_it_was(&self.base())).unwrap_or(written)
    }

    /// A warning, where the file that was executed has another content by now.
    pub fn changed_in_place(&self) -> Option<String> {
        let executable = self.executable.as_ref().filter(|executable| executable.is_changed())?;
        let (name, generation) = (executable.name().display(), self.generation);
        Some(format!("{name} was changed in place since generation {generation} started; it runs as it is now"))
    }

    /// What relative paths begin at.
    fn base(&self) -> PathBuf {
        self.directory.as_ref().map_or_else(|| ".".into(), Directory::reached_by)
    }
}

/// A file to be executed again.
#[derive(Debug)]
pub struct Program<'a> {
    /// Its argument 0.
    pub called: OsString,
    /// A path that leads to it, if there still is one.
    pub path: Option<PathBuf>,
    /// The file itself.
    pub file: BorrowedFd<'a>,
}
