//! Variables from files: read afresh at every start, and told with file and line where they cannot be read.

use std::fs;

use serde_json::Value;

use crate::harness::{Setup, Zdr};
use crate::python::teller;

fn variable(zdr: &Zdr, name: &str) -> Value {
    serde_json::from_str::<Value>(&zdr.get("/")).unwrap()["environment"][name].clone()
}

#[test]
fn a_file_is_read_afresh_at_every_start_and_what_was_removed_is_gone() {
    let setup = Setup::of(&teller());
    let file = setup.place("variables");
    fs::write(&file, "# first\nCOLOUR=red\nexport SIZE=\"two words\"\n").unwrap();
    let zdr = setup.option("--env-file", &file).start();
    assert_eq!((variable(&zdr, "COLOUR"), variable(&zdr, "SIZE")), ("red".into(), "two words".into()));
    fs::write(&file, "COLOUR=blue\n").unwrap();
    assert_eq!(variable(&zdr, "COLOUR"), "red");
    assert_eq!(zdr.reload().code, 0);
    assert_eq!((variable(&zdr, "COLOUR"), variable(&zdr, "SIZE")), ("blue".into(), Value::Null));
}

#[test]
fn later_files_win_and_options_win_over_all() {
    let setup = Setup::of(&teller());
    let (one, two) = (setup.place("one"), setup.place("two"));
    fs::write(&one, "A=one\nB=one\nC=one\nD={generation}\n").unwrap();
    fs::write(&two, "B=two\nC=two\nLISTEN_FDS=7\n").unwrap();
    let zdr = setup
        .option("--env", "C=option")
        .option("--env-file", &one)
        .option("--env-file", &two)
        .option("--env-file", "-/nowhere/at/all")
        .environment("A", "zdr")
        .start();
    let values = ["A", "B", "C", "D", "LISTEN_FDS"].map(|name| variable(&zdr, name));
    assert_eq!(values, ["one", "two", "option", "{generation}", "1"]);
}

#[test]
fn a_file_that_cannot_be_read_refuses_the_reload_and_the_old_serves_on() {
    let setup = Setup::of(&teller());
    let file = setup.place("variables");
    fs::write(&file, "COLOUR=red\n").unwrap();
    let zdr = setup.option("--env-file", &file).start();
    let refused = |words: &str| {
        let told = zdr.reload();
        assert_eq!(told.code, 3, "{told:?}");
        assert!(told.error.contains(words) && told.error.contains("generation 1 serves on"), "{words}: {told:?}");
        assert_eq!(variable(&zdr, "COLOUR"), "red");
    };
    fs::write(&file, "COLOUR=blue\nnonsense\n").unwrap();
    refused(&format!("{file}:2: no `=`; write KEY=VALUE"));
    fs::remove_file(&file).unwrap();
    refused(&format!("cannot read the environment file {file}: no such file or directory"));
    fs::create_dir(&file).unwrap();
    refused("not a regular file");
    fs::remove_dir(&file).unwrap();
    fs::write(&file, "COLOUR=green\n").unwrap();
    assert_eq!(zdr.reload().code, 0);
    assert_eq!(variable(&zdr, "COLOUR"), "green");
}

#[test]
fn a_file_that_cannot_be_read_at_boot_is_wrong_use() {
    let setup = Setup::of(&["true"]);
    let file = setup.place("variables");
    fs::write(&file, "A=1\nB='2\n").unwrap();
    let told = setup.option("--env-file", &file).output();
    assert_eq!((told.code, told.error), (2, format!("zdr: {file}:2: the quote ' is never closed\n")));
    // A pipe would hold zdr up until somebody writes to it.
    let setup = Setup::of(&["true"]);
    let pipe = setup.place("pipe");
    nix::unistd::mkfifo(pipe.as_str(), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let told = setup.option("--env-file", &pipe).output();
    assert!(told.code == 2 && told.error.contains("not a regular file"), "{told:?}");
}
