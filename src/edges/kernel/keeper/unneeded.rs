//! The memory that a keeper has from zdr and never uses: all heaps, and the stacks of other threads.
//!
//! A page that zdr writes to after the fork would stay behind in the keeper as its own; what it has given back cannot.

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
    /// What a child of this thread will not need (proc_pid_maps(5)): private memory behind which there is no file, but for this
    /// thread's stack and its own variables.
    pub(super) fn of_a_child() -> io::Result<Self> {
        let on_the_stack = 0_u8;
        // SAFETY: the call has no preconditions; only the address is looked at.
        let own_variable = unsafe { libc::__errno_location() }.addr();
        let needed = [(&raw const on_the_stack).addr(), own_variable];
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

/// The range of a line such as `7f00-7f10 rw-p 00000000 00:00 0 [heap]`, if nothing but private memory is behind it.
fn anonymous(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let is_private = fields.next()?.ends_with('p');
    let inode = fields.nth(2)?;
    let is_memory = fields.next().is_none_or(|name| name == "[heap]" || name.starts_with("[anon:"));
    let number = |text| usize::from_str_radix(text, 16).ok();
    (is_private && inode == "0" && is_memory).then_some((number(start)?, number(end)?))
}
