//! Control groups: one for each generation, which holds all its processes, whatever they make of themselves.
//!
//! Only where zdr may make groups below its own in the unified hierarchy (cgroup v2, cgroups(7)). Never turns a controller on,
//! so zdr and its groups may be side by side, and never touches a group that it did not make.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Arc;

use crate::supervisor::Instance;

/// The groups of this zdr.
#[derive(Debug)]
pub struct ControlGroups {
    /// Our own group; None where there is none that we may make others in.
    own: Option<PathBuf>,
    /// Left by their generations, but not by their last process yet.
    leaving: Vec<PathBuf>,
}

/// The group of one generation.
#[derive(Clone, Debug)]
pub struct ControlGroup {
    path: PathBuf,
    directory: Arc<File>,
}

impl ControlGroups {
    /// Looks for our own group, and removes what zdrs that were killed have left empty there.
    pub fn find() -> Self {
        let own = own_group();
        let groups = own.iter().flat_map(|own| fs::read_dir(own).into_iter().flatten().flatten());
        for group in groups.filter(|group| group.file_name().to_str().is_some_and(is_left)) {
            remove(&group.path());
        }
        Self { own, leaving: Vec::new() }
    }

    /// The group for a new instance; None where there can be none.
    pub fn make(&self, instance: Instance) -> Option<ControlGroup> {
        let path = self.own.as_ref()?.join(format!("zdr-{}-g{instance}", process::id()));
        fs::create_dir(&path).ok()?;
        let Ok(directory) = File::open(&path) else {
            remove(&path);
            return None;
        };
        Some(ControlGroup { path, directory: Arc::new(directory) })
    }

    /// Removes the group, if there is one, as soon as its last process has gone.
    pub fn leave(&mut self, group: Option<ControlGroup>) {
        self.leaving.extend(group.map(|group| group.path));
        self.sweep();
    }

    /// Removes those that are empty by now; true if none is left to be removed.
    pub fn sweep(&mut self) -> bool {
        self.leaving.retain(|group| !remove(group));
        self.leaving.is_empty()
    }
}

impl ControlGroup {
    /// Its directory, by which a process is put into it.
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// Its living processes, and those of the groups that were made in it.
    pub fn processes(&self) -> Vec<i32> {
        processes(&self.path)
    }

    /// Kills them all at once; even one that forks meanwhile does not escape (cgroup.kill, since Linux 5.14).
    pub fn kill(&self) {
        // An older kernel has no such file; then each one is killed by itself.
        let _ = OpenOptions::new()
            .write(true)
            .open(self.path.join("cgroup.kill"))
            .and_then(|mut kill| kill.write_all(b"1"));
    }
}

fn processes(group: &Path) -> Vec<i32> {
    // A group of threads answers with an error; zdr makes none.
    let list = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let own = list.lines().filter_map(|pid| pid.parse().ok()).filter(|pid| *pid != 0);
    own.chain(below(group).flat_map(|group| processes(&group))).collect()
}

fn below(group: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}

/// True if it is gone: a group can be removed when nothing in it lives.
fn remove(group: &Path) -> bool {
    for inner in below(group) {
        remove(&inner);
    }
    fs::remove_dir(group).map_or_else(|error| error.kind() == io::ErrorKind::NotFound, |()| true)
}

/// A group of a zdr that is gone; what has our own number was left by somebody who had it before.
fn is_left(name: &str) -> bool {
    let owner = name.strip_prefix("zdr-").and_then(|rest| rest.split_once("-g"));
    let Some(Ok(pid)) = owner
        .filter(|(_, number)| number.split('.').all(|part| part.parse::<u64>().is_ok()))
        .map(|(pid, _)| pid.parse::<u32>())
    else {
        return false;
    };
    pid == process::id() || !Path::new(&format!("/proc/{pid}")).exists()
}

/// Our group in the file system, if it is really ours: mounts can hide and shift what the paths say.
fn own_group() -> Option<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let own = process::id().to_string();
    let is_ours = |group: &PathBuf| {
        fs::read_to_string(group.join("cgroup.procs")).is_ok_and(|list| list.lines().any(|pid| pid == own))
    };
    places(&groups, &mounts).into_iter().find(is_ours)
}

/// Where the group of the line `0::` may be below the mounts of type cgroup2 (proc_pid_mountinfo(5)).
fn places(groups: &str, mounts: &str) -> Vec<PathBuf> {
    let Some(group) = groups.lines().find_map(|line| line.strip_prefix("0::")) else {
        return Vec::new();
    };
    let place = |line: &str| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, at) = (fields.next()?, fields.next()?);
        let below = Path::new(group).strip_prefix(root).ok()?;
        // A path with blanks is written in a way that is not worth reading here.
        (kind.starts_with("cgroup2 ") && !at.contains('\\')).then(|| Path::new(at).join(below))
    };
    mounts.lines().filter_map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_group_is_looked_for_below_every_mount_of_the_unified_hierarchy() {
        let mounts = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
            41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n\
            42 31 0:38 /a /mnt/a rw - cgroup2 none rw\n\
            43 31 0:38 /other /mnt/other rw - cgroup2 none rw\n";
        let places = |group: &str| places(&format!("4:memory:/x\n0::{group}\n"), mounts);
        assert_eq!(places("/a/b"), [Path::new("/sys/fs/cgroup/unified/a/b"), Path::new("/mnt/a/b")]);
        assert_eq!(places("/"), [Path::new("/sys/fs/cgroup/unified")]);
        assert!(super::places("4:memory:/x\n", mounts).is_empty());
    }

    #[test]
    fn only_groups_of_the_dead_are_leftovers() {
        assert!(is_left("zdr-4194305-g1") && is_left(&format!("zdr-{}-g18", process::id())));
        for name in ["zdr-1-g1", "zdr-4194305", "zdr-x-g1", "zdr-4194305-gx", "system.slice", "zdr--g1"] {
            assert!(!is_left(name), "{name}");
        }
    }
}
