//! What zdr's own process uses, under the names that the client libraries of Prometheus share.
//!
//! Asks only the kernel, and leaves out what it does not say.

use std::fs;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

/// What zdr's own process uses.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Process {
    pub(super) cpu_seconds: Option<f64>,
    pub(super) resident_bytes: Option<u64>,
    pub(super) virtual_bytes: Option<u64>,
    pub(super) open_descriptors: Option<u64>,
    pub(super) max_descriptors: Option<u64>,
    /// In Unix time.
    pub(super) started_at: Option<f64>,
}

impl Process {
    /// At this moment.
    pub(super) fn now() -> Self {
        let read = |name: &str| fs::read_to_string(format!("/proc/{name}")).unwrap_or_default();
        Self {
            open_descriptors: fs::read_dir("/proc/self/fd").ok().map(|entries| count(entries.count())),
            max_descriptors: limit(&read("self/limits")),
            ..Self::told(&read("self/stat"), &read("stat"))
        }
    }

    /// By the files `/proc/self/stat` and `/proc/stat` (proc_pid_stat(5), proc_stat(5)).
    fn told(own: &str, of_system: &str) -> Self {
        let fields: Vec<&str> = own.rsplit(')').next().unwrap_or_default().split_ascii_whitespace().collect();
        // The first of them is the third of the manual.
        let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
        let time = |ticks: u64| Duration::from_millis(ticks * 1000 / unit(SysconfVar::CLK_TCK));
        let boot = of_system.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<u64>().ok());
        Self {
            cpu_seconds: field(14).zip(field(15)).map(|(user, system)| time(user + system).as_secs_f64()),
            virtual_bytes: field(23),
            resident_bytes: field(24).map(|pages| pages * unit(SysconfVar::PAGE_SIZE)),
            started_at: boot
                .zip(field(22))
                .map(|(boot, ticks)| (Duration::from_secs(boot) + time(ticks)).as_secs_f64()),
            ..Self::default()
        }
    }
}

/// Without the descriptor by which they are counted.
fn count(entries: usize) -> u64 {
    u64::try_from(entries).unwrap_or_default().saturating_sub(1)
}

fn unit(name: SysconfVar) -> u64 {
    sysconf(name).ok().flatten().and_then(|unit| u64::try_from(unit).ok()).unwrap_or(1)
}

/// The soft limit of open files.
fn limit(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_those_of_the_manual_whatever_zdr_is_called() {
        let own = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 100 20 30 40 20 0 1 0 200 9000 2 18446744073709551615";
        let time = |ticks: u64| Duration::from_millis(ticks * 1000 / unit(SysconfVar::CLK_TCK)).as_secs_f64();
        let process = Process::told(own, "cpu 1\nbtime 1700000000\n");
        assert_eq!(process.cpu_seconds, Some(time(120)));
        assert_eq!(
            (process.virtual_bytes, process.resident_bytes),
            (Some(9000), Some(2 * unit(SysconfVar::PAGE_SIZE)))
        );
        assert_eq!(process.started_at, Some(1_700_000_000.0 + time(200)));
        assert_eq!(Process::told("gone", ""), Process::default());
    }

    #[test]
    fn this_process_began_before_now_and_has_files_open_below_its_limit() {
        let process = Process::now();
        assert!(process.started_at > Some(1_700_000_000.0));
        assert!(
            process.open_descriptors > Some(2) && process.open_descriptors < process.max_descriptors,
            "{process:?}"
        );
        assert!(
            process.resident_bytes > Some(100_000) && process.resident_bytes < process.virtual_bytes,
            "{process:?}"
        );
    }
}
