//! Who the server is to be: a user and groups, looked up in the system's database before anything is started.
//!
//! Never changes who zdr is; the child changes itself (`kernel::clone`).

use std::ffi::{CString, OsStr, OsString};
use std::fmt;
use std::fs;

use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid, getgrouplist};

use super::kernel::clone::Ids;
use crate::config::{Fault, Process};

/// Who the server is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// What it changes to; None where zdr is that already.
    pub ids: Option<Ids>,
    /// What its environment says of the user, as a login would set it; None takes the variable away.
    pub variables: Vec<(&'static str, Option<OsString>)>,
}

/// Why the server cannot be that user.
#[derive(Debug)]
pub enum IdentityError {
    /// No such user.
    NoUser(String),
    /// No such group.
    NoGroup(String),
    /// A number that the database does not know, without a group.
    GroupNotKnown(String),
    /// The database did not answer.
    Database {
        /// What was asked for.
        name: String,
        /// How.
        source: nix::Error,
    },
    /// zdr has no right to it.
    NotAllowed {
        /// The option and its value.
        asked: String,
        /// What is missing.
        way_out: &'static str,
    },
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoUser(name) => write!(f, "--user: there is no user `{name}`; write one that is there, or a number"),
            Self::NoGroup(name) => {
                write!(f, "--group: there is no group `{name}`; write one that is there, or a number")
            }
            Self::GroupNotKnown(uid) => {
                write!(f, "--user: nobody is called {uid}, so the group is not known; add --group")
            }
            Self::Database { name, source } => {
                write!(f, "cannot look up `{name}` in the user database: {}", source.desc())
            }
            Self::NotAllowed { asked, way_out } => {
                write!(f, "{asked}: zdr may not start a server as somebody else; {way_out}")
            }
        }
    }
}

impl std::error::Error for IdentityError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Database { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl Identity {
    /// Who a server is to be; or what is wrong with the options that say it.
    pub fn of(process: &Process) -> Result<Option<Self>, Fault> {
        let (user, group) = (process.user.as_deref(), process.group.as_deref());
        Self::look_up(user, group).map_err(|error| {
            let of_group = matches!(error, IdentityError::NoGroup(_)) || user.is_none();
            Fault::of(if of_group { "group" } else { "user" }, error.to_string())
        })
    }

    /// Looks the names up; None where neither is asked for. A name counts before a number, as for chown(1).
    pub fn look_up(user: Option<&str>, group: Option<&str>) -> Result<Option<Self>, IdentityError> {
        let group_id = group.map(find_group).transpose()?;
        let (ids, variables) = match user {
            None => match group_id {
                None => return Ok(None),
                Some(gid) => {
                    (Ids { uid: geteuid().as_raw(), gid: gid.as_raw(), groups: vec![gid.as_raw()] }, Vec::new())
                }
            },
            Some(user) => {
                let found = find_user(user)?;
                // Whoever zdr itself is keeps the groups that it has now.
                if found.uid == geteuid() && !geteuid().is_root() && group_id.is_none_or(|gid| gid == getegid()) {
                    return Ok(Some(Self { ids: None, variables: found.variables() }));
                }
                let Some(gid) = group_id.or(found.entry.as_ref().map(|entry| entry.gid)) else {
                    return Err(IdentityError::GroupNotKnown(user.to_owned()));
                };
                let groups =
                    found.groups(gid).map_err(|source| IdentityError::Database { name: user.to_owned(), source })?;
                (Ids { uid: found.uid.as_raw(), gid: gid.as_raw(), groups }, found.variables())
            }
        };
        let ours = ids.uid == geteuid().as_raw() && ids.gid == getegid().as_raw();
        if ours && !geteuid().is_root() {
            return Ok(Some(Self { ids: None, variables }));
        }
        let asked =
            || user.map_or_else(|| format!("--group {}", group.unwrap_or_default()), |user| format!("--user {user}"));
        match why_not() {
            Some(way_out) => Err(IdentityError::NotAllowed { asked: asked(), way_out }),
            None => Ok(Some(Self { ids: Some(ids), variables })),
        }
    }
}

/// What keeps zdr from changing its children, with the way out; None if nothing does.
fn why_not() -> Option<&'static str> {
    /// `CAP_SETGID` and `CAP_SETUID` (linux/capability.h).
    const NEEDED: u64 = 1 << 6 | 1 << 7;
    if !geteuid().is_root() {
        return Some("start zdr as root, or as that user itself");
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let lacks = effective.is_some_and(|mask| mask & NEEDED != NEEDED);
    lacks.then_some("give it the capabilities CAP_SETUID and CAP_SETGID")
}

struct Found {
    uid: Uid,
    /// None for a number that nobody is called.
    entry: Option<User>,
}

impl Found {
    /// As initgroups(3): the primary one, and those that name the user as a member.
    fn groups(&self, primary: Gid) -> nix::Result<Vec<u32>> {
        let name = self.entry.as_ref().and_then(|entry| CString::new(entry.name.as_bytes()).ok());
        let groups = name.map_or_else(|| Ok(vec![primary]), |name| getgrouplist(&name, primary))?;
        Ok(groups.into_iter().map(Gid::as_raw).collect())
    }

    /// As systemd.exec(5) sets them with `User=`: a shell that lets nobody in is left out.
    fn variables(&self) -> Vec<(&'static str, Option<OsString>)> {
        let entry = self.entry.as_ref();
        let name = entry.map(|entry| OsString::from(&entry.name));
        let shell = entry.map(|entry| entry.shell.as_os_str()).filter(|shell| lets_in(shell));
        vec![
            ("HOME", entry.map(|entry| entry.dir.clone().into_os_string())),
            ("USER", name.clone()),
            ("LOGNAME", name),
            ("SHELL", shell.map(OsStr::to_owned)),
        ]
    }
}

fn lets_in(shell: &OsStr) -> bool {
    let name = std::path::Path::new(shell).file_name().unwrap_or_default();
    !shell.is_empty() && name != "nologin" && name != "false"
}

/// The largest number means "leave it as it is" to setresuid(2), and would leave the server root.
fn number(given: &str) -> Option<u32> {
    given.parse().ok().filter(|number| *number != u32::MAX && !given.starts_with('+'))
}

fn find_user(given: &str) -> Result<Found, IdentityError> {
    let failed = |source| IdentityError::Database { name: given.to_owned(), source };
    if let Some(entry) = User::from_name(given).map_err(failed)? {
        return Ok(Found { uid: entry.uid, entry: Some(entry) });
    }
    let uid = number(given).map(Uid::from_raw).ok_or_else(|| IdentityError::NoUser(given.to_owned()))?;
    Ok(Found { uid, entry: User::from_uid(uid).map_err(failed)? })
}

fn find_group(given: &str) -> Result<Gid, IdentityError> {
    let failed = |source| IdentityError::Database { name: given.to_owned(), source };
    if let Some(entry) = Group::from_name(given).map_err(failed)? {
        return Ok(entry.gid);
    }
    number(given).map(Gid::from_raw).ok_or_else(|| IdentityError::NoGroup(given.to_owned()))
}
