//! What a zdr at rest uses.

use std::collections::BTreeSet;
use std::fs;

use crate::harness::wait_for;

#[derive(Debug)]
pub struct Use {
    pub descriptors: usize,
    /// In KiB.
    pub resident: u64,
}

impl Use {
    pub fn of(pid: i32) -> Self {
        let mut counts = BTreeSet::new();
        // One that has just asked is still there for a moment.
        let descriptors = wait_for("the descriptors to be as many as before", || {
            let number = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
            (!counts.insert(number)).then_some(number)
        });
        let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
        let resident = line.trim().trim_end_matches(" kB").parse().unwrap();
        Self { descriptors, resident }
    }
}
