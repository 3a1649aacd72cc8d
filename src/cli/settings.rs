//! From options to settings: checks what no single option can show.

use std::path::PathBuf;

use super::{CaptureMode, RunArgs, RunOptions};
use crate::address::Listener;
use crate::config::{
    self, Capture, Config, Drain, EnvironmentFile, Fault, Live, Log, Process, Readiness, Ready, servers,
};
use crate::runtime_directory::name_for;
use crate::supervisor::Policy;

/// The drain signal where none was given (signal(7)).
const TERM: i32 = 15;

/// What zdr is told by where it is started.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The working directory by the name that it was entered by, so that a symlink on the way can be switched.
    pub directory: PathBuf,
    /// `$PORT`.
    pub port: Option<String>,
    /// `$LISTEN_FDS` says that there are sockets for zdr.
    pub inherited: bool,
}

impl RunArgs {
    /// Checks what no single option can show, and makes the settings; or tells everything that is wrong.
    pub fn into_config(self, surroundings: &Surroundings) -> Result<Config, Vec<Fault>> {
        let RunArgs { options, command } = self;
        let mut faults = Vec::new();
        if command.first().is_none_or(|program| program.is_empty()) {
            faults.push(Fault::of("command", NO_COMMAND));
        }
        let inherit = options.listen.is_empty() && surroundings.inherited;
        let port = surroundings.port.as_ref().filter(|_| !inherit);
        let listeners = listeners(&options.listen, port, &mut faults);
        let alone = options.listen.is_empty() && port.is_none() && !inherit;
        let capture = match options.capture {
            CaptureMode::Always => Capture::Everything,
            CaptureMode::Auto if alone => Capture::Own,
            CaptureMode::Auto | CaptureMode::Never => Capture::Nothing,
        };
        if alone && options.capture == CaptureMode::Never {
            faults.push(Fault::of("capture", NO_LISTENER));
        }
        let can_be_asked = alone
            || inherit
            || capture != Capture::Nothing
            || listeners.iter().any(|listener| listener.address.is_stream());
        if !can_be_asked {
            faults.extend(unanswerable(&options));
        }
        let checked =
            [("check", config::distinct_checks(&options.check)), ("hook", config::distinct_hooks(&options.hook))];
        faults.extend(checked.into_iter().filter_map(|(option, checked)| Some(Fault::of(option, checked.err()?))));
        let Some(program) = command.first().filter(|_| faults.is_empty()) else { return Err(faults) };
        let policy = policy(&options);
        let here = |path: PathBuf| surroundings.directory.join(path);
        let directory = Some(here(options.chdir.unwrap_or_default()));
        let in_place = |file: EnvironmentFile| EnvironmentFile { path: here(file.path), ..file };
        let live = options.live.map(|spec| Live {
            spec,
            interval: options.live_interval,
            timeout: options.live_timeout,
            failures: options.live_failures,
        });
        Ok(Config {
            name_was_chosen: options.name.is_some(),
            name: options.name.unwrap_or_else(|| name_for(program)),
            admin: options.admin.map(here),
            health: options.health,
            health_paths: options.health_path,
            listeners,
            inherit,
            capture,
            process: Process {
                directory,
                environment: options.env,
                environment_files: options.env_file.into_iter().map(in_place).collect(),
                user: options.user,
                group: options.group,
                umask: options.umask,
                limits: options.limit,
                no_new_privileges: options.no_new_privs,
                without_listen_pid: options.no_listen_pid,
            },
            readiness: Readiness {
                ready: options.ready.unwrap_or(Ready::Default),
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
            log: Log { format: options.log_format, verbose: options.verbose, quiet: options.quiet },
            tail: options.tail.into(),
            max_memory: options.max_memory,
            watch: options.watch.into_iter().map(here).collect(),
            watch_debounce: options.watch_debounce,
            hooks: options.hook,
            hook_timeout: options.hook_timeout,
            policy,
            command,
        })
    }
}

fn policy(options: &RunOptions) -> Policy {
    Policy {
        ready_timeout: options.ready_timeout,
        drain_timeout: options.drain_timeout,
        bake: options.bake,
        bake_keep: options.bake_keep.unwrap_or(options.bake),
        lame_duck: options.lame_duck,
        instances: options.instances,
        surge: options.surge,
        queue: options.queue,
        restart: options.restart,
        max_restarts: options.max_restarts,
        min_uptime: options.min_uptime,
        max_lifetime: options.max_lifetime,
        hooks: options.hook.iter().map(|(hook, _)| *hook).collect(),
        watched: !options.watch.is_empty(),
    }
}

const NO_COMMAND: &str = "the command is missing; write it behind `--`, for example `zdr run -l 8080 -- ./my-server`, or as `command` in a file";

const NO_LISTENER: &str =
    "no listener: say where to listen, for example `--listen 127.0.0.1:8080`, set PORT, or leave out `--capture never`";

/// With the names of those that have none: `main` for the first.
fn listeners(given: &[Listener], port: Option<&String>, faults: &mut Vec<Fault>) -> Vec<Listener> {
    let mut listeners = given.to_vec();
    for (position, listener) in listeners.iter_mut().enumerate().filter(|(_, listener)| listener.name.is_empty()) {
        listener.name = if position == 0 { "main".to_owned() } else { format!("listener{}", position + 1) };
    }
    match port.filter(|_| listeners.is_empty()).map(|port| Listener::parse(port, "main")) {
        Some(Ok(listener)) => listeners.push(listener),
        Some(Err(error)) => faults.push(Fault::of_none(format!("PORT: {error}"))),
        None => {}
    }
    if let Err(error) = config::distinct(&listeners) {
        faults.push(Fault::of("listen", error));
    }
    listeners
}

/// The questions to a listener, where there is none that can be connected to.
fn unanswerable(options: &RunOptions) -> Vec<Fault> {
    let asks = |spec: &Ready| matches!(spec, Ready::Path(_) | Ready::Tcp);
    let needs = |option: &str, spec: &Ready, or: &str| {
        format!("{option}{spec} needs a TCP or Unix listener to ask; add one, or choose {or}")
    };
    let ready = options.ready.iter().filter(|spec| asks(spec));
    let ready = ready.map(|spec| Fault::of("ready", needs("--ready ", spec, "notify, exec: or a duration")));
    let checks = options.check.iter().enumerate().filter(|(_, check)| asks(&check.spec)).map(|(nth, check)| {
        let option = format!("--check {}=", check.name);
        Fault::of_value("check", nth, needs(&option, &check.spec, "a URL or exec:"))
    });
    let live = options.live.iter().filter(|spec| asks(spec));
    let live = live.map(|spec| Fault::of("live", needs("--live ", spec, "a URL or exec:")));
    ready.chain(checks).chain(live).collect()
}
