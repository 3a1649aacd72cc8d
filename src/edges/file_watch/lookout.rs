//! All watched paths, and the directories that are watched for them.
//!
//! Never waits: `take` is given what the kernel told, `settle` is called when it was quiet long enough.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use notify::EventKind;
use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RemoveKind, RenameMode};

use super::WatchError;
use super::directories::{Directories, Report};
use super::place::{Fate, Place};

/// Watches over some paths.
#[derive(Debug)]
pub struct Lookout {
    places: Vec<Place>,
    directories: Directories,
}

impl Lookout {
    /// From now on nothing is missed.
    pub fn start(paths: &[PathBuf], directories: Directories) -> Result<Self, WatchError> {
        let find = |path: &PathBuf| Place::find(path).map_err(|source| WatchError::Path { path: path.clone(), source });
        let places = paths.iter().map(find).collect::<Result<_, _>>()?;
        let mut lookout = Self { places, directories };
        lookout.look();
        Ok(lookout)
    }

    /// Takes in what the kernel told; true where one of the paths has changed, or is gone or back.
    pub fn take(&mut self, reports: Vec<Report>) -> bool {
        let mut look = false;
        for report in reports.into_iter().flatten() {
            if report.need_rescan() {
                self.directories.forget_all();
                self.places.iter_mut().for_each(Place::doubt);
                look = true;
            }
            let Some(fate) = fate(report.kind) else { continue };
            for path in &report.paths {
                let folder = self.is_folder(report.kind, path);
                // Who has the name now is somebody else.
                let was_watched = fate != Fate::Written && self.directories.forget(path);
                look |= was_watched;
                for place in &mut self.places {
                    look |= place.take(path, folder, fate);
                }
            }
        }
        if look {
            self.look();
        }
        // Asked of all of them: each keeps it until then.
        self.places.iter_mut().fold(false, |stirred, place| place.has_stirred() | stirred)
    }

    /// Things are quiet: one of the paths that have changed, if any has.
    pub fn settle(&mut self) -> Option<PathBuf> {
        let changed: Vec<_> = self.places.iter_mut().filter_map(Place::settle).collect();
        changed.into_iter().next()
    }

    /// Until there is nothing more to watch: what came below a directory before it was watched was told by nobody.
    fn look(&mut self) {
        loop {
            let wanted: BTreeSet<_> = self.places.iter_mut().flat_map(Place::look).collect();
            if !self.directories.watch(&wanted) {
                return;
            }
        }
    }

    fn is_folder(&self, kind: EventKind, path: &Path) -> bool {
        match kind {
            EventKind::Create(CreateKind::Folder) | EventKind::Remove(RemoveKind::Folder) => true,
            EventKind::Modify(ModifyKind::Name(RenameMode::To)) => path.symlink_metadata().is_ok_and(|it| it.is_dir()),
            EventKind::Modify(ModifyKind::Name(_)) => self.directories.has(path),
            _ => false,
        }
    }
}

fn fate(kind: EventKind) -> Option<Fate> {
    match kind {
        EventKind::Create(_) | EventKind::Modify(ModifyKind::Name(RenameMode::To)) => Some(Fate::Came),
        EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(RenameMode::From)) => Some(Fate::Went),
        EventKind::Modify(ModifyKind::Data(_)) | EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
            Some(Fate::Written)
        }
        // Both sides of a renaming are told one by one as well.
        _ => None,
    }
}
