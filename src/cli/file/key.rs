//! One key of the configuration file: the option that it is, its words, and what may be wrong with them.
//!
//! A value is judged by the option's own parser, so that a file and a command line mean the same.

use std::error::Error as _;
use std::ops::Range;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction};
use toml::Spanned;
use toml::de::{DeString, DeValue};

use super::{COMMAND, TABLES, options};
use crate::cli::excerpt::Mistake;

/// A key that is understood.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Key {
    /// The long name of its option, or `command`.
    pub(in crate::cli) name: String,
    /// Where it stands, in bytes.
    pub(in crate::cli) place: Range<usize>,
    /// What would stand on the command line.
    pub(in crate::cli) words: Vec<Word>,
}

/// A word of the command line.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Word {
    /// `--name=value`, a flag, or a word of the command.
    pub(in crate::cli) text: String,
    /// Where its value stands, in bytes.
    pub(in crate::cli) place: Range<usize>,
}

/// So many mistakes in one key are enough to be told.
const ENOUGH: usize = 20;

/// Nobody wants more of an option that is counted.
pub(in crate::cli) const MOST_COUNTED: usize = 9;

impl Key {
    /// Reads a key and its value.
    pub(super) fn read(
        name: &Spanned<DeString<'_>>,
        value: &Spanned<DeValue<'_>>,
        run: &mut clap::Command,
    ) -> Result<Self, Vec<Mistake>> {
        let (words, mut mistakes) = if name.get_ref() == COMMAND {
            command(value)
        } else {
            let option = options(run).find(|option| option.get_long() == Some(name.get_ref())).cloned();
            let option = option.ok_or_else(|| vec![unknown(name, run)])?;
            let (words, mut mistakes) = words(&option, value);
            mistakes.extend(judge(&words, &option, run));
            (words, mistakes)
        };
        mistakes.sort_by_key(|mistake| mistake.place.as_ref().map(|place| place.start));
        mistakes.truncate(ENOUGH);
        match mistakes.is_empty() {
            true => Ok(Self { name: name.get_ref().to_string(), place: name.span(), words }),
            false => Err(mistakes),
        }
    }
}

fn unknown(name: &Spanned<DeString<'_>>, run: &clap::Command) -> Mistake {
    let given = name.get_ref();
    if given == "config" {
        return Mistake::at(name.span(), "a configuration file cannot name another one; write its keys here");
    }
    let mistake = Mistake::at(name.span(), format!("there is no key `{}`", given.escape_debug()));
    let mut characters = given.chars();
    let letter = characters.next().filter(|_| characters.next().is_none());
    let also = |option: &&Arg| {
        let aliases = option.get_all_aliases().unwrap_or_default();
        aliases.contains(&given.as_ref()) || letter.is_some() && option.get_short() == letter
    };
    let meant = options(run).find(also).and_then(Arg::get_long);
    let names = options(run).filter_map(Arg::get_long).chain([COMMAND]);
    match meant.or_else(|| alike(given, names)) {
        Some(meant) => mistake.hint(format!("did you mean `{meant}`?")),
        None => mistake.hint("the keys are `command` and the long options that `zdr run --help` shows"),
    }
}

/// The name that is most like this one, if one is.
fn alike<'a>(given: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// As clap has it for options (`did_you_mean` in its parser/features/suggestions.rs).
    const LEAST: f64 = 0.7;
    let given: String = given.to_lowercase().replace('_', "-").chars().take(50).collect();
    let rated = names.map(|name| (strsim::jaro(&given, name), name)).filter(|(rating, _)| *rating > LEAST);
    rated.max_by(|one, other| one.0.total_cmp(&other.0)).map(|(_, name)| name)
}

/// Words, and what is wrong with others.
type Words = (Vec<Word>, Vec<Mistake>);

fn command(value: &Spanned<DeValue<'_>>) -> Words {
    let words = match value.get_ref() {
        DeValue::Array(array) => {
            return all(array.iter().map(|value| match value.get_ref() {
                DeValue::String(text) => word(text.to_string(), value.span()),
                other => {
                    Err(Mistake::at(value.span(), format!("a word of `command` should be a string, not {}", a(other))))
                }
            }));
        }
        DeValue::String(text) => text.split_whitespace().map(|word| format!("{word:?}")).collect(),
        _ => vec!["\"./server\"".to_owned(), "\"--x\"".to_owned()],
    };
    let mistake = Mistake::at(value.span(), format!("`command` should be an array, not {}", a(value.get_ref())));
    alone(mistake.hint(format!("write each word by itself: command = [{}]", words.join(", "))))
}

/// The words for a value, as the option takes them.
fn words(option: &Arg, value: &Spanned<DeValue<'_>>) -> Words {
    let name = option.get_long().unwrap_or_default();
    let wrong = |key: &str, wanted: &str, value: &Spanned<DeValue<'_>>| {
        Mistake::at(value.span(), format!("`{key}` should be {wanted}, not {}", a(value.get_ref())))
    };
    let one = |value: &Spanned<DeValue<'_>>| match text(value.get_ref()) {
        Some(text) => word(format!("--{name}={text}"), value.span()),
        None => Err(wrong(name, "a string or a whole number", value)),
    };
    let entry = |(key, value): (&Spanned<DeString<'_>>, &Spanned<DeValue<'_>>)| match text(value.get_ref()) {
        Some(text) => word(format!("--{name}={}={text}", key.get_ref()), value.span()),
        None => Err(wrong(&format!("{name}.{}", key.get_ref()), "a string or a whole number", value)),
    };
    let flags = |times| vec![Word { text: format!("--{name}"), place: value.span() }; times];
    match (option.get_action(), value.get_ref()) {
        (ArgAction::SetTrue | ArgAction::Count, DeValue::Boolean(wanted)) => (flags(usize::from(*wanted)), Vec::new()),
        (ArgAction::SetTrue, _) => alone(wrong(name, "true or false", value)),
        (ArgAction::Count, other) => {
            let times = text(other).filter(|_| other.is_integer()).and_then(|text| text.parse().ok());
            let times = times.filter(|times| *times <= MOST_COUNTED);
            let words = times.map(|times| (flags(times), Vec::new()));
            words.unwrap_or_else(|| alone(wrong(name, "true, false or a number from 0 to 9", value)))
        }
        (ArgAction::Append, DeValue::Array(array)) => all(array.iter().map(one)),
        (ArgAction::Append, DeValue::Table(table)) if TABLES.contains(&name) => {
            let mut entries: Vec<_> = table.iter().collect();
            entries.sort_by_key(|(key, _)| key.span().start);
            all(entries.into_iter().map(entry))
        }
        (ArgAction::Append, other) if text(other).is_none() => {
            let table = if TABLES.contains(&name) { " or a table" } else { "" };
            alone(wrong(name, &format!("a string, an array of strings{table}"), value))
        }
        _ => all([one(value)].into_iter()),
    }
}

/// A string, or a number as it would be written on the command line.
fn text(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str().to_owned()),
        _ => None,
    }
}

fn word(text: String, place: Range<usize>) -> Result<Word, Mistake> {
    match text.contains('\0') {
        true => Err(Mistake::at(place, "this has a zero byte, which no program can be given")),
        false => Ok(Word { text, place }),
    }
}

fn alone(mistake: Mistake) -> Words {
    (Vec::new(), vec![mistake])
}

fn all(words: impl Iterator<Item = Result<Word, Mistake>>) -> Words {
    let (mut good, mut bad) = (Vec::new(), Vec::new());
    for word in words {
        match word {
            Ok(word) => good.push(word),
            Err(mistake) => bad.push(mistake),
        }
    }
    (good, bad)
}

/// Has clap read the words; where it does not take them, halves of them, until the wrong ones are found.
fn judge(words: &[Word], option: &Arg, run: &mut clap::Command) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    let mut unread = vec![words];
    while let Some(part) = unread.pop().filter(|_| mistakes.len() < ENOUGH) {
        let given = part.iter().map(|word| word.text.as_str());
        let read = run.try_get_matches_from_mut(["run"].into_iter().chain(given));
        match (read, part) {
            (Ok(_), _) => {}
            (Err(error), [word]) => mistakes.push(refused(&error, word, option)),
            (Err(_), several) => {
                let (first, second) = several.split_at(several.len() / 2);
                unread.extend([second, first]);
            }
        }
    }
    mistakes
}

fn refused(error: &clap::Error, word: &Word, option: &Arg) -> Mistake {
    let name = option.get_long().unwrap_or_default();
    let given = word.text.split_once('=').map_or("", |(_, value)| value);
    let possible: Vec<String> = option.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    if error.kind() == ErrorKind::InvalidValue && !possible.is_empty() {
        let sentence = format!("{name}: `{}` is not one of {}", given.escape_debug(), possible.join(", "));
        let mistake = Mistake::at(word.place.clone(), sentence);
        return match alike(given, possible.iter().map(String::as_str)) {
            Some(meant) => mistake.hint(format!("did you mean `{meant}`?")),
            None => mistake,
        };
    }
    let why = error.source().map(ToString::to_string);
    let first_line = || error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
    Mistake::at(word.place.clone(), format!("{name}: {}", why.unwrap_or_else(first_line)))
}

/// What a value is, in a sentence.
fn a(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(number) if number.radix() != 10 => "a number of another base than ten",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}
