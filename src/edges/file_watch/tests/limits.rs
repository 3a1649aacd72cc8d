//! A system that has no more to give: zdr says so in one sentence, and goes on with what it has.

use std::process::Command;
use std::time::Duration;

use super::places::Log;
use super::{DEBOUNCE, Scene};

/// Runs one test of this file again, where the user has no more than that of something (namespaces(7), "The
/// /proc/sys/user directory").
#[track_caller]
fn passes_with(limit: &str, most: u32, test: &str) {
    let script = format!("echo {most} > /proc/sys/user/{limit} && exec \"$0\" --exact \"$1\" --ignored --nocapture");
    let test = format!("{}::{test}", module_path!().split_once("::").unwrap().1);
    let mut again = Command::new("unshare");
    again.args(["--user", "--map-root-user", "sh", "-c", &script]).arg(std::env::current_exe().unwrap()).arg(test);
    let output = again.output().expect("this test needs unshare(1)");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("1 passed"), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn what_does_not_fit_is_not_watched_and_the_rest_is() {
    passes_with("max_inotify_watches", 4, "six_folders_and_a_limit_of_four");
}

#[test]
fn with_no_inotify_instance_to_be_had_nothing_is_watched_and_zdr_goes_on() {
    passes_with("max_inotify_instances", 0, "a_limit_of_no_instance");
}

#[tokio::test]
#[ignore = "started by the test above, with its limit"]
async fn six_folders_and_a_limit_of_four() {
    let log = Log::default();
    let _guard = log.keep();
    let mut scene = Scene::with(&["src/a/x", "src/b/x", "src/c/x", "src/d/x", "mark/x"]);
    scene.remove_all(".git");
    scene = scene.watch_with(&["src", "mark"], Duration::from_millis(1)).unwrap();
    assert_eq!(log.count("2 directories are not watched: all inotify watches of this user ("), 1);
    assert_eq!(log.count("raise fs.inotify.max_user_watches with sysctl, or watch less"), 1);
    assert_eq!(scene.watched().len(), 4);

    // The one that goes leaves room for another, which is not said again.
    scene.remove_all("mark");
    scene.make("src/e");
    scene.told().await;
    log.holds("mark is gone", 1).await;
    assert_eq!(scene.watched().len(), 4);
    assert_eq!(log.count("are not watched"), 1);
}

#[tokio::test]
#[ignore = "started by the test above, with its limit"]
async fn a_limit_of_no_instance() {
    let log = Log::default();
    let _guard = log.keep();
    let scene = Scene::with(&["src/x"]).watch_with(&["src"], DEBOUNCE).unwrap();
    assert_eq!(log.count("nothing is watched: all inotify instances of this user ("), 1);
    assert!(scene.watched().is_empty());
}
