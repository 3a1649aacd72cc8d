//! All that was asked for: the command line as it was given once, and the configuration file as it is each time.
//!
//! What the command line says of an option counts, and what the file says of it then does not.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::parser::ValueSource;
use clap::{ArgMatches, FromArgMatches};

use super::excerpt::Mistake;
use super::file::{COMMAND, File, Key, definition, exclude};
use super::{RunArgs, Surroundings, handed_on};
use crate::config::{Config, Fault, Reading, Reread};

/// The command line and the surroundings, by which the settings can be read again and again.
#[derive(Clone, Debug)]
pub struct Asked {
    given: ArgMatches,
    file: Option<PathBuf>,
    surroundings: Surroundings,
}

/// The settings as they are now, and where they come from.
#[derive(Clone, Debug)]
pub struct Effective {
    /// What they say.
    pub config: Config,
    /// `$PORT`.
    pub(super) port: Option<String>,
    /// Of the command line and the file together.
    pub(super) matches: ArgMatches,
    pub(super) origin: Origin,
}

/// Where each setting was written.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub(super) file: Option<File>,
    /// Those of the file that the command line says nothing of.
    pub(super) keys: Vec<Key>,
}

/// Everything that is wrong with the settings.
#[derive(Debug)]
pub struct Refusal {
    mistakes: Vec<Mistake>,
    file: Option<File>,
}

impl Effective {
    /// What a supervisor begins with, or goes on with.
    pub fn into_reading(self) -> Reading {
        let Self { config, origin, .. } = self;
        let text = origin.file.as_ref().map(|file| file.text.clone());
        let placed = Box::new(move |fault| origin.refusal(vec![fault]).sentences(false).join("\n"));
        Reading { config, text, placed }
    }
}

impl Asked {
    /// What the matches of a command that takes the options of `zdr run` say, and this file.
    pub fn new(given: &ArgMatches, file: Option<PathBuf>, surroundings: Surroundings) -> Self {
        Self { given: given.clone(), file, surroundings }
    }

    /// Reads the file, if there is one, and checks everything.
    pub fn read(&self) -> Result<Effective, Refusal> {
        let origin = self.origin()?;
        let matches =
            definition().try_get_matches_from(self.words(&origin)).map_err(|error| Refusal::of_words(&error))?;
        let args = RunArgs::from_arg_matches(&matches).map_err(|error| Refusal::of_words(&error))?;
        match args.into_config(&self.surroundings) {
            Ok(config) => Ok(Effective { config, port: self.surroundings.port.clone(), matches, origin }),
            Err(faults) => Err(origin.refusal(faults)),
        }
    }

    /// How to do it again.
    pub fn reread(self) -> Reread {
        Box::new(move || match self.read() {
            Ok(effective) => Ok(effective.into_reading()),
            Err(refusal) => Err(refusal.sentences(false).join("\n")),
        })
    }

    fn origin(&self) -> Result<Origin, Refusal> {
        let Some(path) = &self.file else { return Ok(Origin { file: None, keys: Vec::new() }) };
        let file = File::read(path, &self.surroundings.directory).map_err(Refusal::of_sentence)?;
        let run = definition();
        let given: Vec<&str> = run.get_arguments().filter(|option| self.gives(option)).filter_map(name).collect();
        let is_free = |key: &Key| !given.iter().any(|given| key.name == *given || exclude(&run, &key.name, given));
        match file.keys() {
            Ok(keys) => Ok(Origin { file: Some(file), keys: keys.into_iter().filter(is_free).collect() }),
            Err(mistakes) => Err(Refusal { mistakes, file: Some(file) }),
        }
    }

    fn gives(&self, option: &clap::Arg) -> bool {
        self.given.value_source(option.get_id().as_str()) == Some(ValueSource::CommandLine)
    }

    /// Those of the file in front.
    fn words(&self, origin: &Origin) -> Vec<OsString> {
        let (command, options): (Vec<&Key>, _) = origin.keys.iter().partition(|key| key.name == COMMAND);
        let of_keys = |keys: &[&Key]| -> Vec<OsString> {
            keys.iter().flat_map(|key| &key.words).map(|word| word.text.clone().into()).collect()
        };
        let given = self.given.get_many::<OsString>(COMMAND).into_iter().flatten().cloned();
        let mut words = vec!["run".into()];
        words.extend(of_keys(&options));
        words.extend(handed_on(&self.given));
        words.push("--".into());
        words.extend(of_keys(&command).into_iter().chain(given));
        words
    }
}

/// By which a key of the file is compared with it.
fn name(option: &clap::Arg) -> Option<&str> {
    option.get_long().or_else(|| Some(option.get_id().as_str()).filter(|id| *id == COMMAND))
}

impl Effective {
    /// What is wrong with them after all, each where it was written.
    pub fn refusal(&self, faults: Vec<Fault>) -> Refusal {
        self.origin.refusal(faults)
    }
}

impl Origin {
    /// The key of the file that counts.
    pub(super) fn key(&self, name: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.name == name)
    }

    fn refusal(&self, faults: Vec<Fault>) -> Refusal {
        let mistakes = faults.into_iter().map(|fault| {
            let key = fault.option.and_then(|option| self.key(option));
            let place = key.map(|key| {
                let word = fault.nth.and_then(|nth| key.words.get(nth));
                word.map_or(key.place.clone(), |word| word.place.clone())
            });
            Mistake { sentence: fault.sentence, place, hint: None }
        });
        Refusal { mistakes: mistakes.collect(), file: self.file.clone() }
    }
}

impl Refusal {
    /// One for each mistake, of more than a line where it is shown with its place.
    pub fn sentences(&self, coloured: bool) -> Vec<String> {
        let shown = |mistake: &Mistake| match &self.file {
            Some(file) => mistake.shown(&file.path, &file.text, coloured),
            None => mistake.sentence.clone(),
        };
        self.mistakes.iter().map(shown).collect()
    }

    fn of_sentence(sentence: String) -> Self {
        Self { mistakes: vec![Mistake { sentence, place: None, hint: None }], file: None }
    }

    /// All words have been read before, so that only what they are together can be wrong.
    fn of_words(error: &clap::Error) -> Self {
        Self::of_sentence(error.to_string().trim_start_matches("error: ").trim_end().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use clap::CommandFactory;

    use super::*;
    use crate::cli::Cli;

    fn asked(directory: &std::path::Path, words: &[&str]) -> Asked {
        let matches = Cli::command().get_matches_from(["zdr", "run"].iter().chain(words));
        let given = matches.subcommand_matches("run").unwrap();
        let surroundings = Surroundings { directory: directory.to_owned(), port: None, inherited: false };
        Asked::new(given, given.get_one::<PathBuf>("config").cloned(), surroundings)
    }

    #[test]
    fn the_file_is_read_afresh_each_time_and_the_command_line_goes_on_to_win() {
        let folder = tempfile::tempdir().unwrap();
        let write = |text: &str| fs::write(folder.path().join("a.toml"), text).unwrap();
        write("command = ['one']\nbake = '1s'\ntail = 1\n");
        let reread = asked(folder.path(), &["-c", "a.toml", "--tail", "9"]).reread();
        let first = reread().unwrap();
        assert_eq!((first.config.command[0].to_str(), first.config.tail), (Some("one"), 9));
        assert!(first.text.unwrap().contains("1s"));
        write("command = ['two']\nbake = '7s'\ntail = 2\n");
        let second = reread().unwrap();
        assert_eq!((second.config.command[0].to_str(), second.config.tail), (Some("two"), 9));
        assert_eq!(second.config.policy.bake.as_secs(), 7);
        write("command = ['two']\nbake = 7\n");
        let told = reread().err().unwrap();
        assert!(
            told.starts_with("bake: the duration `7` has no unit") && told.contains("\n --> a.toml:2:8\n"),
            "{told}"
        );
        fs::remove_file(folder.path().join("a.toml")).unwrap();
        assert_eq!(reread().err().unwrap(), "cannot read the configuration file a.toml: no such file or directory");
        write("command = ['three']\n");
        assert!(reread().is_ok());
    }

    #[test]
    fn what_is_given_on_the_command_line_takes_the_place_of_all_that_the_file_says_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let text =
            "command = ['one', 'x']\nenv = ['A=1', 'B=2']\nquiet = 2\nwatch = ['w']\nchdir = 'd'\nno-new-privs = true";
        fs::write(folder.path().join("a.toml"), text).unwrap();
        let words = ["-c", "a.toml", "--env=C=-3", "-v", "--", "two", "-c"];
        let config = asked(folder.path(), &words).read().unwrap().config;
        assert_eq!(config.process.environment, [("C".into(), "-3".into())]);
        assert_eq!((config.log.verbose, config.log.quiet), (1, 0));
        assert_eq!(config.command, ["two", "-c"]);
        assert!(config.process.no_new_privileges);
        assert_eq!(
            (config.watch, config.process.directory),
            (vec![folder.path().join("w")], Some(folder.path().join("d")))
        );
    }

    #[test]
    fn every_option_is_a_key_and_those_that_may_be_tables_are_options() {
        let run = definition();
        let names: Vec<&str> = crate::cli::file::options(&run).filter_map(clap::Arg::get_long).collect();
        assert!(names.len() > 40 && !names.contains(&"config") && !names.contains(&COMMAND), "{names:?}");
        for table in crate::cli::file::TABLES {
            assert!(names.contains(&table), "{table}");
        }
    }
}
