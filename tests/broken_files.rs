//! A file that is broken when it is read again: what serves is left alone, the message names the place, and once it is
//! mended all is well.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::harness::{Setup, Zdr, in_seat, sample, wait_for};
use crate::listeners::stranger;
use crate::managed::{command, load, managed, nothing_was_lost, reload_as, write};

fn good(more: &str) -> String {
    format!("{}listen = '127.0.0.1:0'\nready = '/health'\nbake = '0s'\n{more}", command(&sample(&[])))
}

/// A reload that is refused with these words, and changes nothing.
#[track_caller]
fn refused(zdr: &Zdr, words: &[&str]) {
    refused_by(zdr, "reload", words);
}

/// Likewise anything else that reads the file.
#[track_caller]
fn refused_by(zdr: &Zdr, order: &str, words: &[&str]) {
    let before = (zdr.serving(), zdr.server_pid(), zdr.status()["config_version"].clone(), zdr.address());
    let told = zdr.client(&[order]);
    assert_eq!(told.code, 3, "{words:?}: {told:?}");
    for word in words {
        assert!(told.error.contains(word), "{word}: {told:?}");
    }
    let serves_on = format!("generation {} serves on", before.0.unwrap());
    assert!(told.error.trim_end().ends_with(&serves_on), "{told:?}");
    assert_eq!(told.out, "", "it is told once");
    let after = (zdr.serving(), zdr.server_pid(), zdr.status()["config_version"].clone(), zdr.address());
    assert_eq!(before, after);
    let verdict = &zdr.status()["last_verdict"];
    assert_eq!((&verdict["outcome"], &verdict["cause"]), (&json!("kept"), &json!("refused")));
}

/// Puts something else at the path of the file.
fn instead(zdr: &Zdr, put: impl FnOnce(&str)) {
    let path = zdr.place("zdr.toml");
    let _ = fs::remove_file(&path);
    put(&path);
}

#[test]
fn whatever_is_found_at_the_path_the_old_one_serves_on_and_a_mended_file_serves() {
    let zdr = managed(Setup::of(&[""; 0]), &good("")).start();
    let load = load(zdr.address(), 4);
    let path = zdr.place("zdr.toml");
    let cannot = |why: &str| format!("cannot read the configuration file {path}: {why}");
    instead(&zdr, |path| fs::create_dir(path).unwrap());
    refused(&zdr, &[&cannot("a directory, not a regular file")]);
    fs::remove_dir(&path).unwrap();
    refused(&zdr, &[&cannot("no such file or directory")]);
    symlink("zdr.toml", &path).unwrap();
    refused(&zdr, &[&cannot("its symbolic links lead round in a circle")]);
    instead(&zdr, |path| fs::write(path, vec![b'#'; 10_000_000]).unwrap());
    refused(&zdr, &[&cannot("larger than 1 MiB")]);
    write(&zdr, "");
    refused(&zdr, &["the command is missing"]);
    write(&zdr, &good("")[..good("").find("ready").unwrap() + 10]);
    refused(&zdr, &["this is no TOML: ", " --> ", "zdr.toml:3:"]);
    write(&zdr, [good("").as_bytes(), b"name = \"\xe4\"\n"].concat());
    refused(&zdr, &[&format!("{path}:5: not UTF-8")]);
    write(&zdr, good("raedy = 'tcp'\nbkae = '1s'\n"));
    refused(&zdr, &["there is no key `raedy`\n", "zdr.toml:5:1", "there is no key `bkae`", "did you mean `bake`?"]);
    reload_as(&zdr, &format!("\u{feff}{}", good("")));
    reload_as(&zdr, &good("drain-idle = '1s'\n"));
    assert_eq!(zdr.status()["config_version"], 2, "a mark of the order of bytes is no change");
    nothing_was_lost(&zdr, load);
}

#[test]
fn a_restart_with_a_broken_file_stops_nothing() {
    let zdr = managed(Setup::of(&[""; 0]), &good("")).start();
    let load = load(zdr.address(), 4);
    write(&zdr, good("raedy = 'tcp'\n"));
    refused_by(&zdr, "restart", &["there is no key `raedy`\n", "zdr.toml:5:1"]);
    let told = zdr.client(&["rollback"]);
    assert_eq!((told.code, zdr.serving()), (1, Some(1)), "nothing was started: {told:?}");
    nothing_was_lost(&zdr, load);
    write(&zdr, good("drain-idle = '1s'\n"));
    let told = zdr.client(&["restart"]);
    assert_eq!((told.code, zdr.serving()), (0, Some(2)), "{told:?}");
    assert_eq!(zdr.status()["config_version"], 2);
}

#[test]
fn what_the_machine_does_not_have_is_told_with_its_place_in_the_file() {
    let zdr = managed(Setup::of(&[""; 0]), &good("")).start();
    let load = load(zdr.address(), 4);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let _stranger = stranger(free, false);
    let at = |more: &str| good("").replace("'127.0.0.1:0'", &format!("['127.0.0.1:0', {more}]"));
    for (text, sentence, place) in [
        (good("user = 'nobody-here'\n"), "--user: there is no user `nobody-here`", "5:1"),
        (good("group = 'nobody-here'\n"), "--group: there is no group `nobody-here`", "5:1"),
        (good("limit = ['core=0', 'nofile=99999999999']\n"), "--limit nofile=99999999999 is more than", "5:20"),
        (at(&format!("'{free}'")), &format!("cannot listen on {free}: "), "2:26"),
        (at("'unix:/no/such/folder/x'"), "cannot listen on unix:/no/such/folder/x: ", "2:26"),
    ] {
        write(&zdr, text);
        refused(&zdr, &[sentence, &format!("zdr.toml:{place}\n")]);
    }
    assert_eq!(zdr.status()["listeners"].as_array().unwrap().len(), 1);
    reload_as(&zdr, &good("user = '0'\n"));
    nothing_was_lost(&zdr, load);
}

#[test]
fn a_release_directory_that_is_not_there_leaves_the_old_one() {
    let setup = Setup::of(&[""; 0]);
    let place = setup.place("release");
    let text = good(&format!("chdir = {place:?}\n"));
    let zdr = managed(setup, &good("")).start();
    let load = load(zdr.address(), 4);
    write(&zdr, &text);
    let told = zdr.reload();
    let sentence = "generation 2 could not be started: ";
    assert!(told.code == 3 && told.error.contains(sentence), "{told:?}");
    assert!(told.error.contains("cannot enter its working directory: no such file or directory"), "{told:?}");
    // There when it was checked, and gone when it is to be started.
    fs::create_dir(&place).unwrap();
    let path = zdr.place("zdr.toml");
    let told = zdr.client(&["check", &path, "--admin", &zdr.admin().display().to_string()]);
    assert_eq!(told.code, 0, "{told:?}");
    fs::remove_dir(&place).unwrap();
    let told = zdr.reload();
    assert!(told.code == 3 && told.error.contains("generation 1 serves on"), "{told:?}");
    fs::create_dir(&place).unwrap();
    assert_eq!(zdr.reload().code, 0);
    assert_eq!(fs::read_link(format!("/proc/{}/cwd", zdr.server_pid())).unwrap().display().to_string(), place);
    nothing_was_lost(&zdr, load);
}

#[test]
fn a_file_that_may_not_be_read_any_more_leaves_the_old_one() {
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"];
    let setup = managed(Setup::of(&[""; 0]), &good("")).through(&nobody);
    chown(setup.folder(), Some(65534), Some(65534)).unwrap();
    let zdr = setup.start();
    let path = zdr.place("zdr.toml");
    let rights = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    rights(0o600);
    refused(&zdr, &[&format!("cannot read the configuration file {path}: permission denied")]);
    rights(0o644);
    assert_eq!(zdr.reload().code, 0);
}

#[test]
fn a_crash_while_the_file_is_broken_starts_the_last_good_configuration_again() {
    let zdr = managed(Setup::of(&[""; 0]), &good("[env]\nA = 'one'\n")).start();
    reload_as(&zdr, &good("[env]\nA = 'two'\n"));
    write(&zdr, "nonsense");
    refused(&zdr, &["this is no TOML"]);
    for generation in 3..6 {
        kill(Pid::from_raw(zdr.server_pid()), Signal::SIGKILL).unwrap();
        zdr.wait_until("the next", |status| in_seat(status, "serving") == Some(generation));
        let environment = fs::read(format!("/proc/{}/environ", zdr.server_pid())).unwrap();
        assert!(environment.split(|byte| *byte == 0).any(|entry| entry == b"A=two"));
        assert_eq!(zdr.status()["config_version"], 2);
    }
    reload_as(&zdr, &good("[env]\nA = 'three'\n"));
    let text = wait_for("the third", || fs::read_to_string(format!("/proc/{}/environ", zdr.server_pid())).ok());
    assert!(text.contains("A=three"));
    assert_eq!(zdr.status()["config_version"], 3);
}
