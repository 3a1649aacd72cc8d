//! The memory that a companion has from zdr and never uses: all heaps, the stacks of other threads, and what zdr has in common
//! with other companions.
//!
//! A page that zdr writes to after the fork would stay behind in the companion as its own; what it has given back cannot.

use std::fs;
use std::io;

/// More are not given back: memory then, not correctness.
const MOST: usize = 64;

/// Ranges of memory, on the stack, because the heap is among them.
#[derive(Debug)]
pub(super) struct Unneeded {
    ranges: [(usize, usize); MOST],
}

impl Unneeded {
    /// What a child of this thread will not need (proc_pid_maps(5)): memory behind which there is no file, but for this thread's
    /// stack, its own variables and what is at `shared`.
    pub(super) fn of_a_child(shared: usize) -> io::Result<Self> {
        let on_the_stack = 0_u8;
        // SAFETY: the call has no preconditions; only the address is looked at.
        let own_variable = unsafe { libc::__errno_location() }.addr();
        let needed = [(&raw const on_the_stack).addr(), own_variable, shared];
        let maps = fs::read_to_string("/proc/self/maps")?;
        let mut ranges = [(0, 0); MOST];
        let unneeded = maps
            .lines()
            .filter_map(anonymous)
            .filter(|(start, end)| !needed.iter().any(|at| (start..end).contains(&at)));
        for (room, range) in ranges.iter_mut().zip(unneeded) {
            *room = range;
        }
        Ok(Self { ranges })
    }

    /// Unmaps it.
    ///
    /// # Safety
    /// Only in the child, which from then on uses nothing but its stack, system calls, and what is shared with zdr.
    pub(super) unsafe fn give_back(&self) {
        for &(start, end) in &self.ranges {
            if end > start {
                // SAFETY: forwarded from the caller.
                unsafe { libc::syscall(libc::SYS_munmap, start, end - start) };
            }
        }
    }
}

/// The range of a line such as `7f00-7f10 rw-p 00000000 00:00 0 [heap]`, if nothing but memory is behind it. Shared memory is shown
/// as a file that it is not (mmap(2), MAP_ANONYMOUS).
fn anonymous(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let is_private = fields.next()?.ends_with('p');
    let inode = fields.nth(2)?;
    let name = fields.next();
    let is_memory = match is_private {
        true => inode == "0" && name.is_none_or(|name| name == "[heap]" || name.starts_with("[anon:")),
        false => name == Some("/dev/zero"),
    };
    let number = |text| usize::from_str_radix(text, 16).ok();
    is_memory.then_some((number(start)?, number(end)?))
}
