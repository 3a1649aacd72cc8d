//! Wrong use: exit code 2, one clear sentence, and nothing started.

use std::fs;

use crate::harness::{Setup, Told, sample, zdr};

/// A server that would leave a trace if it were ever started.
fn trace(setup: Setup) -> (Setup, std::path::PathBuf) {
    let trace = setup.folder().join("started");
    let script = format!("touch {}", trace.display());
    (setup.command(&["sh", "-c", &script]), trace)
}

/// clap puts its hints and the usage below the sentence.
#[track_caller]
fn refused(told: &Told, words: &str) {
    assert_eq!(told.code, 2, "{words}: {told:?}");
    let sentence = told.error.lines().next().unwrap_or_default();
    assert!(sentence.contains(words), "{words}: {told:?}");
    assert_eq!(told.out, "");
}

#[test]
fn a_bad_address_is_refused_and_nothing_is_started() {
    let long = format!("unix:/{}", "x".repeat(120));
    for (address, words) in [
        ("example.org:80", "`example.org` is no IP address"),
        ("sctp://127.0.0.1:1", "`sctp` is not one of"),
        ("127.0.0.1", "the port is missing"),
        ("127.0.0.1:65536", "the port 65536 is above 65535"),
        ("127.0.0.1:99999999999", "99999999999"),
        ("127.0.0.1:-1", "`-1` is no port number"),
        ("", "the address is missing"),
        (&long, "a Unix path may have 107 bytes"),
        ("127.0.0.1:0,colour=red", "`colour` is no key"),
        ("127.0.0.1:0,backlog=-1", "whole number from 1"),
        ("na me=127.0.0.1:0", "the name `na me`"),
    ] {
        let (setup, trace) = trace(Setup::of(&[""]));
        refused(&setup.listen(&[address]).output(), words);
        assert!(!trace.exists());
    }
}

#[test]
fn the_same_address_or_name_twice_is_refused() {
    let (setup, trace) = trace(Setup::of(&[""]));
    refused(
        &setup.listen(&["127.0.0.1:8089", "b=127.0.0.1:8089"]).output(),
        "the address 127.0.0.1:8089 is given twice",
    );
    assert!(!trace.exists());
    let told = Setup::of(&["true"]).listen(&["a=127.0.0.1:0", "a=127.0.0.1:0"]).output();
    refused(&told, "two listeners are called `a`");
}

#[test]
fn addresses_that_overlap_are_refused_too() {
    let port = crate::harness::free_port();
    let (setup, trace) = trace(Setup::of(&[""]));
    let told = setup.listen(&[&format!("127.0.0.1:{port}"), &format!("b=0.0.0.0:{port}")]).output();
    assert!(told.code == 1 || told.code == 2, "{told:?}");
    assert!(told.error.contains(&port.to_string()), "{told:?}");
    assert!(!trace.exists());
}

#[test]
fn a_value_that_means_nothing_is_refused_and_nothing_is_started() {
    for (option, value, words) in [
        ("--ready", "sometimes", "`sometimes` is no readiness"),
        ("--ready", "30", "has no unit"),
        ("--ready", "exec:", "the command behind `exec:` is missing"),
        ("--ready", "ftp://127.0.0.1/", "is no readiness"),
        ("--ready", "http://", "is no readiness"),
        ("--ready-timeout", "30", "the duration `30` has no unit"),
        ("--ready-timeout", "soon", "`soon` is no duration"),
        ("--drain-timeout", "-5s", "'-5'"),
        ("--drain-idle", "5 parsecs", "is no duration"),
        ("--bake", "2", "the duration `2` has no unit"),
        ("--lame-duck", "", "duration"),
        ("--ready-status", "600", "should be HTTP statuses"),
        ("--ready-successes", "0", "'0'"),
        ("--drain-signal", "NOPE", "`NOPE` is no signal"),
        ("--env", "novalue", "`novalue` is no variable"),
        ("--env-file", "-", "`-` is no file"),
        ("--env-file", "/nowhere/at/all", "cannot read the environment file /nowhere/at/all"),
        ("--user", "no-such-user", "--user: there is no user `no-such-user`"),
        // Leaves a process who it is: setresuid(2).
        ("--user", "4294967295", "--user: there is no user `4294967295`"),
        ("--user", "4294000000", "nobody is called 4294000000, so the group is not known; add --group"),
        ("--group", "no-such-group", "--group: there is no group `no-such-group`"),
        ("--umask", "0088", "`0088` is no mask"),
        ("--limit", "nofile", "write NAME=N"),
        ("--limit", "files=1", "`files` is not one of as, core,"),
        ("--limit", "nofile=2:1", "above the second"),
        ("--limit", "nofile=99999999999", "is more than zdr may give: fs.nr_open is "),
        ("--health", "udp://127.0.0.1:9000", "is no TCP address and no path"),
        ("--health", "unix:@x", "is no TCP address and no path"),
        ("--health", "127.0.0.1:9000,backlog=5", "only mode, owner and group fit here"),
        ("--health", "127.0.0.1:70000", "above 65535"),
        ("--health-path", "health", "is no path prefix"),
        ("--name", "a/b", "the name `a/b` may have"),
        ("--name", "..", "starts with a dot"),
        ("--log-format", "xml", "'xml'"),
    ] {
        let (setup, trace) = trace(Setup::of(&[""]));
        refused(&setup.option(option, value).output(), words);
        assert!(!trace.exists(), "{option} {value}");
    }
}

#[test]
fn an_unknown_option_is_refused() {
    refused(&zdr(&["run", "--listn", "8080", "--", "true"]), "--listn");
    refused(&zdr(&["reload", "--wait", "never"]), "never");
    refused(&zdr(&["frobnicate"]), "frobnicate");
}

#[test]
fn a_missing_command_is_refused_with_an_example() {
    for arguments in [
        &["run", "-l", "127.0.0.1:0"][..],
        &["run", "-l", "127.0.0.1:0", "--"],
        &["run", "-l", "127.0.0.1:0", "--", ""],
    ] {
        refused(&zdr(arguments), "the command is missing; write it behind `--`, for example `zdr run");
    }
}

#[test]
fn a_missing_listener_is_refused_with_the_way_out() {
    refused(&zdr(&["run", "--capture", "never", "--", "true"]), "no listener: say where to listen");
    let told = Setup::of(&["true"]).listen(&[]).through(&["env", "PORT=http"]).output();
    refused(&told, "PORT: `http` is no listener");
}

#[test]
fn a_question_that_no_listener_can_answer_is_refused() {
    for spec in ["/health", "tcp"] {
        let told = Setup::of(&["true"]).listen(&["udp://127.0.0.1:0"]).option("--ready", spec).output();
        refused(&told, "needs a TCP or Unix listener to ask");
    }
}

#[test]
fn an_admin_path_that_is_too_long_is_refused() {
    let path = format!("/tmp/{}", "x".repeat(120));
    refused(&zdr(&["run", "--admin", &path, "-l", "127.0.0.1:0", "--", "true"]), "is too long for a socket");
}

#[test]
fn a_runtime_directory_that_cannot_be_written_is_refused() {
    let setup = Setup::of(&["true"]).flag("--quiet");
    // Root may write everywhere but where there is no directory to be.
    fs::write(setup.folder().join("file"), "").unwrap();
    let inside = setup.folder().join("file").join("admin").display().to_string();
    let told = zdr(&["run", "--admin", &inside, "-l", "127.0.0.1:0", "--", "true"]);
    refused(&told, &format!("cannot make {}", setup.place("file")));
    // Nobody may not write into a folder that only root may.
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"];
    let told = setup.through(&nobody).output();
    assert_eq!(told.code, 2, "{told:?}");
    assert!(told.error.contains("permission denied") && told.error.contains("--admin"), "{told:?}");
}

#[test]
fn a_refusal_leaves_no_file_behind() {
    let setup = Setup::of(&["true"]).listen(&["192.0.2.1:80"]);
    let folder = setup.folder().to_owned();
    let kept = fs::read_dir(&folder).unwrap().count();
    let admin = folder.join("admin").display().to_string();
    assert_eq!(zdr(&["run", "--admin", &admin, "-l", "192.0.2.1:80", "--", "true"]).code, 1);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), kept);
}

#[test]
fn orders_without_a_supervisor_end_with_four() {
    for arguments in
        [&["reload"][..], &["status"], &["stop"], &["restart"], &["events"], &["reload", "--name", "nobody"]]
    {
        let told = zdr(arguments);
        assert_eq!(told.code, 4, "{arguments:?}: {told:?}");
        assert_eq!(told.error.lines().count(), 1, "{told:?}");
    }
    assert_eq!(zdr(&["list", "--json"]).out.trim(), "[]");
    assert_eq!(zdr(&["list"]).code, 0);
}

#[test]
fn several_supervisors_must_be_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().display().to_string();
    let started = |name: &str| {
        let path = folder.path().join(format!("{name}.sock")).display().to_string();
        Setup::of(&sample(&[]))
            .through(&["env"])
            .option("--name", name)
            .environment("RUNTIME_DIRECTORY", &place)
            .at(&path)
            .start()
    };
    let (_one, _two) = (started("one"), started("two"));
    let ask = |arguments: &[&str]| -> Told {
        let mut command = std::process::Command::new(crate::harness::ZDR);
        command.args(arguments).env("RUNTIME_DIRECTORY", &place).env_remove("ZDR_ADMIN").output().unwrap().into()
    };
    let told = ask(&["reload"]);
    assert_eq!(told.code, 2, "{told:?}");
    assert!(told.error.contains("choose one by --name: one, two"), "{told:?}");
    assert_eq!(ask(&["reload", "--name", "two"]).code, 0);
    let list = ask(&["list"]).out;
    let lines: Vec<&str> = list.lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("one ") && lines[1].starts_with("two "), "{list}");
    assert!(lines[0].ends_with("generation 1") && lines[1].ends_with("generation 2"), "{list}");
}
