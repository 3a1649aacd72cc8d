//! Starting one instance: its arguments, environment and sockets, in the dialects that servers understand.
//!
//! At the first start of a release everything is looked up afresh: the executable, the working directory, symlinks on the
//! way. Started again, it is what it was.

use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::mem;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::warn;

use super::environment_files;
use super::identity::Identity;
use super::kernel::clone::{Program, SpawnError, Spawned, Step, candidates, spawn};
use super::kernel::keeper::Keeper;
use super::limits;
use super::listeners::Lent;
use super::release::{self, Release};
use crate::address::Address;
use crate::config::Process;
use crate::supervisor::Instance;

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
    /// Which one it is.
    pub instance: Instance,
    /// Directory and environment.
    pub process: &'a Process,
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
    /// The working directory of a release exists no more.
    Gone(PathBuf),
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
            Self::ZeroByte(_) | Self::Gone(_) => Some(126),
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
            Self::Gone(path) => write!(f, "the release directory {} is gone", path.display()),
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
            Self::ZeroByte(_) | Self::Gone(_) => None,
            Self::Spawn { source, .. } => Some(source),
        }
    }
}

/// A program with all that it is executed with.
struct Execution<'a> {
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    /// Paths of files to execute, the first that exists.
    candidates: Vec<CString>,
    /// What is executed where there is none.
    executable: Option<BorrowedFd<'a>>,
    /// The working directory by name.
    directory: Option<&'a Path>,
    /// The same, held open.
    held_directory: Option<BorrowedFd<'a>>,
}

impl Execution<'_> {
    fn name(&self) -> &OsStr {
        self.arguments.first().map(OsString::as_os_str).unwrap_or_default()
    }
}

impl Start<'_> {
    /// Starts a release by the names in its command as they lead now, and has it remember where they led.
    pub fn first(&self, release: &mut Release) -> Result<Spawned, StartError> {
        let execution = Execution {
            directory: self.process.directory.as_deref(),
            held_directory: release.directory(),
            ..self.execution(release.command(), release.variables())
        };
        let mut opened = release.open(execution.name(), &execution.candidates);
        let spawned = self.execute(&execution)?;
        let executed = spawned.executed.and_then(|position| opened.get_mut(position)?.take());
        let arguments = execution.arguments;
        release.started(executed, arguments.get(1..).unwrap_or_default());
        Ok(spawned)
    }

    /// Starts a release as it was the first time.
    pub fn again(&self, release: &Release) -> Result<Spawned, StartError> {
        if let Some(path) = release.gone() {
            return Err(StartError::Gone(path.to_owned()));
        }
        if let Some(warning) = release.changed_in_place() {
            warn!("{warning}");
        }
        let mut execution = self.execution(release.command(), release.variables());
        execution.held_directory = release.directory();
        execution.directory = self.process.directory.as_deref().filter(|_| execution.held_directory.is_none());
        for argument in execution.arguments.iter_mut().skip(1) {
            *argument = release.argument(mem::take(argument));
        }
        if let Some(release::Program { called, path, file }) = release.program() {
            execution.candidates = path.iter().map(|path| c_string(path.as_os_str())).collect::<Result<_, _>>()?;
            execution.executable = Some(file);
            execution.arguments[0] = called;
        }
        self.execute(&execution)
    }

    /// Runs another command beside a release, with its variables and in its directory; without one, with what is there now.
    pub fn errand(&self, command: &[OsString], release: Option<&Release>) -> Result<Spawned, StartError> {
        let read_now = match release {
            Some(_) => Vec::new(),
            None => environment_files::read(&self.process.environment_files).unwrap_or_default(),
        };
        let mut execution = self.execution(command, release.map_or(&read_now, Release::variables));
        execution.held_directory = release.and_then(Release::directory);
        execution.directory = self.process.directory.as_deref().filter(|_| execution.held_directory.is_none());
        self.execute(&execution)
    }

    /// The command as it is written, in no directory yet.
    fn execution(&self, command: &[OsString], from_files: &[(String, String)]) -> Execution<'static> {
        let arguments: Vec<OsString> = command.iter().map(|argument| self.fill_in(argument)).collect();
        let environment = self.environment(std::env::vars_os(), from_files);
        let name = arguments.first().map(OsString::as_os_str).unwrap_or_default();
        let candidates = candidates(name, path_of(&environment));
        Execution { candidates, arguments, environment, executable: None, directory: None, held_directory: None }
    }

    fn execute(&self, execution: &Execution<'_>) -> Result<Spawned, StartError> {
        let pairs = execution.environment.iter().map(|(key, value)| {
            let mut pair = key.clone();
            pair.push("=");
            pair.push(value);
            pair
        });
        let ids = self.identity.and_then(|identity| identity.ids.as_ref());
        let program = Program {
            candidates: execution.candidates.clone(),
            arguments: execution.arguments.iter().map(|argument| c_string(argument)).collect::<Result<_, _>>()?,
            environment: pairs.map(|pair| c_string(&pair)).collect::<Result<_, _>>()?,
            directory: execution.directory.map(|directory| c_string(directory.as_os_str())).transpose()?,
            held_directory: execution.held_directory,
            held_executable: execution.executable,
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
            program: execution.name().to_owned(),
            directory: self.process.directory.as_ref().map(|directory| directory.clone().into_os_string()),
            as_another: ids.is_some(),
            source,
        })
    }

    /// Ours, less what was meant for us, with what a login would set, what the files say, what the options say, and with
    /// the sockets in every dialect (LISTEN_PID comes last).
    pub(super) fn environment(
        &self,
        ours: impl Iterator<Item = (OsString, OsString)>,
        from_files: &[(String, String)],
    ) -> Vec<(OsString, OsString)> {
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
        for (key, value) in from_files {
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
            set("SERVER_STARTER_GENERATION".into(), self.instance.generation.to_string().into());
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
        set("ZDR_GENERATION".into(), self.instance.generation.to_string().into());
        set("ZDR_INSTANCE".into(), self.instance.number.to_string().into());
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
    pub(super) fn fill_in(&self, text: &OsStr) -> OsString {
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
            ("generation", None) => Some(self.instance.generation.to_string()),
            ("instance", None) => Some(self.instance.number.to_string()),
            ("fd", _) => lent.map(|(position, _)| (3 + position).to_string()),
            ("port", _) => {
                lent.and_then(|(_, lent)| lent.listener.address.socket()).map(|socket| socket.port().to_string())
            }
            ("address", _) => lent.map(|(_, lent)| lent.listener.address.to_string()),
            _ => None,
        }
    }
}

/// Where programs are looked for.
pub(super) fn path_of(environment: &[(OsString, OsString)]) -> &OsStr {
    let path = environment.iter().rev().find(|(key, _)| key == "PATH");
    path.map_or(OsStr::new(DEFAULT_PATH), |(_, path)| path)
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
mod tests;
