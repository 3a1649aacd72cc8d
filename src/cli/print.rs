//! The settings as a configuration file would have them, each with where it comes from.
//!
//! What is printed means the same when it is read again, so it says nothing of what is not set.

use std::ffi::OsStr;
use std::fmt::Write as _;

use clap::parser::ValueSource;
use clap::{Arg, ArgAction};

use super::asked::Effective;
use super::file::{COMMAND, definition, options};

impl Effective {
    /// Every setting on a line of TOML, the command first.
    pub fn as_toml(&self) -> String {
        let run = definition();
        let mut text = String::new();
        let command: Vec<&OsStr> = self.config.command.iter().map(AsRef::as_ref).collect();
        let lines = options(&run).map(|option| (option.get_long().unwrap_or_default(), self.value(option)));
        for (name, value) in [(COMMAND, array(&command))].into_iter().chain(lines) {
            let _ = match value {
                Ok(value) => writeln!(text, "{name} = {value} # {}", self.whence(name)),
                Err(why) => writeln!(text, "# {name}: {why}"),
            };
        }
        text
    }

    /// Or why a file says nothing of it.
    fn value(&self, option: &Arg) -> Result<String, &'static str> {
        let id = option.get_id().as_str();
        let given: Vec<&OsStr> = self.matches.get_raw(id).into_iter().flatten().collect();
        match option.get_action() {
            ArgAction::SetTrue => Ok(self.matches.get_flag(id).to_string()),
            ArgAction::Count => Ok(self.matches.get_count(id).to_string()),
            _ if given.is_empty() => self.implied(id).ok_or("not set"),
            ArgAction::Append => array(&given),
            _ => given[0].to_str().map(scalar).ok_or(NO_TEXT),
        }
    }

    /// What follows from other settings and the surroundings.
    fn implied(&self, id: &str) -> Option<String> {
        match id {
            "name" => Some(scalar(&self.config.name)),
            "listen" => self.port.as_deref().filter(|_| !self.config.inherit).map(|port| format!("[{}]", quoted(port))),
            _ => None,
        }
    }

    fn whence(&self, name: &str) -> String {
        if let (Some(key), Some(file)) = (self.origin.key(name), &self.origin.file) {
            return format!("{}:{}", file.path.display(), file.line(&key.place)).replace(char::is_control, "?");
        }
        let run = definition();
        let id = options(&run).find(|option| option.get_long() == Some(name)).map_or(name, |it| it.get_id().as_str());
        match self.matches.value_source(id) {
            Some(ValueSource::CommandLine) => "command line".to_owned(),
            None if name == "listen" => "$PORT".to_owned(),
            _ => "default".to_owned(),
        }
    }
}

const NO_TEXT: &str = "not UTF-8, which a file cannot say";

fn array(values: &[&OsStr]) -> Result<String, &'static str> {
    let values = values.iter().map(|value| value.to_str().map(quoted)).collect::<Option<Vec<_>>>();
    values.map(|values| format!("[{}]", values.join(", "))).ok_or(NO_TEXT)
}

/// A number as a number.
fn scalar(text: &str) -> String {
    match text.parse::<u32>() {
        Ok(number) if number.to_string() == text => text.to_owned(),
        _ => quoted(text),
    }
}

/// A string of JSON is one of TOML but for DEL, which TOML wants written as its number.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string().replace('\u{7f}', "\\u007f")
}
