//! How much memory the instances of the serving generation use, each with all its processes.
//!
//! Looks only where there is a limit, and tells once which instance is above it.

use std::fs;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::sleep;

use super::connections::Holder;
use super::counting::count_aside;
use super::figures::Usage;
use super::notice::{Notice, Owner, tell};
use crate::supervisor::{Event, Generation, Instance};

/// How often it is looked at.
const INTERVAL: Duration = Duration::from_secs(2);

/// Until an instance of this generation uses more than this many bytes.
pub(super) async fn watch(generation: Generation, limit: u64, owner: Owner) {
    loop {
        sleep(INTERVAL).await;
        let (reply, holders) = oneshot::channel();
        let _ = owner.send(Notice::Holders { generation, reply });
        let Ok((holders, known)) = holders.await else { return };
        let look = move || holders.iter().find_map(|holder| Some((holder.instance, above(holder, &known, limit)?)));
        let Ok(found) = count_aside(look).await else { return };
        if let Some((instance, used)) = found {
            return tell(&owner, too_large(instance, used, limit));
        }
    }
}

fn too_large(instance: Instance, used: u64, limit: u64) -> Event {
    let why = format!("uses {} of memory, more than the {} of --max-memory", size(used), size(limit));
    Event::TooLarge { instance, why }
}

/// What it uses, where that is more than the limit. What processes share counts once, by parts; adding that up takes the kernel
/// long, so it is asked only where the plain sum is above the limit.
fn above(holder: &Holder, known: &[i32], limit: u64) -> Option<u64> {
    let processes = holder.processes(known);
    if Usage::of(&processes).memory <= limit {
        return None;
    }
    let used = processes.iter().map(|pid| proportional(*pid)).sum();
    (used > limit).then_some(used)
}

/// `Pss` and `SwapPss` of /proc/PID/smaps_rollup (proc_pid_smaps(5)), or else what is resident.
fn proportional(pid: i32) -> u64 {
    let Ok(text) = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")) else {
        return Usage::of(&[pid]).memory;
    };
    let wanted = |line: &&str| line.starts_with("Pss:") || line.starts_with("SwapPss:");
    let kilobytes =
        text.lines().filter(wanted).filter_map(|line| line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok());
    kilobytes.sum::<u64>() * 1024
}

fn size(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_process_uses_is_known_and_that_of_one_that_is_gone_is_nothing() {
        assert!(proportional(i32::try_from(std::process::id()).unwrap()) > 1 << 20);
        assert_eq!(proportional(-1), 0);
        assert_eq!(size((1 << 20) + 1), "2 MiB");
    }
}
