//! The watched path itself: one that is missing, goes and comes back, or leads elsewhere.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use tokio::task::yield_now;
use tokio::time::timeout;

use super::super::way::{End, Way};
use super::{DEADLINE, DEBOUNCE, Scene, blocked_in_threads};
use crate::edges::signals;

/// What was logged by this thread, on which all but the looking is done.
#[derive(Clone, Default)]
pub(super) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub(super) fn keep(&self) -> tracing::subscriber::DefaultGuard {
        let log = self.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || log.clone()).finish();
        tracing::subscriber::set_default(subscriber)
    }

    pub(super) fn count(&self, words: &str) -> usize {
        String::from_utf8_lossy(&self.0.lock().unwrap()).matches(words).count()
    }

    pub(super) async fn holds(&self, words: &str, times: usize) {
        let there = async {
            while self.count(words) < times {
                yield_now().await;
            }
        };
        timeout(DEADLINE, there).await.unwrap_or_else(|_| panic!("the log lacks {words:?}"));
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_path_that_is_not_there_at_the_start_is_an_error_with_the_way_out() {
    let scene = Scene::with(&[]);
    let path = scene.at("nowhere");
    let error = scene.watch_with(&["nowhere"], DEBOUNCE).err().unwrap();
    let expected =
        format!("cannot watch {}: no such file or directory; name one that is there when zdr starts", path.display());
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn a_folder_that_goes_is_told_once_in_the_log_and_is_a_change_when_it_is_back() {
    let log = Log::default();
    let _guard = log.keep();
    let mut scene = Scene::with(&["app/src/main.rs", "mark"]).watch(&["app/src", "mark"]);
    let gone = format!("the watched path {} is gone; zdr watches for it to come back", scene.at("app/src").display());
    for times in 1..=3 {
        scene.remove_all("app");
        log.holds(&gone, times).await;
        scene.tells_nothing_before("mark").await;

        scene.write("app/src/main.rs");
        assert_eq!(scene.told().await, "app/src");
        scene.write("app/src/main.rs");
        assert_eq!(scene.told().await, "app/src/main.rs");
        assert_eq!(log.count(&gone), times);
    }
}

#[tokio::test]
async fn a_file_that_goes_is_told_once_in_the_log_and_is_a_change_when_it_is_back() {
    let log = Log::default();
    let _guard = log.keep();
    let mut scene = Scene::with(&["app", "mark"]).watch(&["app", "mark"]);
    scene.remove("app");
    log.holds("app is gone", 1).await;
    scene.tells_nothing_before("mark").await;
    scene.write("app");
    assert_eq!(scene.told().await, "app");
    assert_eq!((log.count("is gone"), log.count("app is back")), (1, 1));
}

#[tokio::test]
async fn a_folder_that_another_takes_the_place_of_has_changed() {
    let mut scene = Scene::with(&["src/a", "new/b", "mark"]).watch(&["src", "mark"]);
    scene.rename("src", "old");
    scene.rename("new", "src");
    assert_eq!(scene.told().await, "src");
    scene.write("old/a");
    scene.tells_nothing_before("mark").await;
    scene.write("src/b");
    assert_eq!(scene.told().await, "src/b");
}

#[tokio::test]
async fn a_link_that_is_switched_has_changed_and_what_it_led_to_does_not_count_any_more() {
    let mut scene = Scene::with(&["releases/1/app", "releases/2/app", "mark"]);
    scene.link("releases/1", "current");
    scene = scene.watch(&["current", "mark"]);
    scene.write("releases/1/app");
    assert_eq!(scene.told().await, "current/app");
    for (to, from) in [(2, 1), (1, 2)] {
        scene.link(&format!("releases/{to}"), "current.new");
        scene.rename("current.new", "current");
        assert_eq!(scene.told().await, "current");
        scene.write(&format!("releases/{from}/app"));
        scene.tells_nothing_before("mark").await;
        scene.write(&format!("releases/{to}/app"));
        assert_eq!(scene.told().await, "current/app");
    }
    scene.remove("current");
    scene.link("releases/2", "current");
    assert_eq!(scene.told().await, "current");
}

#[tokio::test]
async fn a_file_has_changed_when_a_link_on_the_way_to_it_is_switched() {
    let mut scene = Scene::with(&["mount/1/app.toml", "mount/2/app.toml"]);
    scene.link("1", "mount/..data");
    scene.link("..data/app.toml", "mount/app.toml");
    scene = scene.watch(&["mount/app.toml"]);
    for to in ["2", "1"] {
        scene.link(to, "mount/..data.new");
        scene.rename("mount/..data.new", "mount/..data");
        assert_eq!(scene.told().await, "mount/app.toml");
    }
    scene.write("mount/1/app.toml");
    assert_eq!(scene.told().await, "mount/app.toml");
}

#[tokio::test]
async fn a_link_that_leads_nowhere_for_a_while_is_followed_again() {
    let mut scene = Scene::with(&["releases/1/app", "mark"]);
    scene.link("releases/1", "current");
    scene = scene.watch(&["current", "mark"]);
    scene.link("releases/2", "current.new");
    scene.rename("current.new", "current");
    scene.tells_nothing_before("mark").await;
    scene.write("releases/2/app");
    assert_eq!(scene.told().await, "current");
}

#[tokio::test]
async fn a_file_below_two_watched_paths_is_told_once() {
    let mut scene = Scene::with(&["src/main.rs", "mark"]).watch(&["src", "", "src/main.rs"]);
    scene.write("src/main.rs");
    assert_eq!(scene.told().await, "src/main.rs");
    scene.tells_nothing_before("mark").await;
}

#[test]
fn a_way_is_followed_over_links_up_and_down_and_a_loop_leads_nowhere() {
    let scene = Scene::with(&["a/b/file"]);
    scene.link("../../a/./b", "a/b/self");
    scene.link("loop", "loop");
    let folder = scene.folder.path().canonicalize().unwrap();
    let way = Way::follow(&folder.join("a/b/self/file"));
    assert_eq!(way.end, End::File(folder.join("a/b/file")));
    assert_eq!(way.hinges, [folder.join("a/b/self"), folder.join("a/b/file")]);
    assert_eq!(Way::follow(&folder.join("a/b/self")).end, End::Directory(folder.join("a/b")));
    assert_eq!(Way::follow(&folder.join("loop")).end, End::Missing);
    let beyond_a_file = Way::follow(&folder.join("a/b/file/c"));
    assert_eq!((beyond_a_file.end, beyond_a_file.hinges), (End::Missing, vec![folder.join("a/b/file")]));
}

#[tokio::test]
async fn the_thread_that_waits_for_the_kernel_takes_no_signal_and_ends_with_the_watch() {
    // This thread belongs to this test alone.
    signals::block().unwrap();
    let hangup_and_terminate = 1 << (libc::SIGHUP - 1) | 1 << (libc::SIGTERM - 1);
    let ours = || {
        let masks = blocked_in_threads("notify-rs inoti");
        masks.into_iter().filter(|mask| mask & hangup_and_terminate == hangup_and_terminate).count()
    };
    let mut scene = Scene::with(&["src/main.rs"]).watch(&["src"]);
    let named = async {
        while ours() == 0 {
            yield_now().await;
        }
    };
    timeout(DEADLINE, named).await.expect("no such thread");
    scene.watch = None;
    let ended = async {
        while ours() > 0 {
            yield_now().await;
        }
    };
    timeout(DEADLINE, ended).await.expect("the thread has not ended");
    assert!(scene.watched().is_empty());
}
