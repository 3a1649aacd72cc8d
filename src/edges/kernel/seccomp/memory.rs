//! The memory of a thread whose call is notified (/proc/PID/mem, proc_pid_mem(5)): what its pointers point to.
//!
//! Another thread of that process may change it meanwhile, so what is read here decides nothing that the kernel does not check again.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// A read that ends at a multiple of this never needs a page beyond the one it begins in: pages are at least so large.
const SMALLEST_PAGE: usize = 4096;

/// Reads what is at this place, less where the mapping ends before.
pub fn read_memory(thread: i32, at: u64, buffer: &mut [u8]) -> io::Result<usize> {
    File::open(format!("/proc/{thread}/mem"))?.read_at(buffer, at)
}

/// Reads a string that ends in zero, page by page; one that is longer than `limit` is ENAMETOOLONG.
pub fn read_string(thread: i32, at: u64, limit: usize) -> io::Result<CString> {
    let memory = File::open(format!("/proc/{thread}/mem"))?;
    let mut text = Vec::new();
    let mut page = [0; SMALLEST_PAGE];
    let mut at = at;
    while text.len() <= limit {
        let rest = SMALLEST_PAGE - usize::try_from(at).map_err(io::Error::other)? % SMALLEST_PAGE;
        let read = memory.read_at(&mut page[..rest], at)?;
        let new = &page[..read];
        match new.iter().position(|&byte| byte == 0) {
            Some(end) if text.len() + end <= limit => {
                text.extend_from_slice(&new[..end]);
                return CString::new(text).map_err(io::Error::other);
            }
            None if read > 0 => {
                text.extend_from_slice(new);
                at = at.saturating_add(read as u64);
            }
            None => return Err(io::Error::from_raw_os_error(libc::EFAULT)),
            Some(_) => break,
        }
    }
    Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG))
}
