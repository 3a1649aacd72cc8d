//! Folders that come, go and move below a watched one.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use notify::EventKind;
use notify::event::Flag;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::super::directories::Directories;
use super::super::lookout::Lookout;
use super::{DEADLINE, Scene, names};

#[tokio::test]
async fn a_new_folder_with_files_is_a_change_and_is_watched_with_all_below() {
    let mut scene = Scene::with(&["src/x", "other/a/b/c/file"]).watch(&["src"]);
    scene.rename("other/a", "src/a");
    assert_eq!(scene.told().await, "src/a");
    assert_eq!(scene.watched(), names(&["", ".git/info", "src", "src/a", "src/a/b", "src/a/b/c"]));
    scene.write("src/a/b/c/file");
    assert_eq!(scene.told().await, "src/a/b/c/file");
}

#[tokio::test]
async fn however_fast_folders_come_below_one_another_the_last_is_watched() {
    let mut scene = Scene::with(&["src/x"]).watch(&["src"]);
    for round in 0..30 {
        let deep = format!("src/{round}/b/c/d/e");
        scene.make(&deep);
        assert_eq!(scene.told().await, format!("src/{round}"));
        scene.write(&format!("{deep}/file"));
        assert_eq!(scene.told().await, format!("{deep}/file"));
    }
}

#[tokio::test]
async fn a_folder_that_is_replaced_by_one_of_the_same_name_is_watched_again() {
    let mut scene = Scene::with(&["src/a/b/file"]).watch(&["src"]);
    for _ in 0..15 {
        scene.remove_all("src/a");
        scene.write("src/a/b/file");
        scene.told().await;
        scene.write("src/a/b/file");
        assert_eq!(scene.told().await, "src/a/b/file");

        scene.rename("src/a", "away");
        scene.write("src/a/b/file");
        scene.told().await;
        scene.write("src/a/b/file");
        assert_eq!(scene.told().await, "src/a/b/file");
        scene.remove_all("away");
    }
}

#[tokio::test]
async fn folders_that_come_while_others_are_looked_at_are_watched() {
    const LEVELS: usize = 60;
    let mut scene = Scene::with(&["src/x"]).watch_with(&["src"], Duration::from_millis(1)).unwrap();
    for round in 0..20 {
        let deepest = format!("src/{round}{}", "/a".repeat(LEVELS));
        let deep = scene.at(&deepest);
        let makes = spawn_blocking(move || {
            let mut folders: Vec<_> = deep.ancestors().take(LEVELS + 1).collect();
            while let Some(folder) = folders.pop() {
                fs::create_dir(folder).unwrap();
            }
        });
        makes.await.unwrap();
        let file = format!("{deepest}/file");
        scene.write(&file);
        while scene.told().await != file {
            scene.write(&file);
        }
    }
}

#[tokio::test]
async fn a_folder_that_another_is_renamed_over_is_watched_even_while_somebody_holds_the_old_one() {
    let mut scene = Scene::with(&["src/x", "new/file"]);
    scene.make("src/a");
    scene = scene.watch(&["src"]);
    let _held = fs::File::open(scene.at("src/a")).unwrap();
    scene.rename("new", "src/a");
    assert_eq!(scene.told().await, "src/a");
    scene.write("src/a/file");
    assert_eq!(scene.told().await, "src/a/file");
}

#[tokio::test]
async fn a_folder_that_took_the_place_of_a_watched_one_counts_as_newly_watched() {
    let scene = Scene::with(&["src/a/file"]);
    let (reporter, mut reports) = mpsc::unbounded_channel();
    let mut directories = Directories::of(reporter).unwrap();
    let wanted = BTreeSet::from([scene.at("src"), scene.at("src/a")]);
    assert!(directories.watch(&wanted));
    assert!(!directories.watch(&wanted));
    scene.remove_all("src/a");
    scene.make("src/a");
    timeout(DEADLINE, reports.recv()).await.expect("the kernel tells of it");
    assert!(directories.forget(&scene.at("src/a")));
    assert!(directories.watch(&wanted));
    assert!(directories.has(&scene.at("src/a")));
    assert!(scene.watched().contains("src/a"));
}

#[tokio::test]
async fn a_folder_that_was_renamed_is_watched_under_its_new_name() {
    let mut scene = Scene::with(&["src/a/b/file", "src/mark"]).watch(&["src"]);
    scene.rename("src/a", "src/z");
    scene.told().await;
    scene.write("src/z/b/file");
    assert_eq!(scene.told().await, "src/z/b/file");
    scene.rename("src/z", "away");
    scene.told().await;
    scene.write("away/b/file");
    scene.tells_nothing_before("src/mark").await;
}

#[tokio::test]
async fn a_file_that_is_removed_is_a_change() {
    let mut scene = Scene::with(&["src/a/file"]).watch(&["src"]);
    scene.remove("src/a/file");
    assert_eq!(scene.told().await, "src/a/file");
    scene.remove_all("src/a");
    assert_eq!(scene.told().await, "src/a");
}

#[tokio::test]
async fn links_to_folders_are_not_followed_below_a_path() {
    let mut scene = Scene::with(&["src/mark", "other/file"]);
    scene.link("../other", "src/link");
    scene = scene.watch(&["src"]);
    scene.write("other/file");
    scene.tells_nothing_before("src/mark").await;
    assert!(!scene.watched().contains("other"));
}

#[test]
fn when_the_kernel_has_dropped_reports_everything_is_looked_at_again_and_counts_as_changed() {
    let scene = Scene::with(&["src/a/file"]);
    // As if it had dropped all of them.
    let (reporter, _) = mpsc::unbounded_channel();
    let mut lookout = Lookout::start(&[scene.at("src")], Directories::of(reporter).unwrap()).unwrap();
    scene.remove_all("src/a");
    scene.make("src/a/b");
    assert!(!scene.watched().contains("src/a"));
    assert!(lookout.take(vec![Ok(notify::Event::new(EventKind::Other).set_flag(Flag::Rescan))]));
    assert_eq!(lookout.settle(), Some(scene.at("src")));
    assert!(scene.watched().is_superset(&names(&["src", "src/a", "src/a/b"])));
}
