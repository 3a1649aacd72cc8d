//! One watched path: where it leads, what of it has changed, whether it is there.
//!
//! Does not know how the kernel is asked.

use std::io;
use std::mem;
use std::path::{Path, PathBuf};

use tracing::{info, warn};

use super::rules::Rules;
use super::way::{End, Way};

/// A path that somebody asked for.
#[derive(Debug)]
pub struct Place {
    asked: PathBuf,
    absolute: PathBuf,
    way: Way,
    /// Those of the directory at its end.
    rules: Option<Rules>,
    /// What has changed and was not told yet.
    changed: Option<PathBuf>,
    /// Something has changed since somebody asked, or is there no more, or again.
    stirred: bool,
    /// It was told that it is gone.
    missed: bool,
}

/// What became of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was made, or something was renamed to it.
    Came,
    /// It was removed or renamed.
    Went,
    /// It was written to.
    Written,
}

impl Place {
    /// One that is there.
    pub fn find(asked: &Path) -> io::Result<Self> {
        std::fs::metadata(asked)?;
        let absolute = std::path::absolute(asked)?;
        let way = Way::follow(&absolute);
        Ok(Self {
            asked: asked.to_path_buf(),
            absolute,
            way,
            rules: None,
            changed: None,
            stirred: false,
            missed: false,
        })
    }

    /// Follows the path anew and reads the rules anew; the directories that have to be watched for it.
    pub fn look(&mut self) -> Vec<PathBuf> {
        let way = Way::follow(&self.absolute);
        match (way.end == self.way.end, &way.end) {
            (true, _) => {}
            (false, End::Missing) => self.stirred = true,
            (false, _) => self.changed(self.asked.clone()),
        }
        self.way = way;
        self.rules = match &self.way.end {
            End::Directory(root) => Some(Rules::of(root)),
            End::File(_) | End::Missing => None,
        };
        let mut directories: Vec<_> = self.rules.iter().flat_map(Rules::directories).collect();
        directories.extend(self.way.hinges.iter().filter_map(|hinge| hinge.parent()).map(Path::to_path_buf));
        directories
    }

    /// Takes in what became of this path; true where `look` may see something else now.
    pub fn take(&mut self, path: &Path, folder: bool, fate: Fate) -> bool {
        let leads_elsewhere = fate != Fate::Written && self.way.hinges.iter().any(|hinge| hinge == path);
        let other_rules = self.rules.as_mut().filter(|rules| rules.stand_in(path)).map(Rules::read_again).is_some();
        let other_folders = match &self.way.end {
            // Until it is back, there is nothing to tell.
            End::File(file) => {
                if file == path && fate != Fate::Went {
                    self.changed(self.asked.clone());
                }
                false
            }
            End::Directory(root) => match path.strip_prefix(root).map(Path::to_path_buf) {
                Ok(below) => self.take_below(&below, folder, fate),
                Err(_) => false,
            },
            End::Missing => false,
        };
        leads_elsewhere || other_rules || other_folders
    }

    fn take_below(&mut self, below: &Path, folder: bool, fate: Fate) -> bool {
        let itself = below.as_os_str().is_empty();
        let Some(rules) = self.rules.as_mut().filter(|_| !itself) else {
            self.changed(self.asked.clone());
            return true;
        };
        // Nobody can tell any more whether it was a directory.
        let either = fate == Fate::Went && !folder;
        if rules.ignore(below, folder) || either && rules.ignore(below, true) {
            return false;
        }
        self.changed(self.asked.join(below));
        folder
    }

    fn changed(&mut self, path: PathBuf) {
        self.changed.get_or_insert(path);
        self.stirred = true;
    }

    /// Things were missed: anything may have changed.
    pub fn doubt(&mut self) {
        self.changed(self.asked.clone());
    }

    /// There is something new to tell, to the owner or in the log, since this was asked last.
    pub fn has_stirred(&mut self) -> bool {
        mem::take(&mut self.stirred)
    }

    /// Things are quiet: what has changed of what is there.
    pub fn settle(&mut self) -> Option<PathBuf> {
        let (changed, gone) = (self.changed.take(), self.way.end == End::Missing);
        match (mem::replace(&mut self.missed, gone), gone) {
            (false, true) => {
                warn!("the watched path {} is gone; zdr watches for it to come back", self.asked.display());
            }
            (true, false) => info!("the watched path {} is back", self.asked.display()),
            _ => {}
        }
        changed.filter(|_| !gone)
    }
}
