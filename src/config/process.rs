//! How each generation is started: its directory, environment, user, limits and rights, as plain values.
//!
//! Knows no user database and no file system: names are looked up and files are read by the edges.

use std::ffi::OsString;
use std::path::PathBuf;

pub mod environment_text;

/// How each generation is started.
#[derive(Clone, Debug, Default)]
pub struct Process {
    /// Working directory, resolved afresh at every start.
    pub directory: Option<PathBuf>,
    /// Added to the environment; later entries win.
    pub environment: Vec<(OsString, OsString)>,
    /// LISTEN_PID is left out, because the server is not the process that is started.
    pub without_listen_pid: bool,
    /// Files with variables, read afresh at every start; later files win over earlier ones, `environment` over all.
    pub environment_files: Vec<EnvironmentFile>,
    /// The user it runs as, by name or number; None for ours.
    pub user: Option<String>,
    /// Its primary group, by name or number; None for the user's.
    pub group: Option<String>,
    /// Which permissions its new files never have (umask(2)); None for ours.
    pub umask: Option<u32>,
    /// Its resource limits; where one is named twice, the later wins.
    pub limits: Vec<Limit>,
    /// Set-uid programs give it no rights (`PR_SET_NO_NEW_PRIVS`, prctl(2)).
    pub no_new_privileges: bool,
}

/// A file with variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvironmentFile {
    /// Where it is.
    pub path: PathBuf,
    /// It may be missing: written with `-` before the path, as in `EnvironmentFile=` of systemd.exec(5).
    pub optional: bool,
}

impl EnvironmentFile {
    /// Reads `PATH` or `-PATH`.
    pub fn parse(given: &str) -> Result<Self, String> {
        let (path, optional) = given.strip_prefix('-').map_or((given, false), |path| (path, true));
        match path {
            "" => Err(format!("`{given}` is no file; write a path, or one with `-` before it if it may be missing")),
            path => Ok(Self { path: path.into(), optional }),
        }
    }
}

/// A limit on what a process may use (setrlimit(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// On what.
    pub resource: Resource,
    /// What holds for it.
    pub soft: u64,
    /// How far it may raise that by itself.
    pub hard: u64,
}

/// No limit, as the kernel says it (`RLIM64_INFINITY`, linux/resource.h).
pub const INFINITY: u64 = u64::MAX;

/// What a limit is on, called as in limits.conf(5) and setrlimit(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resource {
    /// Address space, in bytes.
    As,
    /// Core files, in bytes.
    Core,
    /// Processor time, in seconds.
    Cpu,
    /// Data segment, in bytes.
    Data,
    /// Files that it writes, in bytes.
    Fsize,
    /// File locks; later kernels take no notice.
    Locks,
    /// Memory kept from being swapped, in bytes.
    Memlock,
    /// POSIX message queues of its user, in bytes.
    Msgqueue,
    /// Ceiling of its nice value: 20 minus the value.
    Nice,
    /// Open files.
    Nofile,
    /// Processes of its user.
    Nproc,
    /// Resident memory; later kernels take no notice.
    Rss,
    /// Ceiling of its real-time priority.
    Rtprio,
    /// Real-time processor time without a pause, in microseconds.
    Rttime,
    /// Queued signals of its user.
    Sigpending,
    /// Stack of the first thread, in bytes.
    Stack,
}

impl Resource {
    const ALL: [(&'static str, Self); 16] = [
        ("as", Self::As),
        ("core", Self::Core),
        ("cpu", Self::Cpu),
        ("data", Self::Data),
        ("fsize", Self::Fsize),
        ("locks", Self::Locks),
        ("memlock", Self::Memlock),
        ("msgqueue", Self::Msgqueue),
        ("nice", Self::Nice),
        ("nofile", Self::Nofile),
        ("nproc", Self::Nproc),
        ("rss", Self::Rss),
        ("rtprio", Self::Rtprio),
        ("rttime", Self::Rttime),
        ("sigpending", Self::Sigpending),
        ("stack", Self::Stack),
    ];

    /// What it is called.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, resource)| *resource == self).map_or("", |(name, _)| name)
    }

    fn is_in_bytes(self) -> bool {
        matches!(
            self,
            Self::As | Self::Core | Self::Data | Self::Fsize | Self::Memlock | Self::Msgqueue | Self::Rss | Self::Stack
        )
    }
}

impl Limit {
    /// Reads `NAME=N`, for both, or `NAME=SOFT:HARD`.
    pub fn parse(given: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("`{given}` is no limit: {why}");
        let Some((name, values)) = given.split_once('=') else {
            return Err(wrong("write NAME=N or NAME=N:HARD, for example nofile=65536"));
        };
        let lower = name.to_ascii_lowercase();
        let Some((_, resource)) = Resource::ALL.into_iter().find(|(known, _)| *known == lower) else {
            let names: Vec<&str> = Resource::ALL.iter().map(|(name, _)| *name).collect();
            return Err(wrong(&format!("`{name}` is not one of {}", names.join(", "))));
        };
        let amount = |text: &str| {
            amount(text, resource.is_in_bytes())
                .ok_or_else(|| wrong(&format!("`{text}` is no whole number, and not `infinity`")))
        };
        let (soft, hard) = values.split_once(':').unwrap_or((values, values));
        let (soft, hard) = (amount(soft)?, amount(hard)?);
        if soft > hard {
            return Err(wrong("the first number is above the second, which is the most that it can be raised to"));
        }
        Ok(Self { resource, soft, hard })
    }
}

/// A whole number; sizes may have K, M, G or T behind them, each 1024 times the one before.
pub(super) fn amount(text: &str, in_bytes: bool) -> Option<u64> {
    if matches!(text, "infinity" | "unlimited") {
        return Some(INFINITY);
    }
    let power = text.chars().last().filter(|_| in_bytes).and_then(|unit| "KMGT".find(unit.to_ascii_uppercase()));
    let digits = if power.is_some() { &text[..text.len() - 1] } else { text };
    let unit = power.map_or(Some(1), |power| 1024_u64.checked_pow(u32::try_from(power).ok()? + 1))?;
    // `parse` would take a plus sign.
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse::<u64>().ok().filter(|_| plain)?.checked_mul(unit)
}

/// Reads a mask as umask(1) does: `0027`.
pub fn umask(given: &str) -> Result<u32, String> {
    let plain = given.bytes().all(|byte| byte.is_ascii_digit());
    let mask = u32::from_str_radix(given, 8).ok().filter(|mask| plain && *mask <= 0o777);
    mask.ok_or_else(|| format!("`{given}` is no mask; write up to 0777 in octal, for example 0027"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_one_number_or_two() {
        let limit = |resource, soft, hard| Ok(Limit { resource, soft, hard });
        assert_eq!(Limit::parse("nofile=1024"), limit(Resource::Nofile, 1024, 1024));
        assert_eq!(Limit::parse("nofile=1024:4096"), limit(Resource::Nofile, 1024, 4096));
        assert_eq!(Limit::parse("CORE=0:infinity"), limit(Resource::Core, 0, INFINITY));
        assert_eq!(Limit::parse("as=2G"), limit(Resource::As, 2 << 30, 2 << 30));
        assert_eq!(Limit::parse("memlock=64k:unlimited"), limit(Resource::Memlock, 64 << 10, INFINITY));
        for (name, resource) in Resource::ALL {
            assert_eq!(Limit::parse(&format!("{name}=1")), limit(resource, 1, 1));
            assert_eq!(resource.name(), name);
        }
    }

    #[test]
    fn a_limit_that_means_nothing_is_refused_with_the_way_out() {
        for (given, words) in [
            ("", "write NAME=N"),
            ("nofile", "write NAME=N"),
            ("files=1", "`files` is not one of as, core,"),
            ("nofile=", "`` is no whole number"),
            ("nofile=1:", "`` is no whole number"),
            ("nofile=-1", "`-1` is no whole number"),
            ("nofile=+1", "`+1` is no whole number"),
            ("nofile=1K", "`1K` is no whole number"),
            ("as=99999999999T", "is no whole number"),
            ("as=1é", "is no whole number"),
            ("nofile=2:1", "above the second"),
        ] {
            let error = Limit::parse(given).unwrap_err();
            assert!(error.starts_with(&format!("`{given}` is no limit: ")) && error.contains(words), "{error}");
        }
    }

    #[test]
    fn a_mask_is_octal() {
        assert_eq!(umask("0027"), Ok(0o27));
        assert_eq!(umask("77"), Ok(0o77));
        for given in ["", "8", "1777", "+7", "u=rwx", "0o27"] {
            assert!(umask(given).is_err(), "{given}");
        }
    }

    #[test]
    fn a_file_with_a_dash_may_be_missing() {
        assert_eq!(EnvironmentFile::parse("-a"), Ok(EnvironmentFile { path: "a".into(), optional: true }));
        assert_eq!(EnvironmentFile::parse("a-"), Ok(EnvironmentFile { path: "a-".into(), optional: false }));
        assert!(EnvironmentFile::parse("-").is_err() && EnvironmentFile::parse("").is_err());
    }
}
