//! From options to settings: checks what no single option can show.

use std::path::PathBuf;

use super::{CaptureMode, RunArgs};
use crate::address::{Address, Listener, Options};
use crate::config::{self, Capture, Config, Drain, EnvironmentFile, Live, Process, Readiness, Ready, servers};
use crate::runtime_directory::name_for;
use crate::supervisor::Policy;

/// The drain signal where none was given (signal(7)).
const TERM: i32 = 15;

/// What zdr is told by where it is started.
#[derive(Debug)]
pub struct Surroundings {
    /// The working directory by the name that it was entered by, so that a symlink on the way can be switched.
    pub directory: PathBuf,
    /// `$PORT`.
    pub port: Option<String>,
    /// `$LISTEN_FDS` says that there are sockets for zdr.
    pub inherited: bool,
}

impl RunArgs {
    /// Checks what no single option can show, and makes the settings.
    pub fn into_config(self, surroundings: Surroundings) -> Result<Config, String> {
        let RunArgs { options, command } = self;
        let Some(program) = command.first().filter(|program| !program.is_empty()) else {
            return Err(
                "the command is missing; write it behind `--`, for example `zdr run -l 8080 -- ./my-server`".to_owned()
            );
        };
        let inherit = options.listen.is_empty() && surroundings.inherited;
        let listeners = listeners(&options.listen, surroundings.port.filter(|_| !inherit))?;
        let alone = listeners.is_empty() && !inherit;
        let capture = match options.capture {
            CaptureMode::Always => Capture::Everything,
            CaptureMode::Auto if alone => Capture::Own,
            CaptureMode::Never if alone => return Err(NO_LISTENER.to_owned()),
            CaptureMode::Auto | CaptureMode::Never => Capture::Nothing,
        };
        let name = options.name.unwrap_or_else(|| name_for(program));
        let health = options.health.iter().map(|given| health_address(given)).collect::<Result<_, _>>()?;
        let directory = options.chdir.unwrap_or_default();
        let directory = Some(surroundings.directory.join(directory));
        let here = |file: EnvironmentFile| EnvironmentFile { path: surroundings.directory.join(file.path), ..file };
        let process = Process {
            directory,
            environment: options.env,
            environment_files: options.env_file.into_iter().map(here).collect(),
            user: options.user,
            group: options.group,
            umask: options.umask,
            limits: options.limit,
            no_new_privileges: options.no_new_privs,
            without_listen_pid: options.no_listen_pid,
        };
        let ready = options.ready.unwrap_or(Ready::Default);
        let has_stream = listeners.iter().any(|listener| listener.address.is_stream());
        let may_have = has_stream || inherit || capture != Capture::Nothing;
        if matches!(ready, Ready::Path(_) | Ready::Tcp) && !may_have {
            return Err(format!(
                "--ready {ready} needs a TCP or Unix listener to ask; add one, or choose notify, exec: or a duration"
            ));
        }
        config::distinct_checks(&options.check)?;
        let checks = options.check.iter().map(|check| (format!("--check {}=", check.name), &check.spec));
        let asked = checks.chain(options.live.iter().map(|live| ("--live ".to_owned(), live)));
        for (option, spec) in asked.filter(|(_, spec)| matches!(spec, Ready::Path(_) | Ready::Tcp)) {
            if !may_have {
                return Err(format!(
                    "{option}{spec} needs a TCP or Unix listener to ask; add one, or choose a URL or exec:"
                ));
            }
        }
        let live = options.live.map(|spec| Live {
            spec,
            interval: options.live_interval,
            timeout: options.live_timeout,
            failures: options.live_failures,
        });
        Ok(Config {
            name,
            admin: options.admin.map(|path| surroundings.directory.join(path)),
            health,
            health_paths: options.health_path,
            listeners,
            inherit,
            capture,
            process,
            readiness: Readiness {
                ready,
                interval: options.ready_interval,
                // A server that never answers is named as one, not only as late.
                limit: options.ready_limit.min(options.ready_timeout / 2),
                statuses: options.ready_status,
                successes: options.ready_successes,
                startup_grace: options.startup_grace,
            },
            checks: options.check,
            live,
            watchdog: options.watchdog,
            drain: Drain {
                signal: options.drain_signal.unwrap_or(TERM),
                advice: options.drain_signal.is_none().then(|| servers::advice(program)).flatten(),
                idle: options.drain_idle,
            },
            tail: options.tail.into(),
            policy: Policy {
                ready_timeout: options.ready_timeout,
                drain_timeout: options.drain_timeout,
                bake: options.bake,
                lame_duck: options.lame_duck,
            },
            command,
        })
    }
}

const NO_LISTENER: &str =
    "no listener: say where to listen, for example `--listen 127.0.0.1:8080`, set PORT, or leave out `--capture never`";

fn listeners(given: &[String], port: Option<String>) -> Result<Vec<Listener>, String> {
    let mut listeners = Vec::new();
    for (position, given) in given.iter().enumerate() {
        let unnamed = if position == 0 { "main".to_owned() } else { format!("listener{}", position + 1) };
        listeners.push(Listener::parse(given, &unnamed).map_err(|error| error.to_string())?);
    }
    if let Some(port) = port.filter(|_| listeners.is_empty()) {
        listeners.push(Listener::parse(&port, "main").map_err(|error| format!("PORT: {error}"))?);
    }
    config::distinct(&listeners)?;
    Ok(listeners)
}

/// A TCP address, or a path with its rights; everybody may ask there, as nothing can be changed.
fn health_address(given: &str) -> Result<Listener, String> {
    let mut listener = Listener::parse(given, "health").map_err(|error| format!("--health: {error}"))?;
    let asked = &listener.options;
    let rights =
        Options { mode: asked.mode, owner: asked.owner.clone(), group: asked.group.clone(), ..Options::default() };
    match &listener.address {
        Address::Udp(_) | Address::Abstract(_) => Err(format!(
            "--health: {} is no TCP address and no path; write for example 127.0.0.1:9000 or unix:/run/app-health.sock",
            listener.address
        )),
        _ if *asked != rights => {
            Err(format!("--health: `{given}` has keys of a listener; only mode, owner and group fit here"))
        }
        Address::Tcp(_) => Ok(listener),
        Address::Unix(_) => {
            listener.options.mode.get_or_insert(0o666);
            Ok(listener)
        }
    }
}
