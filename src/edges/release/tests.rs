//! Releases started for the first time and again, by real processes that tell what they are.

mod site;

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{PermissionsExt, symlink};

use nix::unistd::geteuid;

use self::site::Site;
use super::super::child::StartError;
use super::*;
use crate::address::Listener;
use crate::config::EnvironmentFile;

/// The numbers of all open descriptors, asked without opening another.
const DESCRIPTORS: &str = "for one in /proc/$$/fd/*; do [ -e $one ] && echo ${one##*/}; done";

#[test]
fn a_release_runs_in_its_own_directory_wherever_current_leads_by_now() {
    let site = Site::new().in_directory("current");
    let command = ["/bin/sh", "-c", "pwd -P; cat version"];
    let (release, told) = site.first(&command);
    assert_eq!(told, format!("{}\nr1", site.place("r1")));
    site.switch("r2");
    assert_eq!(site.again(&release), told);
    // A new one is led to the new place.
    assert_eq!(site.first(&command).1, format!("{}\nr2", site.place("r2")));
}

#[test]
fn what_was_executed_through_current_is_executed_where_it_was() {
    let site = Site::new();
    let (release, told) = site.first(&[&site.place("current/run")]);
    assert_eq!(told, format!("r1 {}", site.place("current/run")));
    assert_eq!(site.again(&release), told);
    site.switch("r2");
    // By a name beside which a script finds what belongs to it.
    assert_eq!(site.again(&release), format!("r1 {}", site.place("r1/run")));
    let relative = Site::new().in_directory("current");
    let (release, told) = relative.first(&["./run"]);
    relative.switch("r2");
    assert_eq!((relative.again(&release), told.as_str()), (told.clone(), "r1 ./run"));
}

#[test]
fn a_program_that_was_found_by_its_folder_is_called_by_the_same_folder() {
    let site = Site::new();
    for release in ["r1", "r2"] {
        symlink("/bin/sh", site.at(release).join("python")).unwrap();
    }
    let program = site.place("current/python");
    let (release, told) = site.first(&[&program, "-c", "echo $0"]);
    assert_eq!(told, program);
    site.switch("r2");
    assert_eq!(site.again(&release), site.place("r1/python"));
}

#[test]
fn a_binary_that_was_replaced_runs_again_from_the_old_file() {
    let site = Site::new();
    site.binary("server");
    let command = [&site.place("server"), "-c", "echo \"$0\" \"$@\"; readlink /proc/$$/exe", "a", "b"];
    let (release, told) = site.first(&command);
    assert_eq!(told, format!("a b\n{}", site.place("server")));
    site.script("new", "#!/bin/sh\necho new\n");
    site.replace("server", "new");
    assert_eq!(site.again(&release), format!("{told} (deleted)"));
    assert_eq!(site.again(&release), format!("{told} (deleted)"));
    assert_eq!(site.first(&command).1, "new");
}

#[test]
fn a_binary_that_was_moved_away_runs_again_by_the_name_it_has() {
    let site = Site::new();
    let server = site.place("r1/run");
    let (release, _) = site.first(&[&server]);
    fs::rename(&server, site.at("run.old")).unwrap();
    fs::copy(site.at("r2/run"), &server).unwrap();
    assert_eq!(site.again(&release), format!("r1 {}", site.place("run.old")));
}

#[test]
fn a_script_that_was_replaced_runs_again_from_the_old_file() {
    let site = Site::new();
    let python = "#!/usr/bin/env python3\nimport sys\nprint('old', sys.argv[1:], len(sys.path[0]) > 0)\n";
    for (script, told) in [("#!/bin/sh\necho old \"$@\"\n", "old a"), (python, "old ['a'] True")] {
        site.script("server", script);
        let (release, first) = site.first(&[&site.place("server"), "a"]);
        assert_eq!(first, told);
        site.script("new", "#!/bin/sh\necho new\n");
        site.replace("server", "new");
        assert_eq!((site.again(&release), site.again(&release)), (first.clone(), first));
    }
}

#[test]
fn a_name_is_looked_up_as_execvp_does_and_what_was_found_stays() {
    // The first may not be entered by the user, though zdr may enter it; the second is no program.
    let mut site = Site::new().of_nobody();
    for folder in ["shut", "text", "open"] {
        fs::create_dir(site.at(folder)).unwrap();
        site.script(&format!("{folder}/server"), &format!("#!/bin/sh\necho {folder}\n"));
    }
    fs::set_permissions(site.at("text/server"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(site.at("shut"), fs::Permissions::from_mode(0o000)).unwrap();
    let folders = ["none", "shut", "text", "open"].map(|name| site.place(name)).join(":");
    site.process.environment.push(("PATH".into(), format!("{folders}:/usr/bin:/bin").into()));
    let (release, told) = site.first(&["server"]);
    assert_eq!(told, "open");
    fs::set_permissions(site.at("text/server"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!((site.first(&["server"]).1, site.again(&release)), ("text".to_owned(), told.clone()));
    fs::remove_file(site.at("open/server")).unwrap();
    assert_eq!(site.again(&release), told);
    // So that it can be removed.
    fs::set_permissions(site.at("shut"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_program_that_may_be_executed_but_not_read_runs_again() {
    let site = Site::new().of_nobody();
    site.binary("server");
    fs::set_permissions(site.at("server"), fs::Permissions::from_mode(0o111)).unwrap();
    let (release, told) = site.first(&[&site.place("server"), "-c", "id -u"]);
    let uid = if geteuid().is_root() { 65534 } else { geteuid().as_raw() };
    assert_eq!((told.clone(), site.again(&release)), (uid.to_string(), uid.to_string()));
    site.script("new", "#!/bin/sh\necho new\n");
    site.replace("server", "new");
    assert_eq!(site.again(&release), told);
    // The right to execute it is the user's, not that of zdr.
    let file = format!("/proc/self/fd/{}", release.program().unwrap().file.as_raw_fd());
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
    let error = site.told(|start| start.again(&release)).unwrap_err();
    assert_eq!(error.code(), Some(126));
    assert!(error.to_string().contains("permission denied"), "{error}");
}

#[test]
fn a_directory_that_was_renamed_is_still_the_directory() {
    let site = Site::new().in_directory("r1");
    symlink("version", site.at("r1/link")).unwrap();
    let (release, _) = site.first(&["./run", "link"]);
    fs::rename(site.at("r1"), site.at("old (deleted)")).unwrap();
    assert_eq!(site.again(&release), "r1 ./run link");
    fs::rename(site.at("r2"), site.at("r1")).unwrap();
    assert_eq!(site.again(&release), "r1 ./run link");
    assert_eq!(site.first(&["./run"]).1, "r2 ./run");
}

#[test]
fn a_directory_that_the_user_may_enter_no_more_is_refused() {
    let site = Site::new().in_directory("r1").of_nobody();
    let (release, _) = site.first(&["./run"]);
    fs::set_permissions(site.at("r1"), fs::Permissions::from_mode(0o600)).unwrap();
    let error = site.told(|start| start.again(&release)).unwrap_err();
    let words = format!("`{}`: cannot enter its working directory: permission denied", site.place("r1"));
    assert!(error.to_string().starts_with(&words), "{error}");
    fs::set_permissions(site.at("r1"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_directory_that_is_gone_is_told() {
    let site = Site::new().in_directory("current");
    let (release, _) = site.first(&["./run"]);
    fs::remove_dir_all(site.at("r1")).unwrap();
    // Even where there is another of that name.
    for again in [false, true] {
        if again {
            fs::create_dir(site.at("r1")).unwrap();
        }
        let error = site.told(|start| start.again(&release)).unwrap_err();
        assert_eq!(error.to_string(), format!("the release directory {} is gone", site.place("r1")));
        assert_eq!(error.code(), Some(126));
    }
}

#[test]
fn an_argument_that_led_through_a_symlink_leads_where_it_did() {
    let site = Site::new();
    let [version, option] = ["", "--config="].map(|before| format!("{before}{}", site.place("current/version")));
    symlink("r1/version", site.at("latest")).unwrap();
    let latest = site.place("latest");
    let command = ["/bin/sh", "-c", "cat \"$1\"; echo \" $*\"", "sh", &version, &option, &latest, "{instance}", "r1"];
    let (release, told) = site.first(&command);
    assert_eq!(told, format!("r1 {version} {option} {latest} 2 r1"));
    assert_eq!(site.again(&release), told);
    site.switch("r2");
    symlink("r2/version", site.at("next")).unwrap();
    site.replace("latest", "next");
    let then = site.place("r1/version");
    assert_eq!(site.again(&release), format!("r1 {then} --config={then} {then} 2 r1"));
    // What is not there any more is named as it was written.
    fs::remove_dir_all(site.at("r1")).unwrap();
    assert_eq!(site.again(&release), format!("r2 {version} {option} {latest} 2 r1"));
}

#[test]
fn an_edited_file_is_no_other_argument() {
    let site = Site::new();
    let version = site.place("current/version");
    let (release, told) = site.first(&["/bin/echo", &version]);
    fs::write(site.at("edited"), "r1.1").unwrap();
    site.replace("r1/version", "edited");
    assert_eq!((site.again(&release), told), (version.clone(), version));
    site.switch("r2");
    assert_eq!(site.again(&release), site.place("r1/version"));
}

#[test]
fn the_variables_are_those_that_the_files_had() {
    let mut site = Site::new();
    let path = site.at("variables");
    fs::write(&path, "COLOUR=red\nSIZE=1\n").unwrap();
    site.process.environment_files.push(EnvironmentFile { path: path.clone(), optional: false });
    let command = ["/bin/sh", "-c", "echo $COLOUR ${SIZE-none} $ZDR_GENERATION $ZDR_INSTANCE"];
    let (release, told) = site.first(&command);
    fs::write(&path, "COLOUR=blue\n").unwrap();
    assert_eq!((told, site.again(&release)), ("red 1 4 2".to_owned(), "red 1 4 2".to_owned()));
    assert_eq!(site.first(&command).1, "blue none 4 2");
    fs::remove_file(&path).unwrap();
    assert_eq!(site.again(&release), "red 1 4 2");
    assert!(Release::take(Generation(5), &site.process, &[]).is_err());
}

#[test]
fn a_text_without_an_interpreter_is_refused_at_every_start() {
    let site = Site::new();
    let server = site.place("server");
    site.script("server", "echo hello\n");
    let refused = |error: &StartError| {
        assert_eq!(error.to_string(), format!("`{server}`: cannot execute it: not executable: exec format error"));
        assert_eq!(error.code(), Some(126));
    };
    let mut never = site.take(&[&server]);
    refused(&site.told(|start| start.first(&mut never)).unwrap_err());
    refused(&site.told(|start| start.again(&never)).unwrap_err());
    site.script("server", "#!/bin/sh\necho hello\n");
    let (release, _) = site.first(&[&server]);
    site.script("server", "echo hello\n");
    refused(&site.told(|start| start.again(&release)).unwrap_err());
}

#[test]
fn a_file_that_was_written_to_is_told_and_runs_as_it_is() {
    let site = Site::new().in_directory("r1");
    let (release, _) = site.first(&["./run"]);
    assert_eq!(release.changed_in_place(), None);
    // Nothing keeps a deployer from writing to it.
    site.script("r1/run", "#!/bin/sh\necho changed\n");
    let warning = "./run was changed in place since generation 3 started; it runs as it is now";
    assert_eq!(release.changed_in_place().as_deref(), Some(warning));
    assert_eq!(site.again(&release), "changed");
}

#[test]
fn a_server_started_again_has_the_descriptors_that_it_was_lent_and_no_other() {
    let mut site = Site::new().in_directory("current");
    site.listeners = ["a=127.0.0.1:80", "b=127.0.0.1:81"].map(|one| Listener::parse(one, "").unwrap()).into();
    let expected = "0\n1\n2\n3\n4";
    site.binary("r1/server");
    let (release, told) = site.first(&["./server", "-c", DESCRIPTORS]);
    assert_eq!((told.as_str(), site.again(&release).as_str()), (expected, expected));
    fs::remove_file(site.at("r1/server")).unwrap();
    assert_eq!(site.again(&release), expected);
    // A script: where its shell has it open, above those that a script can name, and where the shell was to find it.
    site.script("r1/script", &format!("#!/bin/sh\necho $0\n{DESCRIPTORS}\n"));
    let beyond = |told: &str| {
        let numbers = told.lines().skip(1).map(|number| number.parse::<i32>().unwrap());
        let (lent, beyond): (Vec<i32>, Vec<i32>) = numbers.partition(|number| *number < 5);
        assert_eq!(lent, [0, 1, 2, 3, 4]);
        beyond
    };
    let (release, told) = site.first(&["./script"]);
    assert!(matches!(beyond(&told)[..], [10..=i32::MAX]), "{told}");
    fs::remove_file(site.at("r1/script")).unwrap();
    let told = site.again(&release);
    let number = told.lines().next().and_then(|name| name.strip_prefix("/dev/fd/")?.parse::<i32>().ok()).unwrap();
    let (found, others): (Vec<i32>, Vec<i32>) = beyond(&told).into_iter().partition(|other| *other == number);
    assert!(matches!((&found[..], &others[..]), ([_], [10..=i32::MAX])), "{told}");
}

#[test]
fn a_release_holds_two_descriptors() {
    let mut site = Site::new().in_directory("current");
    let folders = ["r1", "r2"].map(|name| site.place(name)).join(":");
    site.process.environment.push(("PATH".into(), format!("{folders}:/usr/bin:/bin").into()));
    let (release, _) = site.first(&["run"]);
    let open = || {
        let links = fs::read_dir("/proc/self/fd").unwrap().flatten().filter_map(|fd| fs::read_link(fd.path()).ok());
        let mut ours: Vec<PathBuf> = links.filter(|link| link.starts_with(site.at(""))).collect();
        ours.sort();
        ours
    };
    assert_eq!(open(), [site.at("r1"), site.at("r1/run")]);
    drop(release);
    assert!(open().is_empty());
}

#[test]
fn an_errand_runs_in_the_directory_and_with_the_variables_of_its_release() {
    let mut site = Site::new().in_directory("current");
    let path = site.at("variables");
    fs::write(&path, "COLOUR=red\n").unwrap();
    site.process.environment_files.push(EnvironmentFile { path: path.clone(), optional: false });
    let (release, _) = site.first(&["./run"]);
    site.switch("r2");
    fs::write(&path, "COLOUR=blue\n").unwrap();
    let command = ["/bin/sh", "-c", "cat version; echo \" $COLOUR\""].map(OsString::from);
    assert_eq!(site.told(|start| start.errand(&command, Some(&release))).unwrap(), "r1 red");
    assert_eq!(site.told(|start| start.errand(&command, None)).unwrap(), "r2 blue");
}
