//! The loop: what the edges notice goes to the rules, what the rules ask for goes to the edges.
//!
//! The only file that reads the clock for the rules, and the only meeting place of the two.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::time::{Instant, SystemTime};

use tokio::runtime::Builder;
use tokio::sync::mpsc;
use tracing::{debug, info, trace, warn};

use crate::config::{Reading, Reread};
use crate::edges::admin::{Admin, AdminAddress, AdminError, HealthAddress, HealthPaths};
use crate::edges::environment_files::{self, EnvironmentFileError};
use crate::edges::kernel::allocator::keep_little;
use crate::edges::limits;
use crate::edges::listeners::{Inherited, ListenError, Listeners};
use crate::edges::{Edges, Noticed, Opened, Settings, reaper, signals};
use crate::runtime_directory::{admin_socket, directory};
use crate::supervisor::{Action, Event, Supervisor};

/// Why zdr could not begin.
#[derive(Debug)]
pub enum RunError {
    /// The name, the admin socket or a health address cannot be had.
    Admin(AdminError),
    /// The user or group of the server, or a resource limit, cannot be had.
    Settings(String),
    /// A file with variables cannot be read.
    EnvironmentFile(EnvironmentFileError),
    /// A listener cannot be had.
    Listen(ListenError),
    /// The system refused something that it never should.
    System(io::Error),
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admin(error) => error.fmt(f),
            Self::Settings(error) => f.write_str(error),
            Self::EnvironmentFile(error) => error.fmt(f),
            Self::Listen(error) => error.fmt(f),
            Self::System(error) => write!(f, "the system refused: {error}"),
        }
    }
}

impl std::error::Error for RunError {}

impl From<AdminError> for RunError {
    fn from(error: AdminError) -> Self {
        Self::Admin(error)
    }
}

impl From<EnvironmentFileError> for RunError {
    fn from(error: EnvironmentFileError) -> Self {
        Self::EnvironmentFile(error)
    }
}

impl From<ListenError> for RunError {
    fn from(error: ListenError) -> Self {
        Self::Listen(error)
    }
}

impl From<io::Error> for RunError {
    fn from(error: io::Error) -> Self {
        Self::System(error)
    }
}

/// Runs a supervisor to its end and answers with its exit code.
pub fn run(reading: Reading, reread: Reread) -> Result<u8, RunError> {
    keep_little();
    let Reading { config, text, placed } = reading;
    let inherited = config.inherit.then(inherited).transpose()?;
    environment_files::read(&config.process.environment_files)?;
    let limits = limits::open_more_files();
    signals::block()?;
    reaper::adopt_orphans()?;
    let path = config.admin.clone().unwrap_or_else(|| {
        admin_socket(&directory(|name| std::env::var_os(name), nix::unistd::geteuid().as_raw()), &config.name)
    });
    let settings = Settings::of(config, 1, limits, &path).map_err(|fault| RunError::Settings(placed(fault)))?;
    drop(placed);
    let config = &settings.config;
    let admin = AdminAddress::take(&config.name, &path)?;
    let health = config.health.iter().map(HealthAddress::bind).collect::<Result<Vec<_>, _>>()?;
    let listeners = match inherited {
        Some(inherited) => Listeners::inherit(inherited)?,
        None => Listeners::bind(&config.listeners)?,
    };
    // One thread at rest: the one that runs the loop. Threads for blocking work come and go.
    let runtime = Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(8)
        .thread_keep_alive(std::time::Duration::from_secs(1))
        .thread_stack_size(256 * 1024)
        .build()?;
    let opened = Opened { settings, text, limits, reread };
    let code = runtime.block_on(serve(opened, admin, health, listeners));
    runtime.shutdown_background();
    code
}

/// Before anything else is opened, which would get the number of a descriptor that was promised and is not there.
fn inherited() -> Result<Inherited, ListenError> {
    Inherited::take(|name| std::env::var(name).ok())
}

async fn serve(
    opened: Opened,
    address: AdminAddress,
    health: Vec<HealthAddress>,
    listeners: Listeners,
) -> Result<u8, RunError> {
    let config = &opened.settings.config;
    for listener in listeners.all() {
        info!(name = listener.name, address = %listener.address, "listening");
    }
    for door in &health {
        info!(address = %door.address, "answering health questions");
    }
    if let Some(advice) = &config.drain.advice {
        warn!("{advice}");
    }
    let channel = mpsc::unbounded_channel();
    let (paths, checks) = (HealthPaths(config.health_paths.clone()), config.checks.clone());
    let admin = Admin::start(address, health, paths, checks, &channel.0)?;
    let mut supervisor = Supervisor::new(any_number());
    let mut edges = Edges::new(opened, listeners, admin, channel, now())?;
    edges.watch_files().map_err(|error| RunError::Settings(error.to_string()))?;
    let mut event = Event::Boot;
    loop {
        debug!(?event);
        for action in supervisor.handle(event, now()) {
            trace!(?action);
            if let Action::Exit(code) = action {
                edges.goodbye().await;
                return Ok(code);
            }
            edges.perform(action, wall());
        }
        // Events may follow one upon another, and whoever asks how things are is not kept waiting for all of them.
        tokio::task::yield_now().await;
        event = loop {
            match edges.next(supervisor.next_deadline()).await? {
                Noticed::Happened(event) => break event,
                Noticed::Asked(reply) => {
                    let _ = reply.send(edges.picture(supervisor.status(now()), now()));
                }
            }
        };
    }
}

/// Another one in each zdr: the keys of a hash map are chosen at random.
fn any_number() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

#[expect(clippy::disallowed_methods, reason = "the one place where the clock is read")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "the one place where the calendar is read")]
fn wall() -> SystemTime {
    SystemTime::now()
}
