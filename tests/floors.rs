//! The floors of the code: rules name no edge of the system, edges name no face, and `unsafe` has one place.

use std::fs;
use std::path::{Path, PathBuf};

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src");

/// Every source file, by its path below `src`, with its text.
fn sources() -> Vec<(String, String)> {
    fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            match entry.path() {
                path if path.is_dir() => collect(&path, found),
                path if path.extension().is_some_and(|end| end == "rs") => found.push(path),
                _ => {}
            }
        }
    }
    let mut found = Vec::new();
    collect(Path::new(SOURCE), &mut found);
    let name = |path: &PathBuf| path.strip_prefix(SOURCE).unwrap().display().to_string();
    let mut all: Vec<_> = found.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect();
    all.sort();
    assert!(all.len() > 50, "the sources are not where they should be");
    all
}

/// The code without comments and without its tests, so that both may name what the code may not.
fn code(text: &str) -> String {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let code = code.lines().map(|line| line.split("//").next().unwrap_or_default());
    code.collect::<Vec<_>>().join("\n")
}

/// True where the word stands by itself, not as a part of another.
fn names(code: &str, word: &str) -> bool {
    let part_of_name = |character: char| character.is_alphanumeric() || character == '_';
    code.match_indices(word)
        .any(|(at, _)| !code[..at].ends_with(part_of_name) && !code[at + word.len()..].starts_with(part_of_name))
}

fn is_rule(file: &str) -> bool {
    let stems = ["supervisor", "config", "address", "url", "runtime_directory"];
    let is = |stem: &&str| file == format!("{stem}.rs") || file.starts_with(&format!("{stem}/"));
    stems.iter().any(is) && !file.ends_with("tests.rs")
}

#[track_caller]
fn none_names(which: impl Fn(&str) -> bool, forbidden: &[&str]) {
    let files: Vec<_> = sources().into_iter().filter(|(file, _)| which(file)).collect();
    assert!(files.len() > 4, "there is hardly a file to check");
    for (file, text) in &files {
        let code = code(text);
        for word in forbidden {
            assert!(!names(&code, word), "src/{file} names `{word}`");
        }
    }
}

#[test]
fn the_rules_name_no_input_output_clock_or_event_loop() {
    let forbidden = [
        "tokio",
        "nix",
        "libc",
        "rustix",
        "tracing",
        "hyper",
        "ureq",
        "clap",
        "std::fs",
        "std::process",
        "std::thread",
        "std::os",
        "std::io",
        "std::env::var",
        "std::env::var_os",
        "TcpStream",
        "TcpListener",
        "UdpSocket",
        "UnixStream",
        "SystemTime",
        "Instant::now",
        "elapsed",
        "println",
        "eprintln",
        "unsafe",
        "thread_local",
    ];
    none_names(is_rule, &forbidden);
    none_names(
        is_rule,
        &["crate::edges", "crate::run", "crate::cli", "crate::client", "crate::commands", "crate::rehearse"],
    );
}

#[test]
fn the_edges_name_no_higher_floor() {
    let is_edge = |file: &str| file == "edges.rs" || file.starts_with("edges/");
    none_names(is_edge, &["crate::run", "crate::cli", "crate::client", "crate::commands", "crate::rehearse"]);
}

#[test]
fn only_the_loop_makes_a_supervisor_and_the_edges_ask_it_nothing() {
    for (file, text) in sources() {
        let may = file == "run.rs" || is_rule(&file) || file.ends_with("tests.rs");
        assert!(may || !names(&code(&text), "Supervisor"), "src/{file} names `Supervisor`");
    }
}

#[test]
fn unsafe_stands_only_beside_the_kernel_and_always_with_its_reason() {
    let mut blocks = 0;
    for (file, text) in sources() {
        let code = code(&text);
        if file.starts_with("edges/kernel") {
            blocks += code.matches("unsafe {").count();
            assert!(
                code.matches("unsafe {").count() <= text.matches("SAFETY:").count(),
                "src/{file} lacks a SAFETY note"
            );
        } else {
            assert!(!names(&code, "unsafe"), "src/{file} names `unsafe`");
        }
    }
    assert!(blocks > 0);
}

#[test]
fn only_the_command_line_names_its_crate() {
    for (file, text) in sources() {
        let may = ["cli.rs", "main.rs", "commands.rs"].contains(&file.as_str()) || file.starts_with("cli/");
        assert!(may || !names(&code(&text), "clap"), "src/{file} names `clap`");
    }
}

#[test]
fn every_file_says_what_it_is_and_fits_into_the_head() {
    for (file, text) in sources() {
        assert!(text.starts_with("//! "), "src/{file} does not open with what it is");
        let lines = text.lines().count();
        assert!(lines <= 400, "src/{file} has {lines} lines");
    }
}

#[test]
fn the_main_file_stays_a_table_of_contents() {
    let (_, main) = sources().into_iter().find(|(file, _)| file == "main.rs").unwrap();
    assert!(main.lines().count() <= 60);
}
