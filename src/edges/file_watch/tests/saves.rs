//! How editors and tools save a file.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::{Scene, watched_inodes};

#[tokio::test]
async fn a_file_that_is_truncated_and_written_has_changed() {
    let mut scene = Scene::with(&["src/main.rs"]).watch(&["src"]);
    scene.write("src/main.rs");
    assert_eq!(scene.told().await, "src/main.rs");
}

#[tokio::test]
async fn a_file_that_another_is_renamed_over_has_changed() {
    let mut scene = Scene::with(&["src/main.rs", "new"]).watch(&["src"]);
    scene.rename("new", "src/main.rs");
    assert_eq!(scene.told().await, "src/main.rs");
}

#[tokio::test]
async fn a_save_of_vim_is_told_once_and_by_the_name_of_the_file() {
    let mut scene = Scene::with(&["src/main.rs", "src/mark"]).watch(&["src"]);
    scene.write("src/.main.rs.swp");
    scene.write("src/4913");
    scene.remove("src/4913");
    scene.rename("src/main.rs", "src/main.rs~");
    scene.write("src/main.rs");
    scene.remove("src/main.rs~");
    scene.remove("src/.main.rs.swp");
    assert_eq!(scene.told().await, "src/main.rs");
    scene.tells_nothing_before("src/mark").await;
}

#[tokio::test]
async fn what_editors_leave_beside_a_file_is_no_change() {
    let mut scene = Scene::with(&["src/mark"]).watch(&["src"]);
    scene.link("user@host.1234", "src/.#main.rs");
    for name in ["#main.rs#", "main.rs~", ".main.rs.swo", "4913", "main.rs___jb_tmp___", "main.rs___jb_old___"] {
        scene.write(&format!("src/{name}"));
        scene.remove(&format!("src/{name}"));
    }
    scene.remove("src/.#main.rs");
    scene.tells_nothing_before("src/mark").await;
}

#[tokio::test]
async fn who_reads_a_file_or_changes_its_mode_changes_nothing() {
    let mut scene = Scene::with(&["src/main.rs", "src/mark"]).watch(&["src"]);
    fs::read(scene.at("src/main.rs")).unwrap();
    fs::read_dir(scene.at("src")).unwrap().count();
    fs::set_permissions(scene.at("src/main.rs"), fs::Permissions::from_mode(0o600)).unwrap();
    scene.tells_nothing_before("src/mark").await;
}

#[tokio::test]
async fn who_reads_a_file_or_changes_its_mode_does_not_even_wake_zdr() {
    let scene = Scene::with(&["src/main.rs"]).watch(&["src"]);
    let mask = watched_inodes()[&fs::metadata(scene.at("src")).unwrap().ino()];
    let read = libc::IN_ACCESS | libc::IN_OPEN | libc::IN_CLOSE_NOWRITE | libc::IN_ATTRIB;
    assert_eq!(mask & u64::from(read), 0, "watched for {mask:x}");
}

#[tokio::test]
async fn a_file_that_is_only_touched_counts_as_changed() {
    let mut scene = Scene::with(&["src/restart"]).watch(&["src"]);
    drop(OpenOptions::new().write(true).open(scene.at("src/restart")).unwrap());
    assert_eq!(scene.told().await, "src/restart");
}

#[tokio::test]
async fn a_watched_file_is_told_however_it_is_saved_and_its_neighbours_are_not() {
    let mut scene = Scene::with(&["app.toml", "neighbour", "mark"]).watch(&["app.toml", "mark"]);
    let truncate_and_write: fn(&Scene) = |scene| scene.write("app.toml");
    let rename_over: fn(&Scene) = |scene| {
        scene.write("app.toml.new");
        scene.rename("app.toml.new", "app.toml");
    };
    let delete_and_create: fn(&Scene) = |scene| {
        scene.remove("app.toml");
        scene.write("app.toml");
    };
    let append: fn(&Scene) = |scene| {
        OpenOptions::new().append(true).open(scene.at("app.toml")).unwrap().write_all(b"more").unwrap();
    };
    for save in [truncate_and_write, rename_over, delete_and_create, append, rename_over, truncate_and_write] {
        scene.write("neighbour");
        save(&scene);
        assert_eq!(scene.told().await, "app.toml");
        scene.tells_nothing_before("mark").await;
    }
}

#[tokio::test]
async fn a_file_that_is_named_counts_even_where_its_folder_is_ignored() {
    let mut scene = Scene::with(&["target/debug/app"]);
    scene.write_text(".gitignore", "target/\n");
    scene = scene.watch(&["target/debug/app"]);
    scene.write("target/debug/app.new");
    scene.rename("target/debug/app.new", "target/debug/app");
    assert_eq!(scene.told().await, "target/debug/app");
}
