//! The log: how much, as text, as JSON lines and as entries of the journal, and that nobody ever waits for it.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;

use serde_json::Value;

use crate::harness::{DEADLINE, Setup, Zdr, sample, wait_for};

/// A good reload, a broken release, a death and a stop: lines of most kinds.
fn story(zdr: &mut Zdr) {
    assert_eq!(zdr.reload().code, 0);
    assert_eq!(zdr.reload_to(&sample(&["--bad", "exit:3"])).code, 3);
    zdr.wait_until("the old one to end", |status| status["generations"].as_array().unwrap().len() == 1);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(zdr.server_pid()), nix::sys::signal::Signal::SIGKILL).unwrap();
    zdr.wait_until("another to serve", |status| crate::harness::in_seat(status, "serving") == Some(4));
    assert_eq!(zdr.client(&["stop"]).code, 0);
    zdr.ended();
}

fn quick() -> Setup {
    Setup::of(&sample(&[])).option("--bake", "0s")
}

/// The lines of the log that are zdr's own.
fn lines(zdr: &Zdr) -> Vec<String> {
    zdr.log().lines().map(str::to_owned).collect()
}

#[test]
fn the_log_has_as_much_as_flags_or_the_variable_say() {
    for (flags, variable, levels) in [
        (&[][..], "", &[" INFO ", " WARN "][..]),
        (&["-q"], "", &[" WARN "]),
        (&["-qq"], "trace", &[]),
        (&[], "warn", &[" WARN "]),
        (&[], "debug", &[" DEBUG ", " INFO ", " WARN "]),
        (&["-v"], "error", &[" DEBUG ", " INFO ", " WARN "]),
        (&["-vv"], "", &[" TRACE ", " DEBUG ", " INFO ", " WARN "]),
    ] {
        let setup = flags.iter().fold(quick(), |setup, flag| setup.flag(flag));
        let mut zdr = setup.environment("ZDR_LOG", variable).start();
        story(&mut zdr);
        let log = zdr.log();
        for level in [" TRACE ", " DEBUG ", " INFO ", " WARN ", " ERROR "] {
            assert_eq!(log.contains(level), levels.contains(&level), "{flags:?} {variable:?} {level}: {log}");
        }
    }
}

#[test]
fn a_level_that_means_nothing_is_refused_in_one_sentence() {
    let told = quick().environment("ZDR_LOG", "loud").output();
    assert_eq!((told.code, told.out.as_str()), (2, ""), "{told:?}");
    assert_eq!(told.error, "zdr: ZDR_LOG: `loud` is not one of error, warn, info, debug, trace\n");
}

#[test]
fn text_for_people_says_everything_once_and_in_sentences() {
    let mut zdr = quick().start();
    story(&mut zdr);
    let lines = lines(&zdr);
    let failed: Vec<_> = lines.iter().filter(|line| line.contains("exited with code 3 before it was ready")).collect();
    assert_eq!(failed.len(), 1, "{lines:?}");
    assert!(
        failed[0].contains(" WARN generation 3 exited") && failed[0].ends_with("generation 2 serves on"),
        "{failed:?}"
    );
    assert!(!lines.iter().any(|line| line.contains("event=") || line.contains("generation=")), "{lines:?}");
    // Lines that are not of the story keep what they have to say.
    assert!(lines[0].contains("listening name=\"main\" address="), "{lines:?}");
}

/// What an event says, without what only its place in the stream says.
fn said(event: &Value) -> BTreeMap<String, Value> {
    let fields = event.as_object().unwrap().iter().filter(|(name, _)| !["id", "time"].contains(&name.as_str()));
    let as_text = |value: &Value| match value {
        Value::Array(lines) => lines.iter().map(|line| line.as_str().unwrap()).collect::<Vec<_>>().join("\n").into(),
        other => other.clone(),
    };
    let fields = fields.map(|(name, value)| (name.clone(), as_text(value)));
    fields.filter(|(_, value)| !value.is_null() && *value != "").collect()
}

#[test]
fn the_log_in_json_has_the_story_as_the_events_have_it() {
    let mut zdr = quick().option("--log-format", "json").start();
    let mut following = zdr.client_in_background(&["events", "--json"]);
    let mut events = BufReader::new(following.stdout.take().unwrap()).lines().map(Result::unwrap);
    // Whoever follows hears of a reload once it does.
    wait_for("the follower to be there", || (zdr.reload().code == 0).then(|| events.next().unwrap()));
    let generation = zdr.serving().unwrap();
    assert_eq!(zdr.reload_to(&sample(&["--bad", "exit:3"])).code, 3);
    assert_eq!(zdr.client(&["stop"]).code, 0);
    zdr.ended();
    following.wait().unwrap();
    let logged: Vec<Value> = lines(&zdr).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut kinds = BTreeMap::new();
    for event in events.filter_map(|line| serde_json::from_str::<Value>(&line).ok()) {
        let found = logged.iter().any(|line| {
            let mut fields = said(line);
            let level = fields.remove("level").unwrap();
            assert!(fields.remove("timestamp").is_some() && ["INFO", "WARN"].contains(&level.as_str().unwrap()));
            fields == said(&event)
        });
        assert!(found, "{event} is not in the log: {logged:#?}");
        kinds.insert(event["event"].as_str().unwrap().to_owned(), event);
    }
    for kind in ["failed", "verdict", "stopping", "signalled"] {
        assert!(kinds.contains_key(kind), "{kinds:?}");
    }
    assert_eq!(
        (&kinds["failed"]["generation"], &kinds["failed"]["cause"]),
        (&(generation + 1).into(), &"exited".into())
    );
}

/// With the socket of a journald of the test's own where that of the machine would be.
fn with_journald(setup: Setup, before: &str) -> (Setup, UnixDatagram) {
    let socket = setup.place("journald");
    let journald = UnixDatagram::bind(&socket).unwrap();
    journald.set_read_timeout(Some(DEADLINE)).unwrap();
    let script = format!(
        "mount -t tmpfs tmpfs /run && mkdir -p /run/systemd/journal && ln -s {socket} /run/systemd/journal/socket; \
         {before} exec \"$@\""
    );
    (setup.through(&["unshare", "--mount", "sh", "-c", &script, "sh"]), journald)
}

/// Stderr is the journal as far as zdr can tell.
const OURS: &str = "export JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2);";

/// The fields of an entry, by systemd.io/JOURNAL_NATIVE_PROTOCOL.
fn entry(mut bytes: &[u8]) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
        let (line, rest) = (String::from_utf8(bytes[..end].to_vec()).unwrap(), &bytes[end + 1..]);
        if let Some((name, value)) = line.split_once('=') {
            fields.insert(name.to_owned(), value.to_owned());
            bytes = rest;
            continue;
        }
        let length = usize::try_from(u64::from_le_bytes(rest[..8].try_into().unwrap())).unwrap();
        fields.insert(line, String::from_utf8(rest[8..8 + length].to_vec()).unwrap());
        assert_eq!(rest[8 + length], b'\n');
        bytes = &rest[8 + length + 1..];
    }
    fields
}

fn next_entry(journald: &UnixDatagram, wanted: &str) -> BTreeMap<String, String> {
    let mut bytes = vec![0; 4096];
    loop {
        let length = journald.recv(&mut bytes).unwrap();
        let fields = entry(&bytes[..length]);
        if fields.get("ZDR_EVENT").is_some_and(|event| event == wanted) {
            return fields;
        }
    }
}

#[test]
fn where_stderr_is_the_journal_its_entries_have_the_fields_of_the_events() {
    let (setup, journald) = with_journald(quick().option("--name", "shop"), OURS);
    let zdr = setup.start();
    let serving = next_entry(&journald, "serving");
    for (name, value) in
        [("PRIORITY", "6"), ("SYSLOG_IDENTIFIER", "zdr"), ("ZDR_SUPERVISOR", "shop"), ("ZDR_GENERATION", "1")]
    {
        assert_eq!(serving[name], value, "{serving:?}");
    }
    assert!(serving["MESSAGE"].starts_with("generation 1 serves after "), "{serving:?}");
    assert!(serving["ZDR_AFTER_SECS"].parse::<f64>().unwrap() > 0.0, "{serving:?}");
    assert_eq!(zdr.reload_to(&sample(&["--bad", "exit:3"])).code, 3);
    let verdict = next_entry(&journald, "verdict");
    assert_eq!((&*verdict["PRIORITY"], &*verdict["ZDR_OUTCOME"], &*verdict["ZDR_CAUSE"]), ("4", "kept", "exited"));
    assert!(verdict["MESSAGE"].contains("exited with code 3"), "{verdict:?}");
    // What zdr does not say there is the server's.
    assert!(!zdr.log().contains("generation"), "{}", zdr.log());
}

#[test]
fn a_variable_that_names_another_file_than_stderr_does_not_lead_the_log_astray() {
    let (setup, journald) = with_journald(quick(), "export JOURNAL_STREAM=1:2;");
    let zdr = setup.start();
    assert!(zdr.log().contains("INFO generation 1 serves"), "{}", zdr.log());
    journald.set_nonblocking(true).unwrap();
    assert!(journald.recv(&mut [0; 100]).is_err());
}

#[test]
fn a_journal_that_is_asked_for_and_not_there_is_refused() {
    let gone = "rm /run/systemd/journal/socket;";
    let (setup, _journald) = with_journald(quick().option("--log-format", "journal"), gone);
    let told = setup.output();
    assert_eq!(told.code, 2, "{told:?}");
    assert!(told.error.starts_with("zdr: cannot log to the journal: ") && told.error.lines().count() == 1, "{told:?}");
    // Where nobody asked for it, text will do.
    let zdr = with_journald(quick(), &format!("{gone} {OURS}")).0.start();
    assert!(zdr.log().contains("INFO generation 1 serves"), "{}", zdr.log());
}

/// Sends until there is no room for one more, whoever sends it.
fn fill(socket: &str) {
    let mut senders = Vec::new();
    loop {
        let sender = UnixDatagram::unbound().unwrap();
        sender.set_nonblocking(true).unwrap();
        let sent = std::iter::from_fn(|| sender.send_to(b"MESSAGE=x\n", socket).ok()).count();
        if sent == 0 {
            return;
        }
        // A sender has bounds of its own.
        senders.push(sender);
    }
}

#[test]
fn a_journald_that_does_not_read_costs_lines_and_no_time() {
    let (setup, journald) = with_journald(quick().option("--log-format", "journal"), "");
    let zdr = setup.start();
    fill(&zdr.place("journald"));
    for _ in 0..5 {
        assert_eq!(zdr.client(&["reload", "--timeout", "5s"]).code, 0);
    }
    journald.set_nonblocking(true).unwrap();
    while journald.recv(&mut [0; 4096]).is_ok() {}
    journald.set_nonblocking(false).unwrap();
    // It gets the next lines when it reads again, and none of those that it had no room for.
    let reload = zdr.client_in_background(&["reload"]);
    let spawned = next_entry(&journald, "spawned");
    assert_eq!(spawned["ZDR_GENERATION"], "7", "{spawned:?}");
    assert!(reload.wait_with_output().unwrap().status.success());
}

#[test]
fn a_journald_that_does_not_read_is_no_reason_not_to_begin() {
    for option in [&["--log-format", "journal"][..], &[]] {
        let setup = option.chunks(2).fold(quick(), |setup, pair| setup.option(pair[0], pair[1]));
        let (setup, _journald) = with_journald(setup, OURS);
        fill(&setup.place("journald"));
        let zdr = setup.start();
        assert!(zdr.log().contains("INFO generation 1 serves"), "{}", zdr.log());
    }
}
