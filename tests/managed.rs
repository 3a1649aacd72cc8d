//! A zdr that is run from a file, which a test writes again and again, and the strict load that sees it all.

use std::fs;
use std::net::SocketAddr;

use serde_json::Value;

use crate::harness::{DEADLINE, Setup, Told, Zdr, in_seat};
use crate::load::{Load, Shape};

/// The file's name in the folder of the test.
const FILE: &str = "zdr.toml";

/// One line of the file.
pub fn command(words: &[impl ToString]) -> String {
    format!("command = {:?}\n", words.iter().map(ToString::to_string).collect::<Vec<_>>())
}

/// With its settings from a file of this content and from nothing else.
pub fn managed(setup: Setup, text: &str) -> Setup {
    let path = setup.place(FILE);
    fs::write(&path, text).unwrap();
    setup.command(&[""; 0]).listen(&[]).option("--config", &path)
}

/// Another content.
pub fn write(zdr: &Zdr, text: impl AsRef<[u8]>) {
    fs::write(zdr.folder().join(FILE), text).unwrap();
}

/// Another content, which serves from here on.
#[track_caller]
pub fn reload_as(zdr: &Zdr, text: &str) -> Told {
    write(zdr, text);
    let told = zdr.reload();
    assert_eq!(told.code, 0, "{told:?}");
    told
}

/// The one in the serving seat.
pub fn server(zdr: &Zdr) -> Value {
    let status = zdr.status();
    let serving = |seat: &&Value| seat["seat"] == "serving";
    status["generations"].as_array().unwrap().iter().find(serving).cloned().unwrap_or(Value::Null)
}

/// Four clients with a new connection for each request, and as many that keep theirs.
pub fn load(at: SocketAddr, keep_alive_clients: usize) -> Load {
    let shape = Shape {
        new_connection_clients: 4,
        keep_alive_clients,
        rate_per_client: Some(50.0),
        path: "/".to_owned(),
        limit: DEADLINE / 4,
    };
    Load::start(at, &shape).unwrap()
}

/// Ends the load when no old generation is left, and claims that nothing was lost.
#[track_caller]
pub fn nothing_was_lost(zdr: &Zdr, load: Load) {
    zdr.wait_until("the old ones to drain", |status| in_seat(status, "draining").is_none());
    assert!(load.wait_for_answers(20, DEADLINE), "no answers at the end:\n{}", load.stop());
    let report = load.stop();
    assert_eq!(report.failed(), 0, "{report}");
}
