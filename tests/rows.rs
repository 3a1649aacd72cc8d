//! The rows of the matrix: every server below tests/servers in every mode that its `server.toml` describes.
//!
//! It reads and fills in, and starts nothing. tests/servers/README.md says how a server is added.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use serde::Deserialize;

use crate::exchange::Target;
use crate::harness::{Setup, free_port};

const SERVERS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers");
const TARGET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target");

/// A `server.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Server {
    /// What people call it.
    pub title: String,
    /// The page that says to run it like this.
    pub documentation: String,
    /// What its users have to know, in a sentence with neither capital nor full stop.
    #[serde(default)]
    pub notes: String,
    /// A command that prints its version.
    version: Vec<String>,
    mode: Vec<Mode>,
}

/// One way to run a server.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mode {
    pub takes: Takes,
    #[serde(default)]
    pub at: At,
    /// What sets it apart from the other modes of this server.
    #[serde(default)]
    pub variant: String,
    command: Vec<String>,
    /// Keys of the listener.
    #[serde(default)]
    keys: Vec<String>,
    /// More options for `zdr run`.
    #[serde(default)]
    options: Vec<String>,
    /// Files of the folder that are copied to `$temp` with the words that begin with `$` filled in.
    #[serde(default)]
    fills_in: Vec<String>,
    #[serde(default = "term")]
    pub drain_signal: String,
    /// What `--ready` says; empty to leave it to zdr.
    #[serde(default = "health")]
    ready: String,
    #[serde(default)]
    pub speaks: Speaks,
    /// Requests a second of each client.
    #[serde(default = "usual_rate")]
    pub rate: f64,
    /// Whether its answers name the generation, in a header `X-Generation`.
    #[serde(default = "yes")]
    pub tells_generation: bool,
    /// What a bad release of it looks like; it must never be ready.
    #[serde(default = "ends_with_1")]
    bad_release: Vec<String>,
    /// Why it loses requests over kept-alive connections, where it does.
    pub loses_kept: Option<String>,
    /// Why it loses requests over new connections, where it does.
    pub loses_new: Option<String>,
    /// Why a crash costs more requests than were under way, where it does.
    pub crash_cuts: Option<String>,
    /// Why a second generation cannot run beside the first, where it cannot.
    pub no_second: Option<String>,
}

/// How the server comes by its socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Takes {
    #[serde(rename = "LISTEN_FDS")]
    ListenFds,
    #[serde(rename = "fd argument")]
    Argument,
    #[serde(rename = "dialect")]
    Dialect,
    /// It binds by itself, and zdr listens nowhere before.
    #[serde(rename = "capture")]
    Capture,
}

/// Where it is reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum At {
    #[default]
    Tcp,
    Unix,
}

/// What its clients say to it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Speaks {
    #[default]
    Http,
    Redis,
    Memcached,
    Postgresql,
    Fastcgi,
}

/// A server in a mode.
#[derive(Debug, Clone)]
pub struct Row {
    /// The name of its folder.
    pub name: String,
    pub server: Server,
    pub mode: Mode,
}

/// A row made ready to be started once, at an address of its own.
#[derive(Debug)]
pub struct Staged {
    pub setup: Setup,
    pub bad_release: Vec<String>,
    pub target: Target,
}

fn term() -> String {
    "TERM".to_owned()
}

fn health() -> String {
    "/health".to_owned()
}

fn usual_rate() -> f64 {
    25.0
}

fn yes() -> bool {
    true
}

fn ends_with_1() -> Vec<String> {
    ["sh", "-c", "exit 1"].map(str::to_owned).to_vec()
}

/// Every row, in the order of the folders' names.
pub fn rows() -> Vec<Row> {
    let folders = fs::read_dir(SERVERS).expect("tests/servers can be read").flatten();
    let described = folders.filter(|entry| entry.path().join("server.toml").exists());
    let mut names: Vec<_> = described.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names.iter().flat_map(|name| rows_of(name)).collect()
}

/// The rows of the server in this folder.
pub fn rows_of(name: &str) -> Vec<Row> {
    let path = Path::new(SERVERS).join(name).join("server.toml");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let server: Server = toml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let row = |mode: &Mode| Row { name: name.to_owned(), server: server.clone(), mode: mode.clone() };
    server.mode.iter().map(row).collect()
}

/// The only row of this server that is run in this way.
pub fn row(name: &str, way: &str) -> Row {
    let mut found = rows_of(name).into_iter().filter(|row| row.mode.way() == way);
    let row = found.next().unwrap_or_else(|| panic!("tests/servers/{name} has no {way:?}"));
    assert!(found.next().is_none(), "tests/servers/{name} has {way:?} twice");
    row
}

impl Row {
    /// What it is called in messages and on the command line.
    pub fn label(&self) -> String {
        let Self { name, mode, .. } = self;
        format!("{name}: {}", mode.way())
    }

    /// The first thing that looks like a version in what the server says of itself.
    pub fn version(&self) -> String {
        let words = self.server.version.iter().map(|word| self.fill_in(word, "", 0)).collect::<Vec<_>>();
        let asked = Command::new(&words[0]).args(&words[1..]).output();
        let said = asked.unwrap_or_else(|error| panic!("{}: {error}; tests/servers/install brings it", words[0]));
        let said = [said.stdout, said.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let numbers = said.split(|character: char| !character.is_ascii_digit() && character != '.');
        let mut versions = numbers.map(|number| number.trim_matches('.')).filter(|number| number.contains('.'));
        versions.next().unwrap_or_else(|| panic!("{words:?} tells no version: {said}")).to_owned()
    }

    /// Chooses its port and fills in the words that begin with `$`.
    pub fn stage(&self) -> Staged {
        let Self { name, mode, .. } = self;
        let port = free_port();
        let setup = Setup::of(&[""]);
        let temp = setup.folder().display().to_string();
        let path = setup.folder().join("server.sock");
        let (listen, target) = match mode.at {
            At::Tcp => (format!("127.0.0.1:{port}"), Target::Tcp((Ipv4Addr::LOCALHOST, port).into())),
            At::Unix => (format!("unix:{}", path.display()), Target::Unix(path)),
        };
        for file in &mode.fills_in {
            let text = fs::read_to_string(Path::new(SERVERS).join(name).join(file)).expect("a file to fill in");
            fs::write(setup.folder().join(file), self.fill_in(&text, &temp, port)).expect("a filled-in file");
        }
        let words = |given: &[String]| given.iter().map(|word| self.fill_in(word, &temp, port)).collect::<Vec<_>>();
        let listen = [vec![listen], mode.keys.clone()].concat().join(",");
        let setup = match mode.takes {
            Takes::Capture => setup.listen(&[]),
            Takes::ListenFds | Takes::Argument | Takes::Dialect => setup.listen(&[&listen]),
        };
        let setup = setup.command(&words(&mode.command)).option("--drain-signal", &mode.drain_signal);
        let setup = if mode.ready.is_empty() {
            setup
        } else {
            setup.option("--ready", &self.fill_in(&mode.ready, &temp, port))
        };
        let setup = words(&mode.options).iter().fold(setup, |setup, word| setup.flag(word));
        Staged { setup, bad_release: words(&mode.bad_release), target }
    }

    fn fill_in(&self, text: &str, temp: &str, port: u16) -> String {
        text.replace("$here", &format!("{SERVERS}/{}", self.name))
            .replace("$built", &format!("{TARGET}/servers/{}", self.name))
            .replace("$venv", &format!("{TARGET}/test-venv/bin"))
            .replace("$temp", temp)
            .replace("$unix", &format!("{temp}/server.sock"))
            .replace("$port", &port.to_string())
    }
}

impl Mode {
    /// How it comes by its socket, and what sets it apart.
    pub fn way(&self) -> String {
        let at = if self.at == At::Unix { " at a Unix path" } else { "" };
        let variant = if self.variant.is_empty() { String::new() } else { format!(", {}", self.variant) };
        format!("{}{at}{variant}", self.takes)
    }
}

impl std::fmt::Display for Takes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ListenFds => "LISTEN_FDS",
            Self::Argument => "fd argument",
            Self::Dialect => "dialect",
            Self::Capture => "capture",
        })
    }
}
