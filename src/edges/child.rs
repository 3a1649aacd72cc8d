//! Starting one instance: its arguments, environment and sockets, in the dialects that servers understand.
//!
//! Everything is looked up afresh at every start: the executable, the working directory, symlinks on the way.

use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::time::Duration;

use super::identity::Identity;
use super::kernel::clone::{Program, SpawnError, Spawned, Step, candidates, spawn};
use super::kernel::keeper::Keeper;
use super::limits;
use super::listeners::Lent;
use crate::address::Address;
use crate::config::Process;
use crate::supervisor::Generation;

/// Where execvp(3) looks when there is no PATH.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Variables of the supervisor above zdr, which its children must not take for theirs.
const NOT_PASSED_ON: [&str; 9] = [
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "LISTEN_FDNAMES",
    "LISTEN_FDS_FIRST_FD",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "MAINPID",
];

/// Says which socket of the journal our standard error is (sd_journal_stream_fd(3)), which is not true of an outlet.
const JOURNAL_STREAM: &str = "JOURNAL_STREAM";

/// What one instance is started with.
#[derive(Debug)]
pub struct Start<'a> {
    /// The generation it belongs to.
    pub generation: Generation,
    /// The program and its arguments, with placeholders.
    pub command: &'a [OsString],
    /// Directory and environment.
    pub process: &'a Process,
    /// Variables that were read from files for this generation.
    pub from_files: &'a [(String, String)],
    /// Who it runs as, if it was asked for.
    pub identity: Option<&'a Identity>,
    /// The control group that it is put into, if there is one.
    pub control_group: Option<BorrowedFd<'a>>,
    /// Its standard output and its standard error, or None for ours.
    pub outlets: [Option<BorrowedFd<'a>>; 2],
    /// Where it says that it is ready, if it is to.
    pub said_on: Option<SaidOn<'a>>,
    /// How often it is to say that it is alive, at the least, if that is watched.
    pub watchdog: Option<Duration>,
    /// Where its zdr can be asked.
    pub admin: &'a Path,
    /// Its sockets.
    pub lent: Vec<Lent<'a>>,
    /// Whether what it binds by itself is taken over.
    pub capture: Option<&'a Keeper>,
}

/// Where an instance says that it is ready.
#[derive(Clone, Copy, Debug)]
pub struct SaidOn<'a> {
    /// READY=1 goes there (sd_notify(3)).
    pub notify: &'a Path,
    /// The ack of einhorn's workers goes there.
    pub einhorn: &'a Path,
}

/// Why an instance could not be started.
#[derive(Debug)]
pub enum StartError {
    /// An argument or variable has a zero byte, which no program can be given.
    ZeroByte(OsString),
    /// The system refused.
    Spawn {
        /// What was to be executed.
        program: OsString,
        /// The directory it was to run in.
        directory: Option<OsString>,
        /// It was to run as somebody else than zdr.
        as_another: bool,
        /// The step and the reason.
        source: SpawnError,
    },
}

impl StartError {
    /// What a shell would exit with, where the command is at fault.
    pub fn code(&self) -> Option<i32> {
        match self {
            Self::ZeroByte(_) => Some(126),
            Self::Spawn { source, .. } => match source.step {
                Step::Execute if source.source.raw_os_error() == Some(libc::ENOENT) => Some(127),
                Step::Capture => Some(1),
                Step::Execute | Step::Directory | Step::Limits | Step::Groups | Step::User | Step::Privileges => {
                    Some(126)
                }
                Step::Clone | Step::Group | Step::Descriptors => None,
            },
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZeroByte(text) => write!(f, "`{}` has a zero byte", text.to_string_lossy()),
            Self::Spawn { directory: Some(directory), as_another, source, .. } if source.step == Step::Directory => {
                write!(f, "`{}`: {source}", directory.to_string_lossy())?;
                let way_out = "; choose one with --chdir that the user of --user may enter";
                let shut = *as_another && source.source.raw_os_error() == Some(libc::EACCES);
                f.write_str(if shut { way_out } else { "" })
            }
            Self::Spawn { program, source, .. } => {
                write!(f, "`{}`: {source}", program.to_string_lossy())
            }
        }
    }
}

impl std::error::Error for StartError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::ZeroByte(_) => None,
            Self::Spawn { source, .. } => Some(source),
        }
    }
}

impl Start<'_> {
    /// Executes it.
    pub fn spawn(&self) -> Result<Spawned, StartError> {
        let arguments: Vec<OsString> = self.command.iter().map(|argument| self.fill_in(argument)).collect();
        let environment = self.environment(std::env::vars_os());
        let variable =
            |name: &str| environment.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let path = variable("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
        let name = arguments.first().cloned().unwrap_or_default();
        let pairs = environment.iter().map(|(key, value)| {
            let mut pair = key.clone();
            pair.push("=");
            pair.push(value);
            pair
        });
        let ids = self.identity.and_then(|identity| identity.ids.as_ref());
        let program = Program {
            candidates: candidates(&name, &path),
            arguments: arguments.iter().map(|argument| c_string(argument)).collect::<Result<_, _>>()?,
            environment: pairs.map(|pair| c_string(&pair)).collect::<Result<_, _>>()?,
            directory: self.process.directory.as_ref().map(|directory| c_string(directory.as_os_str())).transpose()?,
            control_group: self.control_group,
            limits: self.process.limits.iter().map(|limit| (limits::number(limit.resource), *limit)).collect(),
            umask: self.process.umask,
            ids,
            no_new_privileges: self.process.no_new_privileges,
            descriptors: self.lent.iter().map(|lent| lent.socket).collect::<Vec<BorrowedFd<'_>>>(),
            listen_pid: !self.lent.is_empty() && !self.process.without_listen_pid,
            outlets: self.outlets,
            capture: self.capture,
        };
        spawn(&program).map_err(|source| StartError::Spawn {
            program: name,
            directory: self.process.directory.as_ref().map(|directory| directory.clone().into_os_string()),
            as_another: ids.is_some(),
            source,
        })
    }

    /// Ours, less what was meant for us, with what a login would set, what the files say, what the options say, and with
    /// the sockets in every dialect (LISTEN_PID comes last).
    fn environment(&self, ours: impl Iterator<Item = (OsString, OsString)>) -> Vec<(OsString, OsString)> {
        let of_login = self.identity.map_or(&[][..], |identity| &identity.variables);
        let of_stderr = self.outlets[1].map(|_| &JOURNAL_STREAM);
        let not_passed_on = NOT_PASSED_ON.iter().chain(of_stderr).chain(of_login.iter().map(|(name, _)| name));
        let mut environment: Vec<(OsString, OsString)> =
            ours.filter(|(key, _)| !not_passed_on.clone().any(|name| key == name) && !of_another_master(key)).collect();
        let mut set = |key: OsString, value: OsString| {
            environment.retain(|(other, _)| *other != key);
            environment.push((key, value));
        };
        for (key, value) in of_login.iter().filter_map(|(key, value)| Some((key, value.clone()?))) {
            set(key.into(), value);
        }
        for (key, value) in self.from_files {
            set(key.into(), value.into());
        }
        for (key, value) in &self.process.environment {
            set(key.clone(), self.fill_in(value));
        }
        if !self.lent.is_empty() {
            let names: Vec<&str> = self.lent.iter().map(|lent| lent.listener.name.as_str()).collect();
            set("LISTEN_FDS".into(), self.lent.len().to_string().into());
            set("LISTEN_FDNAMES".into(), names.join(":").into());
            set("SERVER_STARTER_PORT".into(), self.server_starter_port().into());
            set("SERVER_STARTER_GENERATION".into(), self.generation.to_string().into());
            set("EINHORN_FD_COUNT".into(), self.lent.len().to_string().into());
            for (position, lent) in self.lent.iter().enumerate() {
                set(format!("EINHORN_FD_{position}").into(), (3 + position).to_string().into());
                set(format!("EINHORN_FD_FAMILY_{position}").into(), family(&lent.listener.address).into());
            }
            let numbers: Vec<String> = (3..3 + self.lent.len()).map(|number| number.to_string()).collect();
            set("EINHORN_FDS".into(), numbers.join(" ").into());
            // Its clients compare it with getppid(2) and take themselves for strangers where it differs.
            set("EINHORN_MASTER_PID".into(), std::process::id().to_string().into());
        }
        if let Some(SaidOn { notify, einhorn }) = self.said_on {
            set("NOTIFY_SOCKET".into(), notify.as_os_str().to_owned());
            if !self.lent.is_empty() {
                set("EINHORN_SOCK_PATH".into(), einhorn.as_os_str().to_owned());
            }
        }
        // WATCHDOG_PID may be left out, and then every process of the instance may send it (sd_watchdog_enabled(3)).
        if let Some(time) = self.watchdog {
            set("WATCHDOG_USEC".into(), time.as_micros().to_string().into());
        }
        set("ZDR_GENERATION".into(), self.generation.to_string().into());
        set("ZDR_INSTANCE".into(), "1".into());
        set("ZDR_ADMIN".into(), self.admin.as_os_str().to_owned());
        environment
    }

    /// `host:port=fd;/path=fd`, as Server::Starter writes it.
    fn server_starter_port(&self) -> String {
        let entry = |(position, lent): (usize, &Lent<'_>)| {
            let address = match &lent.listener.address {
                Address::Tcp(socket) | Address::Udp(socket) => socket.to_string(),
                Address::Unix(path) => path.display().to_string(),
                Address::Abstract(name) => format!("@{name}"),
            };
            format!("{address}={}", 3 + position)
        };
        self.lent.iter().enumerate().map(entry).collect::<Vec<_>>().join(";")
    }

    /// Fills in the placeholders; any other brace text is left alone.
    fn fill_in(&self, text: &OsStr) -> OsString {
        let mut filled = Vec::new();
        let mut rest = text.as_bytes();
        while let Some(open) = rest.iter().position(|byte| *byte == b'{') {
            filled.extend_from_slice(&rest[..open]);
            rest = &rest[open..];
            let close = rest.iter().position(|byte| *byte == b'}');
            let meant = close.and_then(|close| self.placeholder(std::str::from_utf8(&rest[1..close]).ok()?));
            let used = if meant.is_some() { close.map_or(1, |close| close + 1) } else { 1 };
            filled.extend_from_slice(meant.as_deref().map_or(&rest[..1], str::as_bytes));
            rest = &rest[used..];
        }
        filled.extend_from_slice(rest);
        OsString::from_vec(filled)
    }

    fn placeholder(&self, name: &str) -> Option<String> {
        let (what, of) = name.split_once(':').map_or((name, None), |(what, of)| (what, Some(of)));
        let called = |lent: &&(usize, &Lent<'_>)| of.is_none_or(|of| lent.1.listener.name == of);
        let lent: Vec<(usize, &Lent<'_>)> = self.lent.iter().enumerate().collect();
        let lent = lent.iter().find(called);
        match (what, of) {
            ("generation", None) => Some(self.generation.to_string()),
            ("instance", None) => Some("1".to_owned()),
            ("fd", _) => lent.map(|(position, _)| (3 + position).to_string()),
            ("port", _) => {
                lent.and_then(|(_, lent)| lent.listener.address.socket()).map(|socket| socket.port().to_string())
            }
            ("address", _) => lent.map(|(_, lent)| lent.listener.address.to_string()),
            _ => None,
        }
    }
}

/// What Server::Starter or einhorn told zdr is not true of its children: they have no descriptor of those.
fn of_another_master(key: &OsStr) -> bool {
    ["EINHORN_", "SERVER_STARTER_"].iter().any(|prefix| key.as_bytes().starts_with(prefix.as_bytes()))
}

/// As the clients of einhorn that need it write it; without it they take every socket for IPv4.
fn family(address: &Address) -> &'static str {
    match address {
        Address::Tcp(socket) | Address::Udp(socket) if socket.is_ipv4() => "AF_INET",
        Address::Tcp(_) | Address::Udp(_) => "AF_INET6",
        Address::Unix(_) | Address::Abstract(_) => "AF_UNIX",
    }
}

fn c_string(text: &OsStr) -> Result<CString, StartError> {
    CString::new(text.as_bytes()).map_err(|_| StartError::ZeroByte(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::address::Listener;

    #[test]
    fn placeholders_are_filled_in_and_other_braces_are_left_alone() {
        let listeners =
            [Listener::parse("web=127.0.0.1:80", "").unwrap(), Listener::parse("api=[::1]:81", "").unwrap()];
        let file = std::fs::File::open("/dev/null").unwrap();
        let lent = listeners.iter().map(|listener| Lent { listener, socket: file.as_fd() }).collect();
        let identity = Identity {
            ids: None,
            variables: vec![("HOME", Some("/login".into())), ("SHELL", None), ("USER", Some("u".into()))],
        };
        let start = Start {
            generation: Generation(7),
            command: &[],
            process: &Process { environment: vec![("B".into(), "option".into())], ..Process::default() },
            from_files: &[("A", "file"), ("B", "file"), ("HOME", "/file")].map(|(k, v)| (k.to_owned(), v.to_owned())),
            identity: Some(&identity),
            control_group: None,
            outlets: [None; 2],
            said_on: Some(SaidOn { notify: Path::new("/n"), einhorn: Path::new("/e") }),
            watchdog: Some(Duration::from_millis(1500)),
            admin: Path::new("/a"),
            lent,
            capture: None,
        };
        for (given, filled) in [
            ("--fd={fd}", "--fd=3"),
            ("{fd:api}/{port:api}/{port}", "4/81/80"),
            ("{address:api} {address}", "[::1]:81 127.0.0.1:80"),
            ("{generation}.{instance}", "7.1"),
            ("{fd:none} {x} {", "{fd:none} {x} {"),
            ("{{fd}}", "{3}"),
            ("{\"a\": {port}}", "{\"a\": 80}"),
        ] {
            assert_eq!(start.fill_in(OsStr::new(given)), filled);
        }
        assert_eq!(start.server_starter_port(), "127.0.0.1:80=3;[::1]:81=4");
        let parent = [
            ("NOTIFY_SOCKET", "/systemd"),
            ("LISTEN_PID", "1"),
            ("WATCHDOG_PID", "1"),
            ("HOME", "/h"),
            ("SHELL", "/s"),
            ("PATH", "/p"),
            ("EINHORN_SOCK_FD", "9"),
        ];
        let parent = parent.map(|(k, v)| (k.into(), v.into()));
        let environment = start.environment(parent.into_iter());
        let value =
            |name: &str| environment.iter().find(|(key, _)| key == name).map(|(_, value)| value.to_str().unwrap());
        assert_eq!(value("LISTEN_FDNAMES"), Some("web:api"));
        assert_eq!(value("NOTIFY_SOCKET"), Some("/n"));
        assert_eq!(value("LISTEN_PID"), None);
        assert_eq!(value("PATH"), Some("/p"));
        // A login's, then the files', then the options'.
        assert_eq!((value("USER"), value("SHELL"), value("HOME")), (Some("u"), None, Some("/file")));
        assert_eq!((value("A"), value("B")), (Some("file"), Some("option")));
        assert_eq!(value("EINHORN_SOCK_PATH"), Some("/e"));
        assert_eq!((value("WATCHDOG_USEC"), value("WATCHDOG_PID")), (Some("1500000"), None));
        assert_eq!(value("EINHORN_SOCK_FD"), None);
        assert_eq!(value("EINHORN_FDS"), Some("3 4"));
        assert_eq!((value("EINHORN_FD_FAMILY_0"), value("EINHORN_FD_FAMILY_1")), (Some("AF_INET"), Some("AF_INET6")));
    }
}
