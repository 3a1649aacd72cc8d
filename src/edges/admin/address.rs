//! Having the admin socket and the health addresses: one supervisor per name, stale sockets replaced.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access};

use crate::address::{Address, LONGEST_UNIX_PATH, Listener};
use crate::edges::http_server::Door;
use crate::edges::listeners::{ListenError, OwnPath};
use crate::runtime_directory::beside;

/// The admin socket, held as long as this lives, and removed when it is dropped.
#[derive(Debug)]
pub struct AdminAddress {
    name: String,
    path: PathBuf,
    listener: UnixListener,
    _lock: File,
}

/// Why there is no admin socket or health address.
#[derive(Debug)]
pub enum AdminError {
    /// Another zdr has the name.
    Running {
        /// The name.
        name: String,
        /// Its process id, if it wrote it.
        pid: Option<i32>,
    },
    /// The directory is there, but others may write to it.
    NotPrivate(PathBuf),
    /// The path does not fit into a socket address.
    TooLong(PathBuf),
    /// Something could not be made.
    Make {
        /// What.
        path: PathBuf,
        /// How.
        source: io::Error,
    },
    /// The health address cannot be had.
    Health {
        /// Which.
        address: String,
        /// How.
        source: io::Error,
    },
    /// The path of a health address cannot be had.
    HealthPath(ListenError),
}

impl fmt::Display for AdminError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Running { name, pid } => {
                let pid = pid.map(|pid| format!(" as process {pid}")).unwrap_or_default();
                write!(f, "a zdr called `{name}` is already running{pid}; stop it or choose another --name")
            }
            Self::NotPrivate(path) => write!(
                f,
                "the directory {} belongs to somebody else; remove it or choose another place with --admin",
                path.display()
            ),
            Self::TooLong(path) => {
                write!(f, "the path {} is too long for a socket; choose a shorter one with --admin", path.display())
            }
            Self::Make { path, source } => {
                write!(f, "cannot make {}: {}; choose another place with --admin PATH", path.display(), words(source))
            }
            Self::Health { address, source } => {
                write!(f, "cannot answer health questions on {address}: {}; choose another --health", words(source))
            }
            Self::HealthPath(error) => write!(f, "--health: {error}"),
        }
    }
}

/// Without the number of the error, but with the words of those that are made here.
fn words(source: &io::Error) -> String {
    source.raw_os_error().map_or_else(|| source.to_string(), |_| source.kind().to_string())
}

impl std::error::Error for AdminError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Make { source, .. } | Self::Health { source, .. } => Some(source),
            Self::HealthPath(error) => Some(error),
            Self::Running { .. } | Self::NotPrivate(_) | Self::TooLong(_) => None,
        }
    }
}

impl AdminAddress {
    /// Takes the name and binds the socket. The lock beside it tells the living from the dead: the kernel lets go of it
    /// however a process ends (flock(2)).
    pub fn take(name: &str, path: &Path) -> Result<Self, AdminError> {
        let make = |path: &Path, source| AdminError::Make { path: path.to_owned(), source };
        fits(path)?;
        private_directory(path.parent().unwrap_or(Path::new("/")))?;
        let lock_path = beside(path, "lock");
        let mut lock = match lock(&lock_path) {
            Ok(Lock::Ours(file)) => file,
            Ok(Lock::Theirs(pid)) => return Err(AdminError::Running { name: name.to_owned(), pid }),
            Err(source) => return Err(make(&lock_path, source)),
        };
        write_pid(&mut lock).map_err(|source| make(&lock_path, source))?;
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(make(path, error)),
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(|source| make(path, source))?;
        fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(|source| make(path, source))?;
        Ok(Self { name: name.to_owned(), path: path.to_owned(), listener, _lock: lock })
    }

    /// Whether it could be taken, if nobody else has it; makes nothing.
    pub fn may_be(path: &Path) -> Result<(), AdminError> {
        fits(path)?;
        let directory = path.parent().unwrap_or(Path::new("/"));
        if directory.exists() {
            belongs_to_us(directory)?;
        }
        let there = directory.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
        let source = match fs::metadata(there) {
            Ok(found) if !found.is_dir() => Some(io::Error::from(io::ErrorKind::NotADirectory)),
            _ => access(there, AccessFlags::W_OK | AccessFlags::X_OK).err().map(io::Error::from),
        };
        source.map_or(Ok(()), |source| Err(AdminError::Make { path: directory.to_owned(), source }))
    }

    /// What the supervisor is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where the socket is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn door(&self) -> io::Result<Door> {
        let listener = self.listener.try_clone()?;
        listener.set_nonblocking(true)?;
        tokio::net::UnixListener::from_std(listener).map(Door::Unix)
    }
}

impl Drop for AdminAddress {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
        // Still locked: whoever opened it meanwhile finds that it is no longer the file of that name, and looks again.
        let _ = fs::remove_file(beside(&self.path, "lock"));
    }
}

/// Made for us alone; one that exists must be ours, or a system directory that was chosen on purpose by --admin.
fn private_directory(directory: &Path) -> Result<(), AdminError> {
    if !directory.exists() {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
        return made.map_err(|source| AdminError::Make { path: directory.to_owned(), source });
    }
    belongs_to_us(directory)
}

/// The sockets beside it on which a generation says that it is ready have longer names.
fn fits(path: &Path) -> Result<(), AdminError> {
    match beside(path, "18446744073709551615.ack").as_os_str().len() > LONGEST_UNIX_PATH {
        true => Err(AdminError::TooLong(path.to_owned())),
        false => Ok(()),
    }
}

fn belongs_to_us(directory: &Path) -> Result<(), AdminError> {
    let owner = fs::metadata(directory);
    let owner = owner.map_err(|source| AdminError::Make { path: directory.to_owned(), source })?;
    match owner.uid() == nix::unistd::geteuid().as_raw() || owner.uid() == 0 {
        true => Ok(()),
        false => Err(AdminError::NotPrivate(directory.to_owned())),
    }
}

enum Lock {
    Ours(File),
    /// With the process id that they wrote, if they did.
    Theirs(Option<i32>),
}

/// Locks the file of this name; one that was removed between opening and locking locks nobody out.
fn lock(path: &Path) -> io::Result<Lock> {
    loop {
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Lock::Theirs(written_pid(&mut file))),
            Err(TryLockError::Error(source)) => return Err(source),
        }
        let locked = file.metadata()?;
        if fs::metadata(path).is_ok_and(|named| (named.dev(), named.ino()) == (locked.dev(), locked.ino())) {
            return Ok(Lock::Ours(file));
        }
    }
}

fn written_pid(lock: &mut File) -> Option<i32> {
    let mut text = String::new();
    lock.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn write_pid(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())
}

/// An address that answers health questions only, held as long as this lives.
#[derive(Debug)]
pub struct HealthAddress {
    /// Where it is, with the port that the kernel chose.
    pub address: Address,
    socket: HealthSocket,
}

#[derive(Debug)]
enum HealthSocket {
    Tcp(std::net::TcpListener),
    Path(OwnPath),
}

impl HealthAddress {
    /// Binds it.
    pub fn bind(asked: &Listener) -> Result<Self, AdminError> {
        let failed = |source| AdminError::Health { address: asked.address.to_string(), source };
        match &asked.address {
            Address::Tcp(address) => {
                let listener = std::net::TcpListener::bind(address).map_err(failed)?;
                let address = Address::Tcp(listener.local_addr().map_err(failed)?);
                Ok(Self { address, socket: HealthSocket::Tcp(listener) })
            }
            Address::Unix(path) => {
                let socket = HealthSocket::Path(OwnPath::bind(path, asked).map_err(AdminError::HealthPath)?);
                Ok(Self { address: asked.address.clone(), socket })
            }
            Address::Udp(_) | Address::Abstract(_) => Err(failed(io::Error::other(
                "write a TCP address such as 127.0.0.1:9000, or a path such as unix:/run/x",
            ))),
        }
    }

    pub(super) fn door(&self) -> io::Result<Door> {
        match &self.socket {
            HealthSocket::Tcp(listener) => {
                let listener = listener.try_clone()?;
                listener.set_nonblocking(true)?;
                tokio::net::TcpListener::from_std(listener).map(Door::Tcp)
            }
            HealthSocket::Path(path) => {
                let listener = UnixListener::from(path.socket().try_clone()?);
                listener.set_nonblocking(true)?;
                tokio::net::UnixListener::from_std(listener).map(Door::Unix)
            }
        }
    }
}
