//! A real zdr under test: started, asked, signalled, and ended with everything it started.
//!
//! Never sleeps for a guess: waits for a condition, with a deadline that only a failure reaches.

use std::ffi::OsString;
use std::fmt::Debug;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::park_timeout;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// The binary under test.
pub const ZDR: &str = env!("CARGO_BIN_EXE_zdr");

/// Only a failure waits this long.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Waits until `condition` gives a value, and panics with what it was about when it does not.
#[track_caller]
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(begun.elapsed() < DEADLINE, "waited in vain for {what}");
        park_timeout(Duration::from_millis(2));
    }
}

/// The command line of the sample server that is built into zdr.
pub fn sample(options: &[&str]) -> Vec<String> {
    [ZDR, "sample-server"].iter().chain(options).map(ToString::to_string).collect()
}

/// How a zdr is to be started.
#[derive(Debug)]
pub struct Setup {
    folder: TempDir,
    options: Vec<OsString>,
    command: Vec<String>,
    environment: Vec<(String, String)>,
    through: Vec<String>,
    binary: String,
    admin: PathBuf,
    listen: bool,
}

/// A running zdr.
#[derive(Debug)]
pub struct Zdr {
    folder: TempDir,
    admin: PathBuf,
    child: Child,
}

/// What a client command came to.
#[derive(Debug)]
pub struct Told {
    pub code: i32,
    pub out: String,
    pub error: String,
}

impl Setup {
    /// With this server, on a port that the kernel chooses.
    pub fn of(command: &[impl ToString]) -> Self {
        let command = command.iter().map(ToString::to_string).collect();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (admin, binary) = (folder.path().join("admin"), ZDR.to_owned());
        let (options, environment, through) = (Vec::new(), Vec::new(), Vec::new());
        Self { folder, options, command, environment, through, binary, admin, listen: true }
    }

    pub fn option(mut self, name: &str, value: &str) -> Self {
        self.options.extend([name.into(), value.into()]);
        self
    }

    pub fn flag(mut self, name: &str) -> Self {
        self.options.push(name.into());
        self
    }

    /// With this command instead, where it needs the folder's path.
    pub fn command(mut self, command: &[impl ToString]) -> Self {
        self.command = command.iter().map(ToString::to_string).collect();
        self
    }

    /// Starts zdr by way of another program that ends in executing it: `setpriv`, `unshare`, a shell.
    pub fn through(mut self, program: &[impl ToString]) -> Self {
        self.through = program.iter().map(ToString::to_string).collect();
        self
    }

    /// With its admin socket there instead of in the test's own folder.
    pub fn at(mut self, admin: &str) -> Self {
        self.admin = admin.into();
        self
    }

    /// Another build of zdr than the one under test.
    pub fn binary(mut self, path: &str) -> Self {
        path.clone_into(&mut self.binary);
        self
    }

    pub fn environment(mut self, key: &str, value: &str) -> Self {
        self.environment.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Listens on these and on nothing else.
    pub fn listen(mut self, listeners: &[&str]) -> Self {
        self.listen = false;
        listeners.iter().fold(self, |setup, listener| setup.option("--listen", listener))
    }

    /// A place in the folder, as text.
    pub fn place(&self, name: &str) -> String {
        self.folder().join(name).display().to_string()
    }

    /// A place for files of the test.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts it, and waits until a generation serves.
    pub fn start(self) -> Zdr {
        let zdr = self.begin();
        let told = zdr.client(&["wait", "--timeout", "20s"]);
        assert_eq!(told.code, 0, "{told:?}\n{}", zdr.log());
        zdr
    }

    /// Starts it, and waits for nothing.
    pub fn begin(self) -> Zdr {
        let log = fs::File::create(self.folder.path().join("log")).expect("a log file");
        self.begin_with(Stdio::null(), log.into())
    }

    /// Starts it with this standard output and standard error, and waits until a generation serves.
    pub fn start_with(self, output: Stdio, error: Stdio) -> Zdr {
        let zdr = self.begin_with(output, error);
        let told = zdr.client(&["wait", "--timeout", "20s"]);
        assert_eq!(told.code, 0, "{told:?}");
        zdr
    }

    fn begin_with(self, output: Stdio, error: Stdio) -> Zdr {
        let child = self.command_line().stdout(output).stderr(error).stdin(Stdio::null()).spawn().expect("zdr starts");
        Zdr { folder: self.folder, admin: self.admin, child }
    }

    /// Runs it to its end, for settings that it should refuse.
    pub fn output(self) -> Told {
        self.command_line().stdin(Stdio::null()).output().expect("zdr runs").into()
    }

    fn command_line(&self) -> Command {
        let mut words = self.through.iter().map(String::as_str).chain([self.binary.as_str()]);
        let mut command = Command::new(words.next().expect("zdr is one"));
        command.args(words).arg("run").arg("--admin").arg(&self.admin);
        if self.listen {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        command.args(&self.options).arg("--").args(&self.command);
        command.envs(self.environment.iter().cloned()).env_remove("PORT");
        command
    }
}

impl Zdr {
    /// One that was started by other means, with its files in this folder.
    pub fn of(folder: TempDir, admin: PathBuf, child: Child) -> Self {
        Self { folder, admin, child }
    }

    pub fn admin(&self) -> PathBuf {
        self.admin.clone()
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a process id")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Runs a client command for this zdr.
    pub fn client(&self, arguments: &[impl ToString + Debug]) -> Told {
        self.client_command(arguments).output().expect("a client command runs").into()
    }

    /// Starts a client command and lets it run.
    pub fn client_in_background(&self, arguments: &[impl ToString + Debug]) -> Child {
        let mut command = self.client_command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a client command starts")
    }

    /// A client command for this zdr that is not started yet.
    pub fn client_command(&self, arguments: &[impl ToString + Debug]) -> Command {
        let mut command = Command::new(ZDR);
        command.args(arguments.iter().map(ToString::to_string)).env("ZDR_ADMIN", self.admin()).stdin(Stdio::null());
        command
    }

    pub fn reload(&self) -> Told {
        self.client(&["reload"])
    }

    pub fn reload_to(&self, command: &[impl ToString]) -> Told {
        let words = ["reload".to_owned(), "--".to_owned()].into_iter().chain(command.iter().map(ToString::to_string));
        self.client(&words.collect::<Vec<_>>())
    }

    pub fn status(&self) -> Value {
        let told = self.client(&["status", "--json"]);
        serde_json::from_str(&told.out).unwrap_or_else(|error| panic!("{error}: {told:?}\n{}", self.log()))
    }

    /// Waits until the status is as wanted.
    #[track_caller]
    pub fn wait_until(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        wait_for(what, || Some(self.status()).filter(|status| wanted(status)))
    }

    /// The generation in the serving seat.
    pub fn serving(&self) -> Option<u64> {
        in_seat(&self.status(), "serving")
    }

    /// The main process of the serving generation.
    pub fn server_pid(&self) -> i32 {
        let status = self.status();
        let seat = seats(&status).find(|seat| seat["seat"] == "serving").expect("somebody serves");
        seat["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).expect("a process id")
    }

    /// Where the first listener is.
    pub fn address(&self) -> SocketAddr {
        let status = self.status();
        status["listeners"][0]["address"].as_str().and_then(|text| text.parse().ok()).expect("an address")
    }

    /// The body of a GET of this path on a new connection.
    pub fn get(&self, path: &str) -> String {
        get(self.address(), path).1
    }

    /// A raw exchange over the admin socket: everything that comes back until it is closed.
    pub fn ask_raw(&self, request: &str) -> String {
        let mut stream = std::os::unix::net::UnixStream::connect(self.admin()).expect("the admin socket answers");
        stream.set_read_timeout(Some(DEADLINE)).expect("a time limit");
        stream.write_all(request.as_bytes()).expect("the request is sent");
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("zdr is there to be signalled");
    }

    /// Waits for its end.
    pub fn ended(&mut self) -> ExitStatus {
        let child = &mut self.child;
        wait_for("the end of zdr", || child.try_wait().expect("it can be waited for"))
    }

    /// A place in the folder, as text.
    pub fn place(&self, name: &str) -> String {
        self.folder().join(name).display().to_string()
    }

    /// Every living process of this generation.
    pub fn processes_of(&self, generation: u64) -> Vec<i32> {
        let of_generation = processes_with(&format!("ZDR_GENERATION={generation}"));
        self.processes().into_iter().filter(|pid| of_generation.contains(pid)).collect()
    }

    /// Every living process that this zdr started, by the variable that it gives them.
    pub fn processes(&self) -> Vec<i32> {
        let marker = format!("ZDR_ADMIN={}", self.admin().display());
        processes_with(&marker).into_iter().filter(|pid| *pid != self.pid()).collect()
    }
}

impl Drop for Zdr {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- log of zdr ---\n{}", self.log());
        }
        // Redis and others write over their environment, so that their variables do not find them.
        let descendants = descendants(self.pid());
        let _ = self.child.kill();
        let _ = self.child.wait();
        // Where it was started through another program, that was the child; a zdr that lives has its number in its lock.
        let lock = fs::read_to_string(self.folder.path().join("admin.lock")).unwrap_or_default();
        if let Ok(pid) = lock.trim().parse() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        for pid in self.processes().into_iter().chain(descendants) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

impl From<Output> for Told {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: output.status.code().unwrap_or(-1), out: text(output.stdout), error: text(output.stderr) }
    }
}

/// The seats of a status.
pub fn seats(status: &Value) -> impl Iterator<Item = &Value> {
    status["generations"].as_array().into_iter().flatten()
}

/// The newest generation in a seat.
pub fn in_seat(status: &Value, seat: &str) -> Option<u64> {
    seats(status).find(|at| at["seat"] == seat).and_then(|at| at["generation"].as_u64())
}

/// Runs zdr with these arguments, far from any other zdr.
pub fn zdr(arguments: &[&str]) -> Told {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut command = Command::new(ZDR);
    command.args(arguments).env("RUNTIME_DIRECTORY", folder.path()).env_remove("ZDR_ADMIN").env_remove("PORT");
    command.stdin(Stdio::null()).output().expect("zdr runs").into()
}

/// A port that is free, for settings that must name it. Below the range from which the kernel gives out ports by itself.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 200).expect("less than 200") * 100;
    wait_for("a free port", || {
        let port = 10_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        TcpListener::bind(("0.0.0.0", port)).is_ok().then_some(port)
    })
}

/// Status and body of a GET on a new connection; 0 where there was no answer.
pub fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let asked = || -> std::io::Result<(u16, String)> {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(DEADLINE))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")?;
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let mut rest = String::new();
        reader.read_to_string(&mut rest)?;
        let body = rest.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
        Ok((status, body))
    };
    asked().unwrap_or_default()
}

/// The children of a process, and theirs.
fn descendants(pid: i32) -> Vec<i32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let texts = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let children: Vec<i32> =
        texts.flat_map(|text| text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect();
    children.iter().flat_map(|child| [vec![*child], descendants(*child)].concat()).collect()
}

/// Every living process whose environment has this entry.
pub fn processes_with(marker: &str) -> Vec<i32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let has = |pid: &i32| {
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == marker.as_bytes())
    };
    pids.filter(has).collect()
}
