//! Reading a file that people write, whatever is found at its path.
//!
//! Never waits and never reads without end: what is no file, or too large to be meant, is refused.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// More than anybody writes, and more than a program can be given (`MAX_ARG_STRLEN` for each variable, execve(2)).
const LARGEST: u64 = 1 << 20;

/// Nothing but a file: a pipe gives its text once, and could hold zdr up until somebody writes to it.
pub fn read(path: &Path) -> io::Result<Vec<u8>> {
    let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    let found = opened.metadata()?;
    if found.is_dir() {
        return Err(io::Error::other("a directory, not a regular file"));
    }
    if !found.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    let too_large = || io::Error::other("larger than 1 MiB");
    if found.len() > LARGEST {
        return Err(too_large());
    }
    let mut text = Vec::new();
    // It may grow meanwhile, and files of the kernel tell no size.
    match opened.take(LARGEST + 1).read_to_end(&mut text)? as u64 > LARGEST {
        true => Err(too_large()),
        false => Ok(text),
    }
}

/// Why it could not be read, without the number of the error.
pub fn words(source: &io::Error) -> String {
    match source.raw_os_error() {
        Some(libc::ENOENT) => "no such file or directory".to_owned(),
        Some(libc::ELOOP) => "its symbolic links lead round in a circle".to_owned(),
        Some(_) => source.kind().to_string(),
        None => source.to_string(),
    }
}
