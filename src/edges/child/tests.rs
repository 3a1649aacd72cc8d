//! What an instance is given: arguments and environment.

use std::os::fd::AsFd;

use super::*;
use crate::address::Listener;
use crate::supervisor::Generation;

#[test]
fn placeholders_are_filled_in_and_other_braces_are_left_alone() {
    let listeners = [Listener::parse("web=127.0.0.1:80", "").unwrap(), Listener::parse("api=[::1]:81", "").unwrap()];
    let file = std::fs::File::open("/dev/null").unwrap();
    let lent = listeners.iter().map(|listener| Lent { listener, socket: file.as_fd() }).collect();
    let identity = Identity {
        ids: None,
        variables: vec![("HOME", Some("/login".into())), ("SHELL", None), ("USER", Some("u".into()))],
    };
    let start = Start {
        instance: Instance { generation: Generation(7), number: 2 },
        process: &Process { environment: vec![("B".into(), "option".into())], ..Process::default() },
        identity: Some(&identity),
        control_group: None,
        outlets: [None; 2],
        said_on: Some(SaidOn { notify: Path::new("/n"), einhorn: Path::new("/e") }),
        watchdog: Some(Duration::from_millis(1500)),
        admin: Path::new("/a"),
        lent,
        capture: None,
    };
    for (given, filled) in [
        ("--fd={fd}", "--fd=3"),
        ("{fd:api}/{port:api}/{port}", "4/81/80"),
        ("{address:api} {address}", "[::1]:81 127.0.0.1:80"),
        ("{generation}.{instance}", "7.2"),
        ("{fd:none} {x} {", "{fd:none} {x} {"),
        ("{{fd}}", "{3}"),
        ("{\"a\": {port}}", "{\"a\": 80}"),
    ] {
        assert_eq!(start.fill_in(OsStr::new(given)), filled);
    }
    assert_eq!(start.server_starter_port(), "127.0.0.1:80=3;[::1]:81=4");
    let parent = [
        ("NOTIFY_SOCKET", "/systemd"),
        ("LISTEN_PID", "1"),
        ("WATCHDOG_PID", "1"),
        ("HOME", "/h"),
        ("SHELL", "/s"),
        ("PATH", "/p"),
        ("EINHORN_SOCK_FD", "9"),
    ];
    let parent = parent.map(|(k, v)| (k.into(), v.into()));
    let from_files = [("A", "file"), ("B", "file"), ("HOME", "/file")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    let environment = start.environment(parent.into_iter(), &from_files);
    let value = |name: &str| environment.iter().find(|(key, _)| key == name).map(|(_, value)| value.to_str().unwrap());
    assert_eq!(value("LISTEN_FDNAMES"), Some("web:api"));
    assert_eq!(value("NOTIFY_SOCKET"), Some("/n"));
    assert_eq!(value("LISTEN_PID"), None);
    assert_eq!(value("PATH"), Some("/p"));
    // A login's, then the files', then the options'.
    assert_eq!((value("USER"), value("SHELL"), value("HOME")), (Some("u"), None, Some("/file")));
    assert_eq!((value("A"), value("B")), (Some("file"), Some("option")));
    assert_eq!(value("EINHORN_SOCK_PATH"), Some("/e"));
    assert_eq!((value("WATCHDOG_USEC"), value("WATCHDOG_PID")), (Some("1500000"), None));
    assert_eq!(value("EINHORN_SOCK_FD"), None);
    assert_eq!(value("EINHORN_FDS"), Some("3 4"));
    assert_eq!((value("EINHORN_FD_FAMILY_0"), value("EINHORN_FD_FAMILY_1")), (Some("AF_INET"), Some("AF_INET6")));
}
