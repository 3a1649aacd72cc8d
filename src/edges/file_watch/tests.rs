//! Real files in folders of their own, and what the owner is told of them.

mod ignored;
mod limits;
mod pace;
mod places;
mod saves;
mod trees;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{FileWatch, WatchError};
use crate::edges::notice::Notice;
use crate::supervisor::Event;

/// Only a failure waits this long.
const DEADLINE: Duration = Duration::from_secs(20);

/// Long enough for what belongs together to come together.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// A folder, what is watched of it, and what was told.
struct Scene {
    folder: TempDir,
    watch: Option<FileWatch>,
    owner: mpsc::UnboundedSender<Notice>,
    told: mpsc::UnboundedReceiver<Notice>,
}

impl Scene {
    /// A repository with these files, of which nothing is watched yet.
    fn with(files: &[&str]) -> Self {
        let (owner, told) = mpsc::unbounded_channel();
        let scene = Self { folder: tempfile::tempdir().unwrap(), watch: None, owner, told };
        scene.make(".git/info");
        for file in files {
            scene.write(file);
        }
        scene
    }

    fn watch(self, paths: &[&str]) -> Self {
        self.watch_with(paths, DEBOUNCE).unwrap()
    }

    fn watch_with(mut self, paths: &[&str], debounce: Duration) -> Result<Self, WatchError> {
        let paths: Vec<_> = paths.iter().map(|path| self.at(path)).collect();
        self.watch = Some(FileWatch::start(&paths, debounce, self.owner.clone())?);
        Ok(self)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn make(&self, folder: &str) {
        fs::create_dir_all(self.at(folder)).unwrap();
    }

    fn write(&self, file: &str) {
        self.write_text(file, "text");
    }

    fn write_text(&self, file: &str, text: &str) {
        fs::create_dir_all(self.at(file).parent().unwrap()).unwrap();
        fs::write(self.at(file), text).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.at(from), self.at(to)).unwrap();
    }

    fn remove(&self, file: &str) {
        fs::remove_file(self.at(file)).unwrap();
    }

    fn remove_all(&self, folder: &str) {
        fs::remove_dir_all(self.at(folder)).unwrap();
    }

    fn link(&self, to: &str, name: &str) {
        std::os::unix::fs::symlink(to, self.at(name)).unwrap();
    }

    /// The next path that is told, named from the folder on.
    async fn told(&mut self) -> String {
        let notice = timeout(DEADLINE, self.told.recv()).await.expect("nothing was told").unwrap();
        let Notice::Happened(Event::Changed { path }) = notice else { panic!("{notice:?}") };
        path.strip_prefix(self.folder.path()).unwrap().display().to_string()
    }

    /// Of what was done before this, nothing is told that was not told already: what is told first, and so is the first
    /// that counted, is this file.
    async fn tells_nothing_before(&mut self, file: &str) {
        self.write(file);
        assert_eq!(self.told().await, file);
    }

    /// The folders that the kernel watches, named from the folder on.
    fn watched(&self) -> BTreeSet<String> {
        let watched = watched_inodes();
        let mut folders = BTreeSet::new();
        let mut rest = vec![self.folder.path().to_path_buf()];
        while let Some(folder) = rest.pop() {
            if watched.contains_key(&fs::metadata(&folder).unwrap().ino()) {
                folders.insert(folder.strip_prefix(self.folder.path()).unwrap().display().to_string());
            }
            let entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap());
            rest.extend(entries.filter(|entry| entry.file_type().unwrap().is_dir()).map(|entry| entry.path()));
        }
        folders
    }
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

/// Of this process, with what they are watched for, by proc_pid_fdinfo(5); inodes of others' folders do not matter.
fn watched_inodes() -> BTreeMap<u64, u64> {
    let inotify = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
    let texts: Vec<_> =
        fs::read_dir("/proc/self/fdinfo").unwrap().map(|entry| inotify(entry.unwrap().path())).collect();
    let lines = texts.iter().flat_map(|text| text.lines()).filter(|line| line.starts_with("inotify "));
    let value = |line: &str, name| u64::from_str_radix(line.split(name).nth(1)?.split(' ').next()?, 16).ok();
    lines.map(|line| (value(line, " ino:").unwrap(), value(line, " mask:").unwrap())).collect()
}

/// The signals that the threads of this name have blocked (proc_pid_status(5)).
fn blocked_in_threads(name: &str) -> Vec<u64> {
    let read = |thread: &Path| -> io::Result<Option<u64>> {
        if fs::read_to_string(thread.join("comm"))?.trim() != name {
            return Ok(None);
        }
        let status = fs::read_to_string(thread.join("status"))?;
        let blocked = status.lines().find_map(|line| line.strip_prefix("SigBlk:"));
        Ok(blocked.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()))
    };
    let threads = fs::read_dir("/proc/self/task").unwrap().flatten();
    // One that ends meanwhile has none.
    threads.filter_map(|thread| read(&thread.path()).ok().flatten()).collect()
}
