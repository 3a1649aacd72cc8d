//! Health as those ask for it who have always asked for it so: a real HAProxy and a real nginx with the files of `contrib`,
//! the probes of Kubernetes, and the commands of a Docker HEALTHCHECK.

mod haproxy;
mod kubelet;
mod nginx;

use std::fs;
use std::process::{Child, Command, Stdio};

use crate::admin::health_address;
use crate::harness::{Setup, Zdr, free_port, in_seat, sample};

/// A server that can be started only as long as the file `good` is there.
fn server_on_condition() -> Setup {
    let setup = Setup::of(&[""]).option("--health", "127.0.0.1:0").option("--bake", "0s").option("--ready", "/health");
    let good = setup.place("good");
    fs::write(&good, "").unwrap();
    let script = format!("test -e {good} && exec {} --work 2ms", sample(&[]).join(" "));
    setup.command(&["sh", "-c", &script])
}

/// It dies, and so does every next one.
fn begin_to_crash(zdr: &Zdr) {
    fs::remove_file(zdr.place("good")).unwrap();
    let pid = nix::unistd::Pid::from_raw(zdr.server_pid());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    zdr.wait_until("nothing to serve", |status| in_seat(status, "serving").is_none());
}

fn cease_to_crash(zdr: &Zdr) {
    fs::write(zdr.place("good"), "").unwrap();
}

/// A program beside zdr, ended with the test.
struct Beside {
    child: Child,
    log: std::path::PathBuf,
}

impl Beside {
    fn start(command: &[&str], log: std::path::PathBuf) -> Self {
        let file = fs::File::create(&log).unwrap();
        let mut program = Command::new(command[0]);
        program.args(&command[1..]).stdin(Stdio::null()).stdout(file.try_clone().unwrap()).stderr(file);
        Self { child: program.spawn().unwrap_or_else(|error| panic!("{}: {error}", command[0])), log }
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- beside zdr ---\n{}", fs::read_to_string(&self.log).unwrap_or_default());
        }
        // The workers of nginx end with its master, which is asked rather than killed.
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"));
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

/// A file of `contrib` with other words in the place of some of its own, each of which must be there.
fn contributed(name: &str, replaced: &[(&str, &str)]) -> String {
    let path = format!("{}/contrib/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(&path).unwrap();
    replaced.iter().fold(text, |text, (theirs, ours)| {
        assert!(text.contains(theirs), "{path} has no {theirs}");
        text.replace(theirs, ours)
    })
}

/// What a command of a Docker HEALTHCHECK ends with.
fn exit_code(command: &[&str]) -> i32 {
    let mut program = Command::new(command[0]);
    let output = program.args(&command[1..]).stdin(Stdio::null()).output();
    output.unwrap_or_else(|error| panic!("{}: {error}", command[0])).status.code().unwrap()
}

#[test]
fn the_usual_commands_of_a_docker_healthcheck_tell_whether_it_serves() {
    let zdr = server_on_condition().start();
    let at = |path: &str| format!("http://{}{path}", health_address(&zdr));
    let fails = |path: &str| {
        let url = at(path);
        let curl = exit_code(&["curl", "--fail", "--silent", "--max-time", "5", &url]);
        let wget = exit_code(&["wget", "--quiet", "--tries=1", "--spider", &url]);
        let to_stdout = exit_code(&["wget", "--quiet", "--tries=1", "--output-document=-", &url]);
        // curl: an HTTP code from 400; wget: the server answered with an error.
        match (curl, wget, to_stdout) {
            (0, 0, 0) => false,
            (22, 8, 8) => true,
            other => panic!("{path}: {other:?}"),
        }
    };
    for path in ["/health", "/health/ready", "/readyz", "/healthz", "/livez"] {
        assert!(!fails(path), "{path}");
    }
    begin_to_crash(&zdr);
    for path in ["/health", "/health/ready", "/readyz", "/healthz"] {
        assert!(fails(path), "{path}");
    }
    assert!(!fails("/livez") && !fails("/health/startup"));
}
