//! The servers that are tried: as their users would write them, in tests/servers, each taking its socket from LISTEN_FDS.

use std::path::Path;

use crate::harness::sample;

/// What becomes of a request that is under way when SIGTERM comes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The server finishes it, and tells its clients to go.
    InOrder,
    /// The server dies of the signal, so only zdr can save it.
    Abrupt,
}

pub fn server(program: &str, script: &str, end: End) -> Vec<String> {
    let words = [program.to_owned(), in_servers(script)].into_iter();
    words.chain((end == End::Abrupt).then(|| "abrupt".to_owned())).collect()
}

pub fn in_servers(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers").join(name).display().to_string()
}

/// A program that `tests/run` installs.
pub fn installed(name: &str) -> String {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-venv/bin").join(name);
    assert!(program.exists(), "{} is not there: tests/run installs it", program.display());
    program.display().to_string()
}

/// The Python server on asyncio.
pub fn asyncio(end: End) -> Vec<String> {
    server(&installed("python"), "asyncio/server.py", end)
}

pub fn threads(end: End) -> Vec<String> {
    server(&installed("python"), "threads/server.py", end)
}

pub fn rust(end: End) -> Vec<String> {
    let options: &[&str] = if end == End::Abrupt { &["--work", "10ms", "--abrupt"] } else { &["--work", "10ms"] };
    sample(options)
}

pub fn gunicorn(options: &[&str]) -> Vec<String> {
    let own = [installed("gunicorn"), "--chdir".to_owned(), in_servers("gunicorn")].into_iter();
    own.chain(options.iter().map(ToString::to_string)).chain(["app:app".to_owned()]).collect()
}
