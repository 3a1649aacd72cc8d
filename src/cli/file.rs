//! The configuration file: read from disk, and turned into words of the command line by clap's own definition of that.
//!
//! Keeps no list of options, so that an option that is added is a key at once.

mod key;

use std::ops::Range;
use std::path::{Path, PathBuf};

use clap::Args;
use toml::de::DeTable;

pub(super) use self::key::Key;
#[cfg(test)]
pub(super) use self::key::MOST_COUNTED;
use super::RunArgs;
use super::excerpt::Mistake;
use crate::edges::text_file;

/// The key of the command, which is no option.
pub(super) const COMMAND: &str = "command";

/// Options of NAME=VALUE, which may be a table.
pub(super) const TABLES: [&str; 5] = ["check", "env", "hook", "limit", "listen"];

/// A file as it was when it was read.
#[derive(Clone, Debug)]
pub(super) struct File {
    /// As it was asked for.
    pub(super) path: PathBuf,
    /// Without the mark of its order of bytes that some editors begin it with.
    pub(super) text: String,
}

impl File {
    /// Reads it; a relative path begins in this directory.
    pub(super) fn read(path: &Path, directory: &Path) -> Result<Self, String> {
        let shown = path.display();
        let cannot = |error| format!("cannot read the configuration file {shown}: {}", text_file::words(&error));
        let bytes = text_file::read(&directory.join(path)).map_err(cannot)?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = before.split(|byte| *byte == b'\n').count();
            format!("{shown}:{line}: not UTF-8; save the file as UTF-8")
        })?;
        let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
        Ok(Self { path: path.to_owned(), text })
    }

    /// Its keys in order; or everything that is wrong, but of its form only what comes first.
    pub(super) fn keys(&self) -> Result<Vec<Key>, Vec<Mistake>> {
        let table = DeTable::parse(&self.text).map_err(|error| vec![no_toml(&error)])?;
        let mut run = definition();
        let mut entries: Vec<_> = table.get_ref().iter().collect();
        entries.sort_by_key(|(name, _)| name.span().start);
        let (mut keys, mut mistakes) = (Vec::new(), Vec::new());
        for (name, value) in entries {
            match Key::read(name, value, &mut run) {
                Ok(key) => keys.push(key),
                Err(found) => mistakes.extend(found),
            }
        }
        mistakes.extend(contradictions(&keys, &run));
        if mistakes.is_empty() { Ok(keys) } else { Err(mistakes) }
    }

    /// The line that a place is on.
    pub(super) fn line(&self, place: &Range<usize>) -> usize {
        self.text[..place.start].matches('\n').count() + 1
    }
}

/// Of the options of `zdr run` and its command.
pub(super) fn definition() -> clap::Command {
    let mut run = RunArgs::augment_args(clap::Command::new("run")).disable_help_flag(true);
    run.build();
    run
}

/// The options that a file may have.
pub(super) fn options(run: &clap::Command) -> impl Iterator<Item = &clap::Arg> {
    run.get_arguments().filter(|option| option.get_long().is_some_and(|name| name != "config"))
}

/// True where one of two options excludes the other.
pub(super) fn exclude(run: &clap::Command, one: &str, other: &str) -> bool {
    let excludes = |one: &str, other: &str| {
        let option = run.get_arguments().find(|option| option.get_long() == Some(one));
        let excluded = option.map(|option| run.get_arg_conflicts_with(option)).unwrap_or_default();
        excluded.iter().any(|option| option.get_long() == Some(other))
    };
    excludes(one, other) || excludes(other, one)
}

fn contradictions(keys: &[Key], run: &clap::Command) -> Vec<Mistake> {
    let said: Vec<&Key> = keys.iter().filter(|key| !key.words.is_empty()).collect();
    let mut mistakes = Vec::new();
    for (position, key) in said.iter().enumerate() {
        for other in said[..position].iter().filter(|other| exclude(run, &key.name, &other.name)) {
            let sentence = format!("`{}` cannot be used together with `{}`", key.name, other.name);
            mistakes.push(Mistake::at(key.place.clone(), sentence));
        }
    }
    mistakes
}

fn no_toml(error: &toml::de::Error) -> Mistake {
    let words: Vec<&str> = error.message().lines().map(str::trim).collect();
    Mistake::at(error.span().unwrap_or_default(), format!("this is no TOML: {}", words.join(", ")))
}
