//! `--watch`: a saved file is a reload, however an editor saves it, and a build that fails leaves what serves.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::harness::{DEADLINE, Setup, ZDR, Zdr, free_port, get, in_seat, wait_for};
use crate::load::{Load, Shape};

/// Watches the folder `src`, in which there is a file with this text, with this script for the shell as the server. `$S` is
/// the sample server, and `$F` the folder.
fn watching(text: &str, script: &str) -> Setup {
    let setup = Setup::of(&[""; 0]);
    let folder = setup.folder().display().to_string();
    fs::create_dir(setup.folder().join("src")).unwrap();
    fs::write(setup.folder().join("src/main"), text).unwrap();
    let script = format!("F={folder}; S='{ZDR} sample-server'; {script}");
    let watched = setup.place("src");
    setup.command(&["sh", "-c", &script]).option("--watch", &watched).option("--bake", "0s")
}

/// The file that is changed.
fn source(zdr: &Zdr) -> PathBuf {
    zdr.folder().join("src/main")
}

#[track_caller]
fn serves(zdr: &Zdr, generation: u64) {
    zdr.wait_until(&format!("generation {generation} to serve"), |status| {
        in_seat(status, "serving") == Some(generation) && in_seat(status, "starting").is_none()
    });
}

/// How often this stands in the log.
fn told(zdr: &Zdr, words: &str) -> usize {
    zdr.log().matches(words).count()
}

#[track_caller]
fn wait_until_told(zdr: &Zdr, words: &str, times: usize) {
    wait_for(words, || (told(zdr, words) >= times).then_some(()));
}

/// A build that fails where the file says so.
const BUILD: &str = "grep -q good $F/src/main || { echo 'error: expected `;`' >&2; exit 1; }; exec $S";

#[test]
fn a_saved_file_is_a_reload_that_loses_nothing() {
    let zdr = watching("1", "exec $S").start();
    let (new_connection_clients, keep_alive_clients, path) = (2, 2, "/".to_owned());
    let shape =
        Shape { new_connection_clients, keep_alive_clients, rate_per_client: Some(50.0), path, limit: DEADLINE };
    let load = Load::start(zdr.address(), &shape).unwrap();
    for generation in 2..5 {
        fs::write(source(&zdr), generation.to_string()).unwrap();
        serves(&zdr, generation);
        assert!(load.wait_for_answers(20, DEADLINE));
    }
    let report = load.stop();
    assert_eq!(report.failed(), 0, "{report}");
    assert_eq!(told(&zdr, "started as process") - told(&zdr, "for a change"), 1, "{}", zdr.log());
}

#[test]
fn a_change_during_a_reload_is_not_lost() {
    let hold = "cp $F/src/main $F/seen.$ZDR_GENERATION; while [ -e $F/hold ]; do sleep 0.01; done; exec $S";
    let zdr = watching("1", hold).start();
    fs::write(zdr.folder().join("hold"), "").unwrap();
    fs::write(source(&zdr), "2").unwrap();
    let seen = |generation: u64| fs::read_to_string(zdr.folder().join(format!("seen.{generation}"))).ok();
    wait_for("generation 2 to have looked", || seen(2).filter(|text| text == "2"));
    fs::write(source(&zdr), "3").unwrap();
    wait_until_told(&zdr, "src/main has changed", 2);
    assert_eq!(zdr.serving(), Some(1));
    fs::remove_file(zdr.folder().join("hold")).unwrap();
    serves(&zdr, 3);
    assert_eq!(seen(3).as_deref(), Some("3"));
}

#[test]
fn however_an_editor_saves_it_is_one_reload() {
    let zdr = watching("1", "exec $S").start();
    let file = source(&zdr);
    let beside = |name: &str| file.with_file_name(name);
    let truncated = |text: &str| fs::write(&file, text).unwrap();
    let renamed = |text: &str| {
        fs::write(beside(".main.tmp"), text).unwrap();
        fs::rename(beside(".main.tmp"), &file).unwrap();
    };
    // With its swap file, the file by which it tries whether it may write, and a backup (:help backup-table).
    let vim = |text: &str| {
        fs::write(beside(".main.swp"), "b0VIM").unwrap();
        fs::write(beside("4913"), "").unwrap();
        fs::remove_file(beside("4913")).unwrap();
        fs::rename(&file, beside("main~")).unwrap();
        fs::write(&file, text).unwrap();
        fs::remove_file(beside("main~")).unwrap();
        fs::remove_file(beside(".main.swp")).unwrap();
    };
    let emacs = |text: &str| {
        std::os::unix::fs::symlink("me@here", beside(".#main")).unwrap();
        fs::write(beside("#main#"), text).unwrap();
        fs::rename(&file, beside("main~")).unwrap();
        fs::write(&file, text).unwrap();
        fs::remove_file(beside("#main#")).unwrap();
        fs::remove_file(beside(".#main")).unwrap();
    };
    let saves: [&dyn Fn(&str); 4] = [&truncated, &renamed, &vim, &emacs];
    for (generation, save) in (2..).zip(saves) {
        save("changed");
        serves(&zdr, generation);
    }
    // Whatever else they were reloads for would have come before this one.
    fs::write(beside("other"), "").unwrap();
    serves(&zdr, 6);
}

#[test]
fn a_build_that_fails_leaves_what_serves_and_its_error_is_told_once() {
    let zdr = watching("good", BUILD).start();
    fs::write(source(&zdr), "bad").unwrap();
    let kept = "generation 2 exited with code 1 before it was ready";
    wait_until_told(&zdr, kept, 1);
    assert!(zdr.get("/").contains("generation 1,"));
    fs::write(source(&zdr), "good again").unwrap();
    // One more try of the bad one would have had this number.
    serves(&zdr, 3);
    assert_eq!((told(&zdr, "error: expected"), told(&zdr, kept)), (1, 1), "{}", zdr.log());
}

#[test]
fn a_first_build_that_fails_waits_for_a_change_as_often_as_it_takes() {
    let zdr = watching("bad", BUILD).begin();
    for times in 1..8 {
        wait_until_told(&zdr, "nothing serves; waiting for a change", times);
        assert_eq!(told(&zdr, "error: expected"), times, "{}", zdr.log());
        fs::write(source(&zdr), format!("bad {times}")).unwrap();
    }
    wait_until_told(&zdr, "nothing serves; waiting for a change", 8);
    fs::write(source(&zdr), "good").unwrap();
    serves(&zdr, 9);
    assert!(zdr.get("/").contains("generation 9,"));
}

/// A server of the standard library alone. It takes its socket from LISTEN_FDS where that is meant for it, or binds one.
const SERVER: &str = r#"
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::FromRawFd;

fn main() {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let is_lent = variable("LISTEN_PID") == std::process::id().to_string();
    let listener = match is_lent {
        true => unsafe { TcpListener::from_raw_fd(3) },
        false => TcpListener::bind(variable("ADDRESS")).unwrap(),
    };
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let (mut request, mut part) = (Vec::new(), [0; 4096]);
        while !request.ends_with(b"\r\n\r\n") {
            match stream.read(&mut part) {
                Ok(length) if length > 0 => request.extend_from_slice(&part[..length]),
                _ => break,
            }
        }
        let body = format!("VERSION {}", if is_lent { "lent" } else { "bound" });
        let length = body.len();
        let _ = write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}");
    }
}
"#;

fn write_crate(folder: &Path, version: &str) {
    fs::write(folder.join("src/main.rs"), SERVER.replace("VERSION", version)).unwrap();
}

/// `cargo run` of that server, with options for both.
fn cargo_run(setup: Setup) -> Setup {
    let folder = setup.folder().to_path_buf();
    fs::create_dir(folder.join("src")).unwrap();
    let manifest = "[package]\nname = 'tiny'\nversion = '0.1.0'\nedition = '2021'\n[workspace]\n";
    fs::write(folder.join("Cargo.toml"), manifest).unwrap();
    write_crate(&folder, "one");
    let (watched, target, place) = (setup.place("src"), setup.place("target"), folder.display().to_string());
    let setup = setup.command(&["cargo", "run", "--offline", "--quiet"]).option("-C", &place);
    setup.option("--watch", &watched).option("--bake", "0s").environment("CARGO_TARGET_DIR", &target)
}

#[test]
fn cargo_run_is_watched_without_further_options() {
    let address = format!("127.0.0.1:{}", free_port());
    let setup = cargo_run(Setup::of(&[""; 0]).listen(&[])).environment("ADDRESS", &address);
    let zdr = setup.begin();
    let address = address.parse().unwrap();
    let answers = |wanted: &str| wait_for(wanted, || (get(address, "/").1 == wanted).then_some(()));
    answers("one bound");
    let shape = Shape {
        new_connection_clients: 2,
        keep_alive_clients: 0,
        rate_per_client: Some(20.0),
        path: "/".to_owned(),
        limit: Duration::from_secs(10),
    };
    let load = Load::start(address, &shape).unwrap();
    write_crate(zdr.folder(), "two");
    answers("two bound");
    fs::write(zdr.folder().join("src/main.rs"), "fn main() { let broken = ; }\n").unwrap();
    wait_until_told(&zdr, "generation 3 exited with code 101 before it was ready", 1);
    answers("two bound");
    write_crate(zdr.folder(), "three");
    answers("three bound");
    let report = load.stop();
    assert_eq!(report.failed(), 0, "{report}\n{}", zdr.log());
    assert_eq!(told(&zdr, "expected expression, found"), 1, "{}", zdr.log());
    // cargo becomes the server, so nobody is left of it.
    zdr.wait_until("the old ones to be gone", |status| in_seat(status, "draining").is_none());
    assert_eq!(zdr.processes(), [zdr.server_pid()]);
}

#[test]
fn a_server_that_cargo_run_becomes_is_lent_its_sockets() {
    let zdr = cargo_run(Setup::of(&[""; 0])).start();
    assert_eq!(zdr.get("/"), "one lent");
}
