//! A folder of releases and what is started in it.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::fcntl::OFlag;
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, geteuid, pipe2};
use tempfile::TempDir;

use super::super::Release;
use crate::address::Listener;
use crate::config::Process;
use crate::edges::child::{Start, StartError};
use crate::edges::identity::Identity;
use crate::edges::kernel::clone::{Ids, Spawned};
use crate::edges::listeners::Lent;
use crate::supervisor::{Generation, Instance};

/// A folder of releases, and how a server in it is started.
pub(super) struct Site {
    folder: TempDir,
    pub(super) process: Process,
    identity: Option<Identity>,
    pub(super) listeners: Vec<Listener>,
}

impl Site {
    /// With a release in `r1` and one in `r2`; `current` is a symlink to the first.
    pub(super) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let site = Self { folder, process: Process::default(), identity: None, listeners: Vec::new() };
        for release in ["r1", "r2"] {
            fs::create_dir(site.at(release)).unwrap();
            fs::write(site.at(release).join("version"), release).unwrap();
            site.script(&format!("{release}/run"), &format!("#!/bin/sh\necho {release} \"$0\" \"$@\"\n"));
        }
        symlink("r1", site.at("current")).unwrap();
        site
    }

    pub(super) fn in_directory(mut self, name: &str) -> Self {
        self.process.directory = Some(self.at(name));
        self
    }

    /// As somebody who has no rights here, where the tests are somebody who has.
    pub(super) fn of_nobody(mut self) -> Self {
        let ids = geteuid().is_root().then(|| Ids { uid: 65534, gid: 65534, groups: Vec::new() });
        self.identity = Some(Identity { ids, variables: Vec::new() });
        self
    }

    pub(super) fn at(&self, name: &str) -> PathBuf {
        fs::canonicalize(self.folder.path()).unwrap().join(name)
    }

    pub(super) fn place(&self, name: &str) -> String {
        self.at(name).display().to_string()
    }

    /// By another process: a child of another test could hold it open for writing when it is to be executed.
    pub(super) fn script(&self, name: &str, text: &str) {
        let write = "printf %s \"$2\" > \"$1\" && chmod 755 \"$1\"";
        assert!(Command::new("sh").args(["-c", write, "sh", &self.place(name), text]).status().unwrap().success());
    }

    /// A program that is no script: a shell.
    pub(super) fn binary(&self, name: &str) {
        assert!(Command::new("cp").args(["/bin/sh", &self.place(name)]).status().unwrap().success());
    }

    /// The way in which a release is put in the place of another.
    pub(super) fn replace(&self, old: &str, new: &str) {
        fs::rename(self.at(new), self.at(old)).unwrap();
    }

    pub(super) fn switch(&self, to: &str) {
        symlink(to, self.at("next")).unwrap();
        self.replace("current", "next");
    }

    pub(super) fn take(&self, command: &[&str]) -> Release {
        let command: Vec<OsString> = command.iter().map(OsString::from).collect();
        Release::take(Generation(3), &self.process, &command).unwrap()
    }

    /// A release that has been started, and what it wrote.
    pub(super) fn first(&self, command: &[&str]) -> (Release, String) {
        let mut release = self.take(command);
        let told = self.told(|start| start.first(&mut release)).unwrap();
        (release, told)
    }

    pub(super) fn again(&self, release: &Release) -> String {
        self.told(|start| start.again(release)).unwrap_or_else(|error| panic!("{error}"))
    }

    /// What a process writes until its end.
    pub(super) fn told(
        &self,
        run: impl FnOnce(&Start<'_>) -> Result<Spawned, StartError>,
    ) -> Result<String, StartError> {
        let (output, input) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let socket = File::open("/dev/null").unwrap();
        let lent = self.listeners.iter().map(|listener| Lent { listener, socket: socket.as_fd() }).collect();
        let start = Start {
            instance: Instance { generation: Generation(4), number: 2 },
            process: &self.process,
            identity: self.identity.as_ref(),
            control_group: None,
            outlets: [Some(input.as_fd()); 2],
            said_on: None,
            watchdog: None,
            admin: Path::new("/nowhere"),
            lent,
            capture: None,
        };
        let spawned = run(&start)?;
        drop(input);
        Ok(end(&spawned, output))
    }
}

fn end(spawned: &Spawned, output: OwnedFd) -> String {
    let mut told = String::new();
    File::from(output).read_to_string(&mut told).unwrap();
    waitpid(Pid::from_raw(spawned.pid), None).unwrap();
    told.trim_end().to_owned()
}
