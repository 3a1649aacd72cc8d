//! The rehearsal: a real zdr, a real load and real reloads, one of them of a bad release, on this machine and in private,
//! so that what a reload loses is known before production tells. It never touches a supervisor that it did not start.

#![expect(clippy::disallowed_methods, reason = "a rehearsal is a client: it has no part in zdr's one clock")]

pub mod load;
pub mod sample;
mod supervised;
mod table;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fmt, io};

use load::{Load, Phase, Shape};
use supervised::Supervised;
pub use table::Table;
use table::{Release, Reload};

/// How long the load runs undisturbed, before the reloads and after them, to compare with.
const STEADY: Duration = Duration::from_secs(1);

/// The pause between two reloads.
const SPACING: Duration = Duration::from_millis(300);

/// A request that takes longer is lost.
const LATE: Duration = Duration::from_secs(5);

/// How long the draining of old generations is waited for before the last steady phase; a longer drain is no fault.
const DRAINED_WITHIN: Duration = Duration::from_secs(10);

/// What to rehearse.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The binary to rehearse with: this one.
    pub zdr: PathBuf,
    /// The command to reload; `None` for the sample server.
    pub command: Option<Vec<OsString>>,
    /// Options handed on to `zdr run`.
    pub run_options: Vec<OsString>,
    /// How many reloads; from two on, one in the middle is of a bad release.
    pub reloads: u32,
    /// Clients of each of the two kinds.
    pub clients: usize,
    /// Requests a second of each client; by default one that leaves this machine time for other things.
    pub rate_per_client: Option<f64>,
    /// The path that is asked for.
    pub path: String,
    /// How long COMMAND may take to serve.
    pub ready_within: Duration,
}

/// Why there was no rehearsal, or only half of one.
#[derive(Debug)]
pub enum RehearseError {
    /// There is no private directory to be had.
    Place {
        /// The one tried.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// zdr itself cannot be started.
    Spawn {
        /// The binary.
        zdr: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// zdr ended before it was told to.
    Ended {
        /// Its exit code or signal.
        how: String,
        /// The last line of its log.
        last_words: String,
    },
    /// The first generation never served.
    NeverReady {
        /// In this time.
        within: Duration,
        /// What zdr says about it.
        reason: String,
        /// What to try, where it is the user's to try something.
        hint: &'static str,
    },
    /// A client command did not come back.
    Hung {
        /// Which.
        request: String,
        /// In this time.
        within: Duration,
    },
    /// The status is not as expected.
    Status {
        /// In which way.
        cause: String,
    },
    /// No listener can be loaded.
    NoTcp {
        /// Those that there are.
        found: String,
    },
    /// The load cannot be started.
    Load {
        /// Why.
        source: io::Error,
    },
    /// Not one request was answered well, long before the first reload.
    NoAnswer {
        /// What was asked for.
        path: String,
        /// What came instead.
        cause: String,
    },
}

/// Rehearses, and says on the way what it does, a sentence at a time.
pub fn rehearse(plan: &Plan, say: &mut dyn FnMut(&str)) -> Result<Table, RehearseError> {
    say("starting the first generation");
    let mut zdr = Supervised::start(plan)?;
    zdr.wait_until_it_serves(plan)?;
    let status = zdr.status()?;

    say("putting load on it");
    let mut load = Load::start(status.address, &plan.shape()).map_err(|source| RehearseError::Load { source })?;
    if !load.wait_for_answers(1, LATE) {
        let report = load.stop();
        let traces = report.new_connection.traces.iter().chain(&report.keep_alive.traces);
        let cause = traces.map(ToString::to_string).next().unwrap_or_else(|| "no answer at all".to_owned());
        return Err(RehearseError::NoAnswer { path: plan.path.clone(), cause });
    }
    zdr.watch(STEADY)?;
    let numbered = load.first_answer_of(|generation| generation == status.serving).is_some();

    load.mark(Phase::Reload);
    let reloads = reload_all(plan, &mut zdr, &mut load, numbered, say)?;
    say("letting the old generations finish");
    zdr.wait_until_drained(DRAINED_WITHIN)?;
    load.mark(Phase::Steady);
    zdr.watch(STEADY)?;

    let report = load.stop();
    let end = zdr.stop();
    Ok(Table { command: plan.shown(), address: status.address, planned: plan.reloads, numbered, report, reloads, end })
}

/// One reload after another; a good release that fails ends the row, since the next would only fail again.
fn reload_all(
    plan: &Plan,
    zdr: &mut Supervised,
    load: &mut Load,
    numbered: bool,
    say: &mut dyn FnMut(&str),
) -> Result<Vec<Reload>, RehearseError> {
    let mut reloads = Vec::new();
    let mut bad_serves = false;
    for number in 0..plan.reloads {
        let release = plan.release(number);
        say(&format!("reload {} of {}{}", number + 1, plan.reloads, release.aside()));
        let command = match release {
            Release::Bad => Some(plan.bad_command()),
            // After a failed reload zdr keeps the command that serves; only a promoted bad one must be replaced.
            Release::Good if bad_serves => plan.good_command(),
            Release::Good => None,
        };
        let asked = Instant::now();
        let verdict = zdr.reload(command.as_deref(), plan.ready_within)?;
        let answered_after = if verdict.code == 0 && numbered {
            let serving = zdr.status()?.serving;
            let first = load.wait_for_answer_of(|generation| generation == serving, LATE);
            first.map(|at| at.saturating_duration_since(asked))
        } else {
            None
        };
        let failed = verdict.code != 0;
        bad_serves = release == Release::Bad && !failed;
        reloads.push(Reload { release, verdict, answered_after });
        if release == Release::Good && failed {
            break;
        }
        zdr.watch(SPACING)?;
    }
    Ok(reloads)
}

impl Plan {
    /// The usual rehearsal, with the sample server.
    pub fn new(zdr: PathBuf) -> Self {
        Self {
            zdr,
            command: None,
            run_options: Vec::new(),
            reloads: 10,
            clients: 4,
            rate_per_client: None,
            path: "/".to_owned(),
            ready_within: Duration::from_secs(60),
        }
    }

    fn shape(&self) -> Shape {
        let usual = if self.is_of_the_sample() { 100.0 } else { 50.0 };
        Shape {
            new_connection_clients: self.clients,
            keep_alive_clients: self.clients,
            rate_per_client: Some(self.rate_per_client.unwrap_or(usual)),
            path: self.path.clone(),
            limit: LATE,
        }
    }

    fn release(&self, number: u32) -> Release {
        if self.reloads > 1 && number == self.reloads / 2 { Release::Bad } else { Release::Good }
    }

    fn is_of_the_sample(&self) -> bool {
        self.command.is_none() && !self.says(&["-c", "--config"])
    }

    /// The sample has no graceful end and takes some time for a request: what zdr promises to carry a
    /// server through. `None` where a configuration names the command.
    fn good_command(&self) -> Option<Vec<OsString>> {
        let sample = || self.is_of_the_sample().then(|| self.sample(&["--work", "5ms"]));
        self.command.clone().or_else(sample)
    }

    /// It ends at once. The sample server does for every command, and unlike `/bin/false` it is surely there.
    fn bad_command(&self) -> Vec<OsString> {
        self.sample(&["--bad", "exit:1"])
    }

    fn sample(&self, options: &[&str]) -> Vec<OsString> {
        let mut command = vec![self.zdr.clone().into_os_string(), "sample-server".into()];
        command.extend(options.iter().map(OsString::from));
        command
    }

    /// What `zdr run` is started with: what the user would start it with. Only of the sample server is known where it listens.
    fn run_arguments(&self, admin: &Path) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = ["run", "--name", "rehearsal", "--admin"].map(OsString::from).to_vec();
        arguments.push(admin.into());
        if self.is_of_the_sample() && !self.says(&["-l", "--listen", "--capture", "-c", "--config"]) {
            arguments.extend(["--listen", "127.0.0.1:0"].map(OsString::from));
        }
        if self.is_of_the_sample() && !self.says(&["--ready", "--ready-url"]) {
            arguments.extend(["--ready", "/health"].map(OsString::from));
        }
        arguments.extend(self.run_options.iter().cloned());
        if let Some(command) = self.good_command() {
            arguments.push("--".into());
            arguments.extend(command);
        }
        arguments
    }

    fn says(&self, options: &[&str]) -> bool {
        self.run_options.iter().filter_map(|given| given.to_str()).any(|given| {
            options.iter().any(|option| match option.strip_prefix("--") {
                Some(_) => given.split('=').next() == Some(option),
                None => given.starts_with(option) && !given.starts_with("--"),
            })
        })
    }

    fn hint(&self) -> &'static str {
        if self.is_of_the_sample() || self.says(&["-l", "--listen", "--capture"]) {
            ""
        } else {
            " (a server that takes its socket from LISTEN_FDS or `{port}`, rather than binding it, needs `--listen`)"
        }
    }

    fn shown(&self) -> String {
        match &self.command {
            Some(words) => words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" "),
            None if self.is_of_the_sample() => "the sample server".to_owned(),
            None => "the configured command".to_owned(),
        }
    }
}

impl fmt::Display for RehearseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Place { path, source } => {
                write!(f, "cannot make a place to rehearse in, `{}`: {source}", path.display())
            }
            Self::Spawn { zdr, source } => write!(f, "cannot start `{}`: {source}", zdr.display()),
            Self::Ended { how, last_words } => {
                write!(f, "zdr ended with {how}; its last words: {last_words}")
            }
            Self::NeverReady { within, reason, hint } => {
                write!(f, "the first generation did not serve within {within:?}: {reason}{hint}")
            }
            Self::Hung { request, within } => {
                write!(f, "`zdr {request}` gave no answer within {within:?}")
            }
            Self::Status { cause } => {
                write!(f, "cannot make sense of `zdr status --json`: {cause}")
            }
            Self::NoTcp { found } => {
                write!(f, "a rehearsal needs a TCP listener, and there is none: {found}")
            }
            Self::Load { source } => write!(f, "cannot start the load: {source}"),
            Self::NoAnswer { path, cause } => write!(
                f,
                "not one request for `{path}` was answered with a 2xx status within {LATE:?}: {cause} (another path is \
                 asked for with `--path`)"
            ),
        }
    }
}

impl std::error::Error for RehearseError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Place { source, .. } | Self::Spawn { source, .. } | Self::Load { source } => Some(source),
            _ => None,
        }
    }
}
