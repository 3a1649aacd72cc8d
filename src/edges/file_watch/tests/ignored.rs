//! What git ignores does not count, and ignored folders are not even watched.

use super::{Scene, names};

#[tokio::test]
async fn ignored_trees_are_not_watched() {
    let scene =
        Scene::with(&["src/a/b.rs", "target/debug/deps/x", "web/node_modules/y/z", "web/page", ".git/objects/o"]);
    scene.write_text(".gitignore", "/target\nnode_modules/\n");
    let scene = scene.watch(&[""]);
    assert_eq!(scene.watched(), names(&["", ".git/info", "src", "src/a", "web"]));
}

#[tokio::test]
async fn a_change_of_what_is_ignored_is_not_told() {
    let mut scene = Scene::with(&["src/deep/x", "logs/a.log", "mark", ".git/HEAD"]);
    scene.write_text(".gitignore", "*.log\n/target\n");
    scene.write_text("src/.gitignore", "generated.rs\n");
    scene.write_text("src/deep/.ignore", "*.tmp\n!kept.tmp\n");
    scene.write_text(".git/info/exclude", "private\n");
    scene = scene.watch(&[""]);
    let ignored = ["logs/a.log", "b.log", "target/x", "src/generated.rs", "src/deep/a.tmp", "private", ".git/HEAD"];
    for name in ignored {
        scene.write(name);
        scene.tells_nothing_before("mark").await;
    }
    for name in ["generated.rs", "src/deep/kept.tmp", "logs/other"] {
        scene.write(name);
        assert_eq!(scene.told().await, name);
    }
    scene.remove_all("target");
    scene.tells_nothing_before("mark").await;
}

#[tokio::test]
async fn rules_above_the_watched_folder_count_up_to_the_repository() {
    let mut scene = Scene::with(&["repository/.git/HEAD", "repository/app/src/main.rs", "repository/app/src/mark"]);
    scene.write_text(".gitignore", "*.rs\n");
    scene.write_text("repository/.gitignore", "*.log\n");
    scene.write_text("repository/app/.gitignore", "/src/generated\n");
    scene = scene.watch(&["repository/app/src"]);
    scene.write("repository/app/src/a.log");
    scene.write("repository/app/src/generated/b");
    scene.tells_nothing_before("repository/app/src/mark").await;
    scene.write("repository/app/src/main.rs");
    assert_eq!(scene.told().await, "repository/app/src/main.rs");
}

#[tokio::test]
async fn changed_rules_hold_from_then_on() {
    let mut scene = Scene::with(&["a.log", "build/x", "mark"]).watch(&[""]);
    scene.write("a.log");
    assert_eq!(scene.told().await, "a.log");

    scene.write_text(".gitignore", "*.log\nbuild/\n");
    assert_eq!(scene.told().await, ".gitignore");
    assert!(!scene.watched().contains("build"));
    scene.write("a.log");
    scene.write("build/x");
    scene.tells_nothing_before("mark").await;

    scene.write_text("rules", "*.txt\n");
    assert_eq!(scene.told().await, "rules");
    scene.rename("rules", ".gitignore");
    scene.told().await;
    assert!(scene.watched().contains("build"));
    scene.write("build/x");
    assert_eq!(scene.told().await, "build/x");
}

#[tokio::test]
async fn changed_rules_above_the_watched_folder_hold_and_are_no_change_themselves() {
    let mut scene = Scene::with(&["src/a.log", "src/b.txt", "src/mark"]).watch(&["src"]);
    scene.write("src/a.log");
    assert_eq!(scene.told().await, "src/a.log");
    scene.write_text(".gitignore", "*.log\n");
    scene.write_text(".git/info/exclude", "*.txt\n");
    scene.write("src/a.log");
    scene.write("src/b.txt");
    scene.tells_nothing_before("src/mark").await;
}
