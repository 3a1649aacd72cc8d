//! A real `zdr run` in a place of its own, asked only as its users ask it: by its command line. However the rehearsal
//! ends, it leaves no process behind.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, ExitStatus, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::{Plan, RehearseError};

/// Every process of a rehearsal carries the rehearsal's directory in this variable, and is found by it.
const MARK: &str = "ZDR_REHEARSAL";

/// The same as `NoSupervisor` among zdr's exit codes.
const NO_SUPERVISOR: i32 = 4;

/// A status that takes longer will not come.
const PROMPT: Duration = Duration::from_secs(5);

/// How long zdr may take to stop; a drain takes 30 s at most unless the user says otherwise.
const STOPPED_WITHIN: Duration = Duration::from_secs(45);

/// So many lines of the log say what went on before a failure.
const LOG_LINES: usize = 12;

/// A running supervisor.
#[derive(Debug)]
pub(super) struct Supervised {
    zdr: PathBuf,
    child: Child,
    place: Place,
}

/// What `zdr status` said, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) address: SocketAddr,
    pub(super) serving: u64,
    pub(super) others: usize,
}

/// The outcome of a reload.
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) code: i32,
    /// The last line that it said about it.
    pub(super) reason: String,
    pub(super) after: Duration,
}

/// How the supervisor ended.
#[derive(Debug, Default)]
pub(super) struct End {
    /// It had to be killed.
    pub(super) killed: bool,
    /// Processes that outlived it, until they were killed as well.
    pub(super) left_over: Vec<i32>,
    /// The end of its log.
    pub(super) log: Vec<String>,
}

impl Supervised {
    pub(super) fn start(plan: &Plan) -> Result<Self, RehearseError> {
        let place = Place::make()?;
        let log = File::create(place.log()).map_err(|source| place.unusable(source))?;
        let same = log.try_clone().map_err(|source| place.unusable(source))?;
        let child = Command::new(&plan.zdr)
            .args(plan.run_arguments(&place.admin()))
            .env(MARK, &place.path)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(same)
            .spawn()
            .map_err(|source| RehearseError::Spawn { zdr: plan.zdr.clone(), source })?;
        Ok(Self { zdr: plan.zdr.clone(), child, place })
    }

    pub(super) fn wait_until_it_serves(&mut self, plan: &Plan) -> Result<(), RehearseError> {
        let within = plan.ready_within;
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = format!("{}ms", left.as_millis());
            let answer = self.ask("wait", &["--timeout".as_ref(), timeout.as_ref()], left + PROMPT)?;
            match answer.status.code() {
                Some(0) => return Ok(()),
                // It may not have opened its socket yet.
                Some(NO_SUPERVISOR) if Instant::now() < deadline => {
                    self.watch(Duration::from_millis(20))?;
                }
                _ => {
                    // Where zdr has given up, its own last words say more than those of who waited for it.
                    self.watch(Duration::from_millis(200))?;
                    let reason = self.reason_of(&answer);
                    return Err(RehearseError::NeverReady { within, reason, hint: plan.hint() });
                }
            }
        }
    }

    pub(super) fn status(&mut self) -> Result<Status, RehearseError> {
        let answer = self.ask("status", &["--json".as_ref()], PROMPT)?;
        if !answer.status.success() {
            return Err(RehearseError::Status { cause: self.reason_of(&answer) });
        }
        parse_status(&answer.stdout)
    }

    pub(super) fn reload(
        &mut self,
        command: Option<&[OsString]>,
        ready_within: Duration,
    ) -> Result<Verdict, RehearseError> {
        let asked = Instant::now();
        let mut arguments: Vec<&OsStr> = Vec::new();
        if let Some(command) = command {
            arguments.push("--".as_ref());
            arguments.extend(command.iter().map(OsString::as_os_str));
        }
        let answer = self.ask("reload", &arguments, ready_within + PROMPT)?;
        let after = asked.elapsed();
        Ok(Verdict { code: answer.status.code().unwrap_or(-1), reason: last_line(&answer.stderr), after })
    }

    pub(super) fn wait_until_drained(&mut self, within: Duration) -> Result<(), RehearseError> {
        let deadline = Instant::now() + within;
        while self.status()?.others > 0 && Instant::now() < deadline {
            self.watch(Duration::from_millis(50))?;
        }
        Ok(())
    }

    /// Lets time pass, as long as zdr lives.
    pub(super) fn watch(&mut self, time: Duration) -> Result<(), RehearseError> {
        match wait_for(time, || self.ended()) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }

    pub(super) fn stop(mut self) -> End {
        let killed = self.end(STOPPED_WITHIN);
        // The kernel may still be taking apart what zdr has reaped.
        let _ = wait_for(Duration::from_secs(2), || self.place.processes().is_empty().then_some(()));
        End { killed, left_over: self.place.kill_all(), log: self.last_lines() }
    }

    /// Asks for the end and insists on it in time; true when it had to.
    fn end(&mut self, within: Duration) -> bool {
        if let Ok(None) = self.child.try_wait() {
            terminate(&self.child);
        }
        let ended = wait_for(within, || self.child.try_wait().transpose()).is_some();
        if !ended {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        !ended
    }

    /// Runs a client command, for as long as zdr lives and the time is not over.
    fn ask(&mut self, request: &str, arguments: &[&OsStr], within: Duration) -> Result<Output, RehearseError> {
        let mut client = Command::new(&self.zdr)
            .arg(request)
            .arg("--admin")
            .arg(self.place.admin())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| RehearseError::Spawn { zdr: self.zdr.clone(), source })?;
        let outcome = wait_for(within, || match client.try_wait() {
            Ok(None) => self.ended().map(Err),
            _ => Some(Ok(())),
        });
        let hung = || RehearseError::Hung { request: request.to_owned(), within };
        match outcome.unwrap_or_else(|| Err(hung())) {
            Ok(()) => client.wait_with_output().map_err(|_| hung()),
            Err(error) => {
                let _ = client.kill();
                let _ = client.wait();
                Err(error)
            }
        }
    }

    fn ended(&mut self) -> Option<RehearseError> {
        let status = self.child.try_wait().ok().flatten()?;
        let last_words = self.last_lines().pop().unwrap_or_else(|| "none".to_owned());
        Some(RehearseError::Ended { how: how(status), last_words })
    }

    /// What the client said, or else what zdr said.
    fn reason_of(&self, answer: &Output) -> String {
        let said = last_line(&answer.stderr);
        if said.is_empty() { self.last_lines().pop().unwrap_or_default() } else { said }
    }

    fn last_lines(&self) -> Vec<String> {
        let log = fs::read(self.place.log()).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<_> = log.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].to_vec()
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.end(PROMPT);
        self.place.kill_all();
    }
}

/// The private directory of a rehearsal.
#[derive(Debug)]
struct Place {
    path: PathBuf,
}

impl Place {
    fn make() -> Result<Self, RehearseError> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let name = format!("zdr-rehearsal-{}-{}", process::id(), now.subsec_nanos());
        let place = Self { path: std::env::temp_dir().join(name) };
        // Creating fails where it already is, so nobody can have prepared it for us.
        match DirBuilder::new().mode(0o700).create(&place.path) {
            Ok(()) => Ok(place),
            Err(source) => {
                let error = place.unusable(source);
                // It is not ours, so it is not ours to remove either.
                std::mem::forget(place);
                Err(error)
            }
        }
    }

    fn admin(&self) -> PathBuf {
        self.path.join("admin.sock")
    }

    fn log(&self) -> PathBuf {
        self.path.join("zdr.log")
    }

    fn unusable(&self, source: io::Error) -> RehearseError {
        RehearseError::Place { path: self.path.clone(), source }
    }

    /// The living processes that carry the mark.
    fn processes(&self) -> Vec<i32> {
        let mark = [MARK.as_bytes(), b"=", self.path.as_os_str().as_encoded_bytes()].concat();
        let Ok(all) = fs::read_dir("/proc") else { return Vec::new() };
        all.flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| carries(&Path::new("/proc").join(i32::to_string(pid)), &mark))
            .collect()
    }

    fn kill_all(&self) -> Vec<i32> {
        let found = self.processes();
        for pid in &found {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        found
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

fn carries(process: &Path, mark: &[u8]) -> bool {
    fs::read(process.join("environ")).is_ok_and(|all| all.split(|byte| *byte == 0).any(|variable| variable == mark))
}

/// Looks again and again until there is something to see or the time is over.
fn wait_for<T>(within: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(seen) = look() {
            return Some(seen);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return None;
        }
        thread::park_timeout(left.min(Duration::from_millis(1)));
    }
}

fn terminate(child: &Child) {
    if let Ok(pid) = i32::try_from(child.id()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
    }
}

fn how(status: ExitStatus) -> String {
    status.code().map_or_else(|| status.to_string(), |code| format!("exit code {code}"))
}

fn last_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default().to_owned()
}

fn parse_status(json: &[u8]) -> Result<Status, RehearseError> {
    let unclear = |cause: &str| RehearseError::Status { cause: cause.to_owned() };
    let status: Value = serde_json::from_slice(json).map_err(|cause| unclear(&cause.to_string()))?;
    let listeners = status["listeners"].as_array().ok_or_else(|| unclear("no listeners in it"))?;
    let addresses: Vec<_> = listeners.iter().filter_map(|listener| listener["address"].as_str()).collect();
    let address = addresses.iter().find_map(|address| reachable(address));
    let address = address.ok_or_else(|| RehearseError::NoTcp { found: addresses.join(", ") })?;
    let generations = status["generations"].as_array().ok_or_else(|| unclear("no generations in it"))?;
    let serving = generations.iter().find(|generation| generation["seat"] == "serving");
    let serving = serving.and_then(|generation| generation["generation"].as_u64());
    let serving = serving.ok_or_else(|| unclear("no generation serves"))?;
    Ok(Status { address, serving, others: generations.len() - 1 })
}

/// An address to connect to; one that means every address of this machine is reached by loopback.
fn reachable(address: &str) -> Option<SocketAddr> {
    let mut address: SocketAddr = address.strip_prefix("tcp://").unwrap_or(address).parse().ok()?;
    match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    Some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(listeners: &str) -> Result<Status, RehearseError> {
        let generations = r#"[{"generation":3,"seat":"draining"},{"generation":4,"seat":"serving","pid":9}]"#;
        parse_status(format!(r#"{{"listeners":{listeners},"generations":{generations}}}"#).as_bytes())
    }

    #[test]
    fn the_first_tcp_listener_of_the_status_is_loaded() {
        let two = r#"[{"name":"a","address":"unix:/run/a.sock"},{"name":"b","address":"0.0.0.0:40123"}]"#;
        let expected = Status { address: "127.0.0.1:40123".parse().unwrap(), serving: 4, others: 1 };
        assert_eq!(status(two).unwrap(), expected);
        assert!(matches!(status(r#"[{"address":"unix:/run/a.sock"}]"#), Err(RehearseError::NoTcp { .. })));
    }

    #[test]
    fn a_status_that_makes_no_sense_is_an_error() {
        for text in ["", "{}", r#"{"listeners":[{"address":"127.0.0.1:1"}],"generations":[]}"#] {
            assert!(parse_status(text.as_bytes()).is_err(), "{text}");
        }
    }
}
