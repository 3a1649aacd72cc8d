//! When the owner is told: once things are quiet, not too often, not too late, and never not at all.

use std::fs::OpenOptions;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::{spawn_blocking, yield_now};
use tokio::time::Instant;

use super::Scene;

#[tokio::test]
async fn ten_thousand_writes_are_a_few_changes() {
    let debounce = Duration::from_millis(100);
    let mut scene = Scene::with(&["src/mark"]).watch_with(&["src"], debounce).unwrap();
    let folder = scene.at("src");
    let begun = Instant::now();
    let writes = spawn_blocking(move || {
        for number in 0..10_000 {
            let file = folder.join(format!("{}.rs", number % 100));
            // Truncated, it would go to the disk each time (auto_da_alloc, ext4(5)).
            OpenOptions::new().create(true).append(true).open(file).unwrap().write_all(b"text").unwrap();
        }
    });
    writes.await.unwrap();
    let took = begun.elapsed();
    let mut told = 0;
    loop {
        scene.write("src/mark");
        if scene.told().await == "src/mark" {
            break;
        }
        told += 1;
    }
    // Each takes as long as that at least, if somebody else keeps the writer waiting again and again.
    let most = 2 + took.as_millis() / debounce.as_millis();
    assert!((1..=most).contains(&told), "{told} tellings in {took:?}");
}

#[tokio::test]
async fn changes_that_never_stop_are_told_nevertheless() {
    let mut scene = Scene::with(&["src/main.rs"]).watch_with(&["src"], Duration::from_millis(150)).unwrap();
    let (file, end) = (scene.at("src/main.rs"), Arc::new(AtomicBool::new(false)));
    let ended = end.clone();
    let writes = spawn_blocking(move || {
        let mut file = OpenOptions::new().append(true).open(file).unwrap();
        while !ended.load(Ordering::Relaxed) {
            file.write_all(b"text").unwrap();
        }
    });
    assert_eq!(scene.told().await, "src/main.rs");
    end.store(true, Ordering::Relaxed);
    writes.await.unwrap();
}

#[tokio::test]
async fn what_changes_while_things_are_not_quiet_yet_is_told_together() {
    let mut scene =
        Scene::with(&["src/a", "src/b", "src/mark"]).watch_with(&["src"], Duration::from_millis(300)).unwrap();
    scene.write("src/a");
    scene.write("src/b");
    assert_eq!(scene.told().await, "src/a");
    scene.tells_nothing_before("src/mark").await;
}

#[tokio::test]
async fn a_change_in_the_moment_in_which_another_is_told_is_not_lost() {
    const TIMES: u32 = 200;
    let debounce = Duration::from_millis(4);
    let mut scene = Scene::with(&["src/file"]).watch_with(&["src"], debounce).unwrap();
    let mut after_a_telling = 0;
    for time in 0..TIMES {
        scene.link("nowhere", &format!("src/{time}.first"));
        // From well before the telling to well after it.
        let moment = Instant::now() + debounce * 3 * time / TIMES;
        while Instant::now() < moment {
            yield_now().await;
        }
        let mut told = 0;
        while scene.told.try_recv().is_ok() {
            told += 1;
        }
        after_a_telling += u32::from(told > 0);
        scene.link("nowhere", &format!("src/{time}.second"));
        scene.told().await;
    }
    assert!((1..TIMES).contains(&after_a_telling), "{after_a_telling} of {TIMES} came after the telling of another");
}

#[tokio::test]
async fn a_change_right_after_a_telling_is_told_again() {
    let mut scene = Scene::with(&[]);
    scene.make("src");
    scene = scene.watch_with(&["src"], Duration::from_millis(1)).unwrap();
    for round in 0..200 {
        let name = format!("src/{round}");
        // One report of the kernel's, so that it cannot be told twice.
        scene.link("nowhere", &name);
        assert_eq!(scene.told().await, name);
    }
}
