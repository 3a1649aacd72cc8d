//! What each command does: from checked arguments to an exit code, or to a code and one sentence.

use std::fmt::Display;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use anstream::{AutoStream, ColorChoice};
use clap::{ArgMatches, CommandFactory};
use clap_complete::Shell;

use crate::check::faults;
use crate::cli::{Asked, CheckArgs, Cli, Command, Refusal, RehearseArgs, RunArgs, SampleArgs, Surroundings, handed_on};
use crate::client;
use crate::edges::listeners::ListenError;
use crate::log;
use crate::rehearse::{self, Plan, sample::Sample};
use crate::run::{RunError, run as supervise};

/// Done as asked.
const DONE: u8 = 0;
/// It failed.
const FAILED: u8 = 1;
/// Wrong use or bad configuration.
const WRONG_USE: u8 = 2;

/// An exit code, or one with a sentence.
pub type Outcome = Result<u8, (u8, String)>;

/// Does what was asked for; what was given is known besides what it means.
pub fn perform(command: Command, given: &ArgMatches) -> Outcome {
    match command {
        Command::Run(args) => run(*args, given),
        Command::Check(args) => check(*args, given),
        Command::Reload(args) => told(client::reload(&args)),
        Command::Restart(args) => told(client::restart(&args)),
        Command::Rollback(args) => told(client::rollback(&args)),
        Command::Scale(args) => told(client::scale(&args)),
        Command::Pause(args) => told(client::pause(&args)),
        Command::Resume(args) => told(client::resume(&args)),
        Command::Stop(args) => told(client::stop(&args)),
        Command::Status(args) => told(client::status(&args)),
        Command::Health(args) => told(client::health(&args)),
        Command::Wait(args) => told(client::wait(&args)),
        Command::Events(args) => told(client::events(&args)),
        Command::List(args) => Ok(client::list(&args)),
        Command::Rehearse(args) => rehearse(*args, given),
        Command::Completions { shell } => completions(shell),
        Command::SampleServer(args) => sample(args),
    }
}

/// `zdr run`.
fn run(args: RunArgs, given: &ArgMatches) -> Outcome {
    let asked = Asked::new(given, args.options.config, surroundings().map_err(with(WRONG_USE))?);
    let effective = asked.read().map_err(|refusal| refused(&refusal))?;
    let config = &effective.config;
    let level = log::level(config.log, std::env::var("ZDR_LOG").ok()).map_err(with(WRONG_USE))?;
    log::begin(level, config.log.format, &config.name).map_err(with(WRONG_USE))?;
    supervise(effective.into_reading(), asked.reread()).map_err(|error| match error {
        RunError::Admin(_)
        | RunError::Settings(_)
        | RunError::EnvironmentFile(_)
        | RunError::Listen(ListenError::Inherited { .. }) => (WRONG_USE, error.to_string()),
        RunError::Listen(_) | RunError::System(_) => (FAILED, error.to_string()),
    })
}

/// `zdr check`.
fn check(args: CheckArgs, given: &ArgMatches) -> Outcome {
    let file = args.file.or(args.run.options.config);
    let good = file.as_ref().map_or_else(|| "the settings are".to_owned(), |file| format!("{} is", file.display()));
    let asked = Asked::new(given, file, surroundings().map_err(with(WRONG_USE))?);
    let effective = asked.read().map_err(|refusal| refused(&refusal))?;
    log::level(effective.config.log, std::env::var("ZDR_LOG").ok()).map_err(with(WRONG_USE))?;
    let told = if args.print { effective.as_toml() } else { String::new() };
    io::stdout().write_all(told.as_bytes()).map_err(with(FAILED))?;
    let faults = faults(&effective.config);
    if !faults.is_empty() {
        return Err(refused(&effective.refusal(faults)));
    }
    match args.print {
        true => Ok(DONE),
        false => writeln!(io::stdout(), "zdr: {good} good").map(|()| DONE).map_err(with(FAILED)),
    }
}

/// Every mistake by itself, in colours where the standard error is a terminal that wants them.
fn refused(refusal: &Refusal) -> (u8, String) {
    let coloured = AutoStream::choice(&io::stderr()) != ColorChoice::Never;
    (WRONG_USE, refusal.sentences(coloured).join("\nzdr: "))
}

/// A shell keeps in PWD the name by which a directory was entered; it counts where it still is this directory (pwd(1)).
fn surroundings() -> io::Result<Surroundings> {
    let here = fs::metadata(".")?;
    let entered = std::env::var_os("PWD").map(PathBuf::from).filter(|path| path.is_absolute());
    let same = |path: &PathBuf| fs::metadata(path).is_ok_and(|it| (it.dev(), it.ino()) == (here.dev(), here.ino()));
    let directory = entered.filter(same).map_or_else(std::env::current_dir, Ok)?;
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let ours = variable("LISTEN_PID").is_none_or(|pid| pid == std::process::id().to_string());
    let inherited = variable("LISTEN_FDS").is_some_and(|number| number != "0") && ours;
    Ok(Surroundings { directory, port: variable("PORT"), inherited })
}

/// Says why it failed, and answers with the code.
pub fn said((code, sentence): (u8, String)) -> u8 {
    let _ = writeln!(io::stderr(), "zdr: {sentence}");
    code
}

/// What a client command was told.
fn told(outcome: client::Outcome) -> Outcome {
    outcome.map_err(|error| (error.code(), error.to_string()))
}

/// `zdr rehearse`.
fn rehearse(args: RehearseArgs, given: &ArgMatches) -> Outcome {
    let zdr = std::env::current_exe().map_err(with(FAILED))?;
    let mut plan = Plan::new(zdr);
    plan.run_options = handed_on(given);
    plan.reloads = args.reloads;
    plan.rate_per_client = args.rate;
    plan.path = args.path;
    plan.command = (!args.command.is_empty()).then_some(args.command);
    let terminal = io::stderr().is_terminal();
    let mut say = |what: &str| {
        let (start, end) = if terminal { ("\r\x1b[K", "") } else { ("", "\n") };
        let _ = write!(io::stderr(), "{start}{what}{end}");
    };
    let rehearsed = rehearse::rehearse(&plan, &mut say);
    if terminal {
        let _ = write!(io::stderr(), "\r\x1b[K");
    }
    let table = rehearsed.map_err(with(FAILED))?;
    // A reader that has gone, as in `zdr rehearse | head`, still gets the exit code.
    let _ = table.write(&mut io::stdout());
    Ok(if table.passed() { DONE } else { FAILED })
}

/// `zdr completions`.
fn completions(shell: Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "zdr", &mut script);
    io::stdout().write_all(&script).map(|()| DONE).map_err(with(FAILED))
}

/// `zdr sample-server`.
fn sample(args: SampleArgs) -> Outcome {
    let code = Sample::from(args).serve().map_err(with(FAILED))?;
    Ok(u8::try_from(code).unwrap_or(FAILED))
}

fn with<E: Display>(code: u8) -> impl Fn(E) -> (u8, String) {
    move |error| (code, error.to_string())
}
