//! Commands that cannot be executed: an exit code as a shell's at boot, a refusal on reload.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::harness::{Setup, Told, sample};

/// Writes an executable file.
pub fn executable(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Every command that cannot be executed, with the exit code of a shell and the reason.
fn cannot_be_executed(folder: &Path) -> Vec<(String, i32, &'static str)> {
    fs::write(folder.join("plain"), "#!/bin/sh\n").unwrap();
    executable(&folder.join("no-interpreter"), "echo hello\n");
    executable(&folder.join("lost-interpreter"), "#!/nowhere/interpreter\n");
    fs::create_dir(folder.join("a-directory")).unwrap();
    let at = |name: &str| folder.join(name).display().to_string();
    vec![
        (at("missing"), 127, "no such file or directory"),
        ("no-such-program-anywhere".to_owned(), 127, "no such file or directory"),
        (at("plain"), 126, "permission denied"),
        (at("no-interpreter"), 126, "not executable: exec format error"),
        (at("lost-interpreter"), 127, "no such file or directory"),
        (at("a-directory"), 126, "permission denied"),
    ]
}

#[track_caller]
fn one_sentence(told: &Told, reason: &str) {
    assert_eq!(told.error.lines().count(), 1, "{told:?}");
    assert!(told.error.contains(reason), "{reason}: {told:?}");
}

#[test]
fn a_command_that_cannot_be_executed_ends_zdr_at_boot_as_it_would_a_shell() {
    let folder = tempfile::tempdir().unwrap();
    for (command, code, reason) in cannot_be_executed(folder.path()) {
        let told = Setup::of(&[&command]).flag("--quiet").output();
        assert_eq!(told.code, code, "{told:?}");
        one_sentence(&told, reason);
        assert!(told.error.contains(&command), "{told:?}");
    }
}

#[test]
fn a_working_directory_that_is_not_there_ends_zdr_at_boot() {
    let told = Setup::of(&sample(&[])).flag("--quiet").option("--chdir", "/nowhere/at/all").output();
    assert_eq!(told.code, 126, "{told:?}");
    one_sentence(&told, "`/nowhere/at/all`: cannot enter its working directory: no such file or directory");
}

#[test]
fn a_new_command_that_cannot_be_executed_is_refused_and_the_old_serves_on() {
    let zdr = Setup::of(&sample(&[])).start();
    for (command, _, reason) in cannot_be_executed(zdr.folder()) {
        let told = zdr.reload_to(&[&command]);
        assert_eq!(told.code, 3, "{told:?}");
        assert!(told.error.contains(reason) && told.error.contains("generation 1 serves on"), "{told:?}");
        assert!(zdr.get("/").contains("generation 1,"));
    }
    assert!(zdr.status()["last_verdict"]["reason"].as_str().unwrap().contains("could not be started"));
}

#[test]
fn a_working_directory_that_has_gone_refuses_the_reload() {
    let setup = Setup::of(&sample(&[]));
    let work = setup.folder().join("work");
    fs::create_dir(&work).unwrap();
    let zdr = setup.option("--chdir", &work.display().to_string()).start();
    fs::remove_dir(&work).unwrap();
    let told = zdr.reload();
    assert_eq!(told.code, 3, "{told:?}");
    assert!(told.error.contains("cannot enter its working directory: no such file or directory"), "{told:?}");
    assert!(zdr.get("/").contains("generation 1,"));
}
