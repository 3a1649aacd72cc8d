//! Whether the resource limits that were asked for can be had, before anything is started.
//!
//! The child sets them (`kernel::clone`); zdr's own are as before when this is done.

use std::fmt;
use std::fs;

use nix::sys::resource::{self, getrlimit, setrlimit};

use crate::config::{Fault, INFINITY, Limit, Resource};

/// A limit that cannot be had.
#[derive(Debug)]
pub struct LimitError {
    /// Which.
    pub limit: Limit,
    /// What cannot be exceeded.
    pub highest: u64,
    /// Who says so.
    pub by: &'static str,
}

impl fmt::Display for LimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limit, highest, by } = self;
        let amount = |number: u64| if number == INFINITY { "infinity".to_owned() } else { number.to_string() };
        let (name, asked, highest) = (limit.resource.name(), amount(limit.hard), amount(*highest));
        write!(
            f,
            "--limit {name}={asked} is more than zdr may give: {by} is {highest}; choose less, or raise that first"
        )
    }
}

impl std::error::Error for LimitError {}

/// Tries each limit that is above zdr's own hard limit: whether it may be raised is known only then, because capabilities,
/// user namespaces and security modules have a say in it.
pub fn faults(limits: &[Limit]) -> Vec<Fault> {
    let tried = limits.iter().enumerate().filter_map(|(nth, limit)| Some((nth, check(*limit).err()?)));
    tried.map(|(nth, error)| Fault::of_value("limit", nth, error.to_string())).collect()
}

fn check(limit: Limit) -> Result<(), LimitError> {
    let kind = number(limit.resource);
    // A resource that the kernel does not know is told by the child.
    let Some((soft, hard)) = getrlimit(kind).ok().filter(|(_, hard)| limit.hard > *hard) else { return Ok(()) };
    setrlimit(kind, soft, limit.hard).map_err(|_| refused(limit, hard))?;
    let _ = setrlimit(kind, soft, hard);
    Ok(())
}

/// Allows zdr itself as many open files as may be: each reader of a stream is one. Gives back the limit that was there
/// before, for the children: a server may rely on low numbers (select(2)).
pub fn open_more_files() -> Option<Limit> {
    let (soft, hard) = getrlimit(resource::Resource::RLIMIT_NOFILE).ok()?;
    setrlimit(resource::Resource::RLIMIT_NOFILE, hard.min(MOST_FILES).max(soft), hard).ok()?;
    Some(Limit { resource: Resource::Nofile, soft, hard })
}

/// Enough for every reader that is let in, and for everything else.
const MOST_FILES: u64 = 65_536;

/// How many files may be open.
pub fn open_files() -> usize {
    let soft = getrlimit(resource::Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    usize::try_from(soft).unwrap_or(usize::MAX)
}

/// Not even root may have more open files than the system allows a process (`fs.nr_open`, proc_sys_fs(5)).
fn refused(limit: Limit, hard: u64) -> LimitError {
    let most = fs::read_to_string("/proc/sys/fs/nr_open").ok().and_then(|text| text.trim().parse().ok());
    match most.filter(|most| limit.resource == Resource::Nofile && limit.hard > *most) {
        Some(highest) => LimitError { limit, highest, by: "fs.nr_open" },
        None => LimitError { limit, highest: hard, by: "its own hard limit" },
    }
}

/// The kernel's number of a resource.
pub fn number(resource: Resource) -> resource::Resource {
    use resource::Resource as Kernel;
    match resource {
        Resource::As => Kernel::RLIMIT_AS,
        Resource::Core => Kernel::RLIMIT_CORE,
        Resource::Cpu => Kernel::RLIMIT_CPU,
        Resource::Data => Kernel::RLIMIT_DATA,
        Resource::Fsize => Kernel::RLIMIT_FSIZE,
        Resource::Locks => Kernel::RLIMIT_LOCKS,
        Resource::Memlock => Kernel::RLIMIT_MEMLOCK,
        Resource::Msgqueue => Kernel::RLIMIT_MSGQUEUE,
        Resource::Nice => Kernel::RLIMIT_NICE,
        Resource::Nofile => Kernel::RLIMIT_NOFILE,
        Resource::Nproc => Kernel::RLIMIT_NPROC,
        Resource::Rss => Kernel::RLIMIT_RSS,
        Resource::Rtprio => Kernel::RLIMIT_RTPRIO,
        Resource::Rttime => Kernel::RLIMIT_RTTIME,
        Resource::Sigpending => Kernel::RLIMIT_SIGPENDING,
        Resource::Stack => Kernel::RLIMIT_STACK,
    }
}
