//! The figures that belong to a picture: the connections of every generation, and what the serving one uses.
//!
//! Made only when somebody looks, and not by the event loop: ten thousand connections take milliseconds.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use nix::unistd::{SysconfVar, sysconf};

use super::connections::{Count, Doors, Holder, count, count_all};
use super::notice::Picture;
use crate::supervisor::{Generation, SeatName};

/// What was counted.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    counts: HashMap<Generation, Count>,
    /// Of the serving generation's processes.
    pub usage: Usage,
    /// Which served when that was counted.
    pub serving: Option<Generation>,
}

/// What processes use.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Resident memory in bytes; what several have in common counts for each.
    pub memory: u64,
    /// Time on processors since they began, with that of their children that have ended.
    pub cpu: Duration,
}

/// What is to be counted.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    holders: Vec<Holder>,
    known: Vec<i32>,
    doors: Doors,
    serving: Option<Generation>,
}

impl Subject {
    /// The generations that this picture shows.
    pub fn of(picture: &Picture) -> Self {
        let (holders, known, doors) = (picture.holders.clone(), picture.known.clone(), picture.doors.clone());
        Self { holders, known, doors, serving: picture.seated(SeatName::Serving) }
    }
}

impl Figures {
    /// Counts, which may take its time.
    pub fn of(subject: &Subject) -> Self {
        let Subject { holders, known, doors, serving } = subject;
        let processes: Vec<Vec<i32>> = holders.iter().map(|holder| holder.processes(known)).collect();
        let counts = match holders.len() {
            1 => count_all(doors).map(|count| vec![count]),
            _ => count(&processes, doors),
        };
        let counts = counts.unwrap_or_else(|_| vec![Count::default(); holders.len()]);
        let is_its = |holder: &Holder| Some(holder.instance.generation) == *serving;
        let its = holders.iter().zip(&processes).filter(|(holder, _)| is_its(holder));
        let its: Vec<i32> = its.flat_map(|(_, processes)| processes).copied().collect();
        let mut of_generations: HashMap<Generation, Count> = HashMap::new();
        for (holder, count) in holders.iter().zip(counts) {
            of_generations.entry(holder.instance.generation).or_default().join(count);
        }
        Self { usage: Usage::of(&its), serving: *serving, counts: of_generations }
    }

    /// Of one generation.
    pub fn count(&self, generation: Generation) -> Count {
        self.counts.get(&generation).copied().unwrap_or_default()
    }

    /// Of all generations: open connections, and those with a request in flight.
    pub fn all(&self) -> (usize, usize) {
        self.counts.values().fold((0, 0), |(open, busy), count| (open + count.open, busy + count.busy))
    }
}

impl Usage {
    /// Of these processes, as far as they still live.
    pub fn of(processes: &[i32]) -> Self {
        let unit = |name| sysconf(name).ok().flatten().and_then(|unit| u64::try_from(unit).ok()).unwrap_or(1);
        let (page, tick) = (unit(SysconfVar::PAGE_SIZE), unit(SysconfVar::CLK_TCK));
        let each = processes.iter().filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).ok());
        let (ticks, pages) = each
            .filter_map(|stat| ticks_and_pages(&stat))
            .fold((0, 0), |(ticks, pages), one| (ticks + one.0, pages + one.1));
        Self { memory: pages * page, cpu: Duration::from_millis(ticks * 1000 / tick) }
    }
}

/// `utime`, `stime`, `cutime` and `cstime` together, and `rss` (proc_pid_stat(5)). The program's name may hold anything,
/// but no field after it holds a bracket.
fn ticks_and_pages(stat: &str) -> Option<(u64, u64)> {
    let fields: Vec<u64> =
        stat.rsplit(')').next()?.split_ascii_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
    Some((fields.get(11..15)?.iter().sum(), *fields.get(21)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_those_of_the_manual_whatever_a_program_is_called() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 2 3 4 10 20 30 40 20 0 1 0 99 1000 55 18446744073709551615";
        assert_eq!(ticks_and_pages(stat), Some((100, 55)));
        assert_eq!(ticks_and_pages("gone"), None);
    }

    #[test]
    fn this_process_uses_memory_and_one_that_is_gone_nothing() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(Usage::of(&[own]).memory > 1024 * 1024);
        assert_eq!(Usage::of(&[-1]), Usage::default());
    }
}
