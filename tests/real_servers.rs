//! The part of the matrix that every run of the tests tries. The whole is `tests/matrix`.

use crate::losses::alone;
use crate::rows::{row, rows};
use crate::trial::trial;

fn survives(name: &str, way: &str) {
    let _alone = alone();
    eprintln!("{}", trial(&row(name, way)));
}

#[test]
fn every_server_of_the_matrix_is_described() {
    let rows = rows();
    assert!(rows.len() > 10);
    for row in &rows {
        let ways = rows.iter().filter(|other| other.label() == row.label());
        assert_eq!(ways.count(), 1, "{}", row.label());
        assert!(row.server.documentation.starts_with("https://"), "{}", row.label());
        row.stage();
    }
}

#[test]
fn a_go_server_survives_everything() {
    survives("go", "LISTEN_FDS, Shutdown on TERM");
}

#[test]
fn a_go_server_that_dies_at_once_survives_everything() {
    survives("go", "LISTEN_FDS, dies of TERM");
}

#[test]
fn gunicorn_survives_everything() {
    survives("gunicorn", "LISTEN_FDS, gthread");
}

#[test]
fn nginx_survives_everything() {
    survives("nginx", "dialect, NGINX={fd};");
}

#[test]
fn a_node_server_survives_everything() {
    survives("node", "LISTEN_FDS, finishes on TERM");
}

#[test]
fn a_go_server_that_binds_by_itself_survives_everything() {
    survives("go", "capture, Shutdown on TERM");
}

#[test]
fn a_node_server_that_binds_by_itself_survives_everything() {
    survives("node", "capture, finishes on TERM");
}

#[test]
fn nginx_that_binds_by_itself_survives_everything() {
    survives("nginx", "capture");
}

/// With no code of its own at all.
#[test]
fn python_s_own_http_server_survives_everything() {
    survives("threads", "capture, python3 -m http.server");
}

#[test]
fn a_threaded_python_server_survives_everything() {
    survives("threads", "LISTEN_FDS, threads, finishes on TERM");
}
