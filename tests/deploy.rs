//! The ways of deploying that the README names: its very lines, run by a shell under a strict load.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::{DEADLINE, Told, ZDR, Zdr, free_port, zdr};
use crate::managed::{load, nothing_was_lost, server};

const README: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/README.md");
const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/zdr.toml");

/// The lines of each way by the bold words before them.
fn ways() -> BTreeMap<String, Vec<String>> {
    let readme = fs::read_to_string(README).unwrap();
    let section = readme.split("\n## Deploy\n").nth(1).unwrap().split("\n## ").next().unwrap();
    let mut ways = BTreeMap::new();
    for part in section.split("\n**").skip(1) {
        let (name, rest) = part.split_once("**").unwrap();
        let lines = rest.lines().filter_map(|line| line.strip_prefix("    ").map(str::to_owned));
        ways.insert(name.to_owned(), lines.collect());
    }
    ways
}

/// A folder as the lines expect it: releases, each a script that runs the sample server and tells its release in its
/// environment, and a file with settings.
fn site(port: u16) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for (name, release) in [
        ("releases/1/my-server", "1"),
        ("releases/2/my-server", "2"),
        ("build/my-server", "2"),
        ("my-server", "1"),
        ("my-server-2", "2"),
    ] {
        fs::create_dir_all(at(name).parent().unwrap()).unwrap();
        fs::write(at(name), format!("#!/bin/sh\nRELEASE={release} exec zdr sample-server --work 2ms\n")).unwrap();
        fs::set_permissions(at(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    for made in ["bin", "run"] {
        fs::create_dir(at(made)).unwrap();
    }
    symlink("releases/1", at("current")).unwrap();
    symlink(ZDR, at("bin/zdr")).unwrap();
    fs::write(at("my-server.env"), "COLOUR=red\nSIZE=1\n").unwrap();
    let settings =
        format!("command = [\"./my-server\"]\nlisten = \"127.0.0.1:{port}\"\nready = \"/health\"\ninstances = 1\n");
    fs::write(at("zdr.toml"), settings).unwrap();
    folder
}

/// As a user would type it there.
fn shell(folder: &Path, line: &str) -> Command {
    let mut shell = Command::new("sh");
    let path = format!("{}:{}", folder.join("bin").display(), std::env::var("PATH").unwrap());
    shell.args(["-euc", line]).current_dir(folder).env("PATH", path).env("RUNTIME_DIRECTORY", folder.join("run"));
    shell.env_remove("ZDR_ADMIN").env_remove("PORT").stdin(Stdio::null());
    shell
}

/// Does what the README says, and shows that nobody has lost anything by it.
fn deployed(way: &str) -> Zdr {
    let port = free_port();
    let lines = ways().remove(way).unwrap_or_else(|| panic!("the README has no way {way}: {:?}", ways().keys()));
    let lines: Vec<String> = lines.iter().map(|line| line.replace("8080", &port.to_string())).collect();
    let folder = site(port);
    let log = fs::File::create(folder.path().join("log")).unwrap();
    assert!(lines[0].starts_with("zdr run "), "{lines:?}");
    let child = shell(folder.path(), &format!("exec {}", lines[0])).stdout(Stdio::null()).stderr(log).spawn().unwrap();
    // It is called as its program is.
    let admin = folder.path().join("run/my-server.sock");
    let zdr = Zdr::of(folder, admin, child);
    assert_eq!(zdr.client(&["wait", "--timeout", "20s"]).code, 0, "{}", zdr.log());
    let load = load(zdr.address(), 4);
    assert!(load.wait_for_answers(20, DEADLINE), "no answers:\n{}", load.stop());
    let told: Told = shell(zdr.folder(), &lines[1..].join("\n")).output().unwrap().into();
    assert_eq!(told.code, 0, "{told:?}");
    assert_eq!(zdr.serving(), Some(2), "there was one reload that went well: {told:?}");
    nothing_was_lost(&zdr, load);
    zdr
}

/// A variable of the server.
fn variable(zdr: &Zdr, name: &str) -> Option<String> {
    let environment = fs::read_to_string(format!("/proc/{}/environ", zdr.server_pid())).unwrap();
    environment.split('\0').find_map(|entry| entry.strip_prefix(&format!("{name}="))).map(str::to_owned)
}

#[test]
fn a_switched_symlink_is_a_deploy() {
    let zdr = deployed("A `current` symlink");
    assert_eq!(variable(&zdr, "RELEASE").as_deref(), Some("2"));
    let directory = fs::read_link(format!("/proc/{}/cwd", zdr.server_pid())).unwrap();
    assert_eq!(directory, zdr.folder().join("releases/2"));
}

#[test]
fn a_replaced_binary_is_a_deploy() {
    let zdr = deployed("A binary");
    assert_eq!(variable(&zdr, "RELEASE").as_deref(), Some("2"));
}

#[test]
fn a_new_command_is_a_deploy_that_lasts() {
    let zdr = deployed("A new command");
    for _ in 0..2 {
        assert_eq!(variable(&zdr, "RELEASE").as_deref(), Some("2"));
        assert_eq!(server(&zdr)["command"], serde_json::json!(["./my-server-2", "--new-flag"]));
        assert_eq!(zdr.reload().code, 0);
    }
}

#[test]
fn a_changed_file_of_variables_is_a_deploy() {
    let zdr = deployed("A file of variables");
    assert_eq!((variable(&zdr, "COLOUR").as_deref(), variable(&zdr, "SIZE")), (Some("blue"), None));
}

#[test]
fn a_changed_configuration_is_a_deploy() {
    let zdr = deployed("A configuration file");
    assert_eq!(server(&zdr)["instances"].as_array().unwrap().len(), 3);
    assert_eq!(zdr.status()["config_version"], 2);
}

#[test]
fn a_broken_configuration_is_no_deploy_and_a_mended_one_is() {
    let zdr = deployed("A configuration that is broken and mended");
    let log = zdr.log();
    assert!(log.contains("there is no key `raedy`\n --> zdr.toml:3:1\n"), "{log}");
    assert!(log.contains("help: did you mean `ready`?\ngeneration 1 serves on\n"), "{log}");
}

#[test]
fn every_way_of_the_readme_is_tried() {
    let tried = [
        "A `current` symlink",
        "A binary",
        "A configuration file",
        "A configuration that is broken and mended",
        "A file of variables",
        "A new command",
    ];
    assert_eq!(ways().into_keys().collect::<Vec<_>>(), tried);
}

#[test]
fn the_example_of_a_configuration_is_good_and_so_is_each_line_that_it_proposes() {
    let folder = site(0);
    let here = folder.path().display().to_string();
    fs::copy(folder.path().join("my-server"), folder.path().join("releases/1/myapp")).unwrap();
    fs::copy(folder.path().join("my-server"), folder.path().join("releases/1/smoke-test")).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let example = fs::read_to_string(EXAMPLE).unwrap().replace("/srv/myapp", &here);
    let example = example.replace(":8080", &format!(":{}", free_port())).replace(":9000", &format!(":{}", free_port()));
    let proposed = |line: &str| {
        line.strip_prefix('#').filter(|rest| !rest.is_empty() && !rest.starts_with(' ')).map(str::to_owned)
    };
    let all: Vec<String> = example.lines().map(|line| proposed(line).unwrap_or_else(|| line.to_owned())).collect();
    assert!(example.lines().filter_map(proposed).count() > 10);
    for text in [example, all.join("\n")] {
        let path = folder.path().join("example.toml");
        fs::write(&path, &text).unwrap();
        let told = zdr(&["check", &path.display().to_string()]);
        assert_eq!(told.code, 0, "{told:?}");
    }
}
