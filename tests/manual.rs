//! The manual and the README are true of the program: every option and command is in both directions, and every line
//! that a reader may copy is understood.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

use crate::harness::ZDR;

const COMMANDS: [&str; 16] = [
    "run",
    "check",
    "reload",
    "restart",
    "rollback",
    "scale",
    "pause",
    "resume",
    "stop",
    "status",
    "health",
    "wait",
    "events",
    "list",
    "rehearse",
    "completions",
];

fn manual() -> String {
    fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/man/zdr.1")).unwrap()
}

fn help(arguments: &[&str]) -> String {
    let output = Command::new(ZDR).args(arguments).arg("--help").output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The options that a help text lists, with their aliases.
fn options_of(help: &str) -> BTreeSet<String> {
    let lines = help.lines().map(str::trim_start);
    let listed = lines.filter(|line| line.starts_with('-') || line.contains("[alias"));
    let words = listed.flat_map(|line| line.split([' ', ',', '=', ']']));
    // Dots are behind one that may be given more than once.
    let words = words.map(|word| word.trim_end_matches("..."));
    // A sentence of the help may end with one.
    let words = words.map(|word| word.trim_end_matches('.'));
    words.filter(|word| word.starts_with('-') && !word.trim_start_matches('-').is_empty()).map(str::to_owned).collect()
}

/// The commands that the help text lists.
fn commands() -> BTreeSet<String> {
    let help = help(&[]);
    let section = help.split("Commands:").nth(1).and_then(|rest| rest.split("\n\n").next()).unwrap();
    let entries = section.lines().filter_map(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with(' '));
    entries.filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

fn all_options() -> BTreeSet<String> {
    let every = COMMANDS.iter().flat_map(|command| options_of(&help(&[command])));
    every.chain(options_of(&help(&[]))).collect()
}

/// The options that have an entry of their own: `.It Fl l , Fl -listen Ar listener`.
fn options_of_the_manual() -> BTreeSet<String> {
    let manual = manual();
    let entries = manual.lines().filter(|line| line.starts_with(".It Fl "));
    let words = entries.flat_map(|line| line.split(" Fl ").skip(1));
    words.filter_map(|word| word.split_whitespace().next()).map(|name| format!("-{name}")).collect()
}

#[test]
fn every_command_is_in_the_manual() {
    let manual = manual();
    assert_eq!(commands(), COMMANDS.map(str::to_owned).into());
    for command in COMMANDS {
        assert!(manual.contains(&format!("\n.It Cm {command}\n")), "`zdr {command}` has no entry in the manual");
    }
}

#[test]
fn the_manual_and_the_program_have_the_same_options() {
    assert_eq!(options_of_the_manual(), all_options());
}

#[test]
fn every_default_in_the_help_is_in_the_manual() {
    let manual = manual();
    for default in help(&["run"]).lines().filter_map(|line| line.trim().strip_prefix("[default: ")?.strip_suffix(']')) {
        for value in default.split_whitespace() {
            assert!(manual.contains(value), "the default {value} is not in the manual");
        }
    }
}

#[test]
fn every_exit_code_is_in_the_manual() {
    let manual = manual();
    let table = manual.split("\n.Sh EXIT STATUS\n").nth(1).and_then(|rest| rest.split("\n.Sh ").next()).unwrap();
    let codes: Vec<&str> = table.lines().filter_map(|line| line.strip_prefix(".It ")).collect();
    assert_eq!(codes, ["0", "1", "2", "3", "4", "126", "127"]);
}

/// Every line of a text that a reader may copy, as words.
fn examples(text: &str, mut is_code: impl FnMut(&str) -> bool) -> Vec<Vec<String>> {
    let joined = text.replace("\\\n", " ");
    let code = joined.lines().filter(|line| is_code(line));
    let lines = code.map(|line| line.trim_start().trim_start_matches("$ "));
    lines.filter(|line| line.starts_with("zdr ")).map(words).collect()
}

/// True from a line that opens a block to the one that closes it.
fn block(is_edge: impl Fn(&str) -> bool) -> impl FnMut(&str) -> bool {
    let mut inside = false;
    move |line| {
        inside ^= is_edge(line);
        inside
    }
}

/// Splits as a shell does where there is nothing but single quotes and comments.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (position, part) in line.split('\'').enumerate() {
        if position % 2 == 1 {
            words.push(part.to_owned());
            continue;
        }
        let part = part.split(" #").next().unwrap_or_default();
        words.extend(
            part.split_whitespace().take_while(|word| !["|", "||", "&", "&&", ";"].contains(word)).map(str::to_owned),
        );
    }
    words
}

/// clap checks the words before `--help` first, so a line that it answers with help has been understood up to there; the
/// values of options have been read as well.
fn understood(words: &[String]) -> Result<(), String> {
    let before_command = words.iter().skip(1).take_while(|word| *word != "--");
    let mut command = Command::new(ZDR);
    command.args(before_command).arg("--help").stdin(Stdio::null()).env_remove("ZDR_ADMIN");
    let output = command.output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

#[test]
fn every_example_of_the_manual_is_understood() {
    let examples = examples(&manual(), block(|line| line.starts_with(".Bd") || line.starts_with(".Ed")));
    assert!(examples.len() >= 5, "{examples:?}");
    for example in examples {
        assert_eq!(understood(&example), Ok(()), "{example:?}");
    }
}

#[test]
fn every_example_of_the_readme_is_understood() {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let mut fenced = block(|line| line.trim_start().starts_with("```"));
    let examples = examples(&readme, |line| fenced(line) || line.starts_with("    "));
    assert!(examples.len() >= 5, "{examples:?}");
    for example in examples {
        assert_eq!(understood(&example), Ok(()), "{example:?}");
    }
}

#[test]
fn a_wrong_example_would_be_noticed() {
    for wrong in
        ["zdr run --listne 8080 -- x", "zdr relaod", "zdr run --ready-timeout 5 -- x", "zdr reload --wait never"]
    {
        assert!(understood(&words(wrong)).is_err(), "{wrong}");
    }
}
