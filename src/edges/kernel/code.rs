//! The program's own code in memory: what was needed once need not stay.
//!
//! Never touches anything but pages that are as they are in the file, because nothing can have written to them.

use std::fs;

/// Lets go of the pages of code and constants, which come back from the page cache as they are needed (madvise(2)).
///
/// Most of it is for starting, stopping and answering, and not run at rest. The kernel maps sixteen pages around each that is
/// touched (`do_fault_around` in mm/memory.c), so that otherwise nearly all of it is resident after a while.
pub fn let_go() {
    let Ok(maps) = fs::read_to_string("/proc/self/maps") else { return };
    for (start, length) in maps.lines().filter_map(as_in_the_file) {
        // SAFETY: nobody can have written to these pages: they are not writable, and the linker keeps what is relocated elsewhere.
        // So what comes back is what was there. (But for the breakpoints of a debugger, which are lost.)
        unsafe { libc::madvise(std::ptr::with_exposed_provenance_mut(start), length, libc::MADV_DONTNEED) };
    }
}

/// The start and length of a line such as `55d0-55e0 r-xp 00001000 fe:00 4711 /usr/bin/zdr` (proc_pid_maps(5)). What can only be
/// read is only certain to be constants where it is the beginning of the file: further on it may have been relocated, and then
/// protected (`PT_GNU_RELRO`, ld.so(8)).
fn as_in_the_file(line: &str) -> Option<(usize, usize)> {
    let mut fields = line.split_ascii_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let (permissions, offset) = (fields.next()?, fields.next()?);
    let is_of_a_file = fields.nth(2)?.starts_with('/');
    let number = |text| usize::from_str_radix(text, 16).ok();
    let (start, end) = (number(start)?, number(end)?);
    let unwritten = permissions == "r-xp" || permissions == "r--p" && number(offset) == Some(0);
    (unwritten && is_of_a_file && start < end).then(|| (start, end - start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nothing_can_have_written_to_is_let_go() {
        for whole in ["r-xp 00001000", "r--p 00000000"] {
            let line = format!("1000-3000 {whole} fe:00 4711   /usr/bin/zdr");
            assert_eq!(as_in_the_file(&line), Some((0x1000, 0x2000)), "{line}");
        }
        for other in [
            "1000-3000 r--p 00001000 fe:00 4711   /usr/bin/zdr",
            "1000-3000 rw-p 00001000 fe:00 4711   /usr/bin/zdr",
            "1000-3000 rwxp 00001000 fe:00 4711   /usr/bin/zdr",
            "1000-3000 r-xp 00000000 00:00 0      [vdso]",
            "1000-3000 r-xp 00000000 00:00 0",
            "",
        ] {
            assert_eq!(as_in_the_file(other), None, "{other}");
        }
    }

    #[test]
    fn the_program_goes_on_without_the_pages_that_were_let_go() {
        let mut text = String::new();
        for round in 0..100 {
            let_go();
            text = format!("{text}{round}");
        }
        assert!(text.ends_with("99"));
    }
}
