// SPDX-License-Identifier: MulanPSL-2.0
//! Docker's image store from outside: a tree that a daemon wrote, the tool, the example of the documentation.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod c_support;
mod cli_support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use c_support::{VALGRIND, WARNINGS, library, source};
use cli_support::common::{self, TestRoot};
use cli_support::{Ended, text, trees};
use isula_storage::digest::Digest;
use isula_storage::imagedb::{DockerLayers, ImageDb, ImageDbOptions};
use isula_storage::storage::{Durability, Ownership};
use isula_storage::time::Timestamp;
use serde_json::{Value, json};

const BB: &str = "11ecebd34f10939e545d04d93fb8d09ac0c252c3c1e4bcf55a34694d2bcd5142";
const OPQ: &str = "bc963e45ffea5b72f31132cbaa00e912eb1fd7bfd4a5822cc1004791e791c6cb";
const CHILD: &str = "47a401255c2b262226a18d671484589d93aa01532ee5f35d2b11e074c24e55db";
const GRANDCHILD: &str = "829d8e54a43eca046f34ca08c82d73291b3500a5c9d7ce52ece6271214110ed2";
const BASE: &str = "e3548aeb466def46e7d035c029a6c86a90f525312873481d224369b802b5b5f3";
const TOP: &str = "069ed2c6e2b05ce83804500968d17ad8116b720538aea6ccecf2a5ad6d7e501c";

/// `image/overlay2` of a daemon, as it left it.
fn golden() -> TestRoot {
    let root = TestRoot::in_memory("docker-golden");
    let archive = source("tests/golden/docker-images.tar.xz");
    common::run(Command::new("tar").arg("-xJpf").arg(archive).arg("-C").arg(root.path()));
    root
}

fn open(root: &Path, ownership: Ownership) -> ImageDb {
    let layers = Arc::new(DockerLayers::open(root).unwrap());
    let options = ImageDbOptions { root: root.to_owned(), ownership, durability: Durability::Full, layers };
    ImageDb::open(options).unwrap()
}

fn id(hex: &str) -> Digest {
    Digest::from_hex(hex).unwrap()
}

#[test]
fn a_tree_of_a_daemon_is_read_whole_and_left_as_it_was() {
    let place = golden();
    let root = place.join("overlay2");
    let before = trees::describe(&root);
    for ownership in [Ownership::ReadOnly, Ownership::Owner] {
        let db = open(&root, ownership);
        assert_eq!(db.problems(), []);
        let ids: Vec<_> = db.map().iter().map(|image| image.id.hex()).collect();
        assert_eq!(ids, [BB, CHILD, GRANDCHILD, OPQ]);
        let heads: Vec<_> = db.heads().iter().map(|image| image.id.hex()).collect();
        assert_eq!(heads, [GRANDCHILD, OPQ]);
        assert_eq!(db.parent(&id(CHILD)).unwrap(), id(BB));
        assert_eq!(db.children(&id(CHILD)), [id(GRANDCHILD)]);
        let tagged = Timestamp::parse_rfc3339("2026-11-21T16:25:35.380971708Z").unwrap();
        assert_eq!(db.last_updated(&id(GRANDCHILD)).unwrap(), Some(tagged));
        assert_eq!(db.last_updated(&id(BB)).unwrap(), None);
        assert_eq!(db.names(&id(CHILD)), ["busybox:w", "localhost/child:v1"]);
        assert_eq!(db.by_name("localhost/opq:v1").unwrap(), id(OPQ));
        assert_eq!(db.get(&id(OPQ)).unwrap().config.chain_id, Some(id(TOP)));
        db.close();
        let mut after = trees::describe(&root);
        after.retain(|path, _| !path.starts_with(".isula-storage"));
        assert_eq!(after, before, "{ownership:?}");
    }
    let layers = DockerLayers::open(&root).unwrap();
    let top = layers.get(&id(TOP)).unwrap();
    assert_eq!((top.diff_size, top.size), (5, 1_982_474 + 12 + 5));
    assert_eq!(layers.get(&id(BASE)).unwrap().parent, None);
    assert_eq!(layers.ids().unwrap().len(), 3);
}

#[test]
fn names_in_a_tree_of_a_daemon_are_written_again_byte_for_byte() {
    let place = golden();
    let root = place.join("overlay2");
    let before = fs::read(root.join("repositories.json")).unwrap();
    let db = open(&root, Ownership::Owner);
    db.add_name("zzz:1", &id(BB), false).unwrap();
    assert_ne!(fs::read(root.join("repositories.json")).unwrap(), before);
    db.delete_name("zzz:1").unwrap();
    assert_eq!(fs::read(root.join("repositories.json")).unwrap(), before);
    // A time and a parent look like the daemon's.
    let read = |key: &str| {
        fs::read_to_string(root.join(format!("imagedb/metadata/sha256/{CHILD}")).join(key)).unwrap()
    };
    let (parent, updated) = (read("parent"), read("lastUpdated"));
    db.set_parent(&id(CHILD), &id(OPQ)).unwrap();
    db.set_parent(&id(CHILD), &id(BB)).unwrap();
    db.set_last_updated(&id(CHILD)).unwrap();
    assert_eq!(read("parent"), parent);
    assert_eq!(updated.split('T').count(), read("lastUpdated").split('T').count());
}

fn tool(args: &[&str]) -> Ended {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isula-storage"));
    Ended::of(command.arg("docker").args(args).output().unwrap())
}

fn prints(args: &[&str]) -> String {
    let ended = tool(args);
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""), "{args:?}");
    ended.stdout
}

fn json_of(args: &[&str]) -> Value {
    serde_json::from_str(&prints(&[args, &["--json"]].concat())).unwrap()
}

#[test]
fn the_tool_lists_images_of_a_daemon() {
    let place = golden();
    let root = place.join("overlay2").display().to_string();
    let before = trees::describe(place.path());
    let table = prints(&["images", &root]);
    let lines: Vec<Vec<&str>> = table
        .lines()
        .map(|line| line.split("   ").map(str::trim).filter(|cell| !cell.is_empty()).collect())
        .collect();
    assert_eq!(lines[0], ["IMAGE ID", "NAMES", "PARENT", "SIZE", "CREATED"]);
    assert_eq!(lines[1][..4], ["11ecebd34f10", "localhost/bb:v1", "-", "1.8 MiB"]);
    assert_eq!(lines[2][..3], ["47a401255c2b", "busybox:w, localhost/child:v1", "11ecebd34f10"]);
    assert_eq!(lines.len(), 5);
    assert_eq!(prints(&["images", "-q", &root]).lines().count(), 4);
    assert!(prints(&["images", "--no-trunc", &root]).contains(BB));

    let images = json_of(&["images", &root]);
    let child = images.as_array().unwrap().iter().find(|image| text(&image["id"]).ends_with(CHILD)).unwrap();
    assert_eq!(text(&child["parent"]), format!("sha256:{BB}"));
    assert_eq!(child["children"], json!([format!("sha256:{GRANDCHILD}")]));
    assert_eq!(child["names"], json!(["busybox:w", "localhost/child:v1"]));
    assert_eq!((&child["layers"], &child["size"]), (&json!(2), &json!(1_982_486)));
    assert_eq!(text(&child["last_updated"]), "2026-11-21T16:25:35.231334402Z");
    assert_eq!(trees::describe(place.path()), before, "nothing is changed");
}

#[test]
fn the_tool_finds_images_by_the_beginning_of_their_ids() {
    let place = golden();
    let root = place.join("overlay2").display().to_string();
    assert_eq!(prints(&["search", &root, "11e"]), format!("sha256:{BB}\n"));
    assert_eq!(json_of(&["search", &root, "sha256:8"]), json!({ "id": format!("sha256:{GRANDCHILD}") }));
    for (term, code, message) in
        [("0", 3, "No such image: 0"), ("", 2, "the search term is empty"), ("11E", 3, "")]
    {
        let ended = tool(&["search", &root, term]);
        assert_eq!(ended.code, Some(code), "{term}: {}", ended.stderr);
        assert!(ended.stderr.contains(message), "{term}: {}", ended.stderr);
    }
    // Two images that begin alike.
    let db = open(Path::new(&root), Ownership::Owner);
    let mut first = BTreeSet::new();
    let twice = (0..).find_map(|number| {
        let config = format!(r#"{{"comment":"{number}","rootfs":{{}}}}"#);
        let id = db.create(config.as_bytes()).unwrap();
        let digit = id.hex()[..2].to_owned();
        (!first.insert(digit.clone())).then_some(digit)
    });
    db.close();
    let ended = tool(&["search", &root, &twice.unwrap()]);
    assert_eq!(ended.code, Some(2), "{}", ended.stderr);
    assert!(ended.stderr.contains("ambiguous digest string") && ended.stderr.contains("give more digits"));
}

#[test]
fn the_tool_draws_parents_and_children() {
    let place = golden();
    let root = place.join("overlay2").display().to_string();
    let tree = prints(&["tree", &root]);
    let wanted = "11ecebd34f10   localhost/bb:v1\n  47a401255c2b   busybox:w, localhost/child:v1\n    \
                  829d8e54a43e   localhost/grandchild:v1\nbc963e45ffea   localhost/opq:v1\n";
    assert_eq!(tree, wanted);
    let depths: Vec<_> = json_of(&["tree", &root])
        .as_array()
        .unwrap()
        .iter()
        .map(|image| (text(&image["id"])[7..].to_owned(), image["depth"].as_u64().unwrap()))
        .collect();
    assert_eq!(
        depths,
        [BB, CHILD, GRANDCHILD, OPQ].map(str::to_owned).into_iter().zip([0, 1, 2, 0]).collect::<Vec<_>>()
    );
    // A circle that a daemon has let happen is drawn once.
    let parent = Path::new(&root).join(format!("imagedb/metadata/sha256/{BB}"));
    fs::create_dir(&parent).unwrap();
    fs::write(parent.join("parent"), format!("sha256:{GRANDCHILD}")).unwrap();
    let ended = tool(&["tree", &root]);
    assert_eq!((ended.code, ended.stdout.lines().count()), (Some(0), 4));
    assert!(ended.stderr.contains("its own parent or forefather"), "{}", ended.stderr);
}

#[test]
fn the_tool_takes_a_data_directory_and_refuses_what_is_none() {
    let place = golden();
    let data = place.join("data");
    fs::create_dir_all(data.join("image")).unwrap();
    fs::rename(place.join("overlay2"), data.join("image/overlay2")).unwrap();
    let data = data.display().to_string();
    assert_eq!(prints(&["images", "-q", &data]).lines().count(), 4);
    fs::create_dir_all(place.join("data/image/vfs/imagedb")).unwrap();
    let ended = tool(&["images", &data]);
    assert!(ended.code == Some(2) && ended.stderr.contains("name one of them"), "{}", ended.stderr);
    for nothing in ["/nonexistent", "/proc/self"] {
        let ended = tool(&["images", nothing]);
        assert!(
            ended.code == Some(3) && ended.stderr.contains("there is no directory imagedb"),
            "{}",
            ended.stderr
        );
    }
}

#[test]
fn the_tool_shows_what_is_good_and_warns_of_the_rest() {
    let place = golden();
    let root = place.join("overlay2");
    fs::write(root.join("imagedb/content/sha256").join(OPQ), "").unwrap();
    fs::remove_dir_all(root.join("layerdb/sha256").join(BASE)).unwrap();
    let ended = tool(&["images", &root.display().to_string()]);
    assert_eq!((ended.code, ended.stdout.lines().count()), (Some(0), 1));
    assert!(ended.stderr.contains("failed to verify") && ended.stderr.contains("layer does not exist"));
    // Without records of layers images are listed all the same.
    fs::remove_dir_all(root.join("layerdb")).unwrap();
    let ended = tool(&["images", &root.display().to_string()]);
    assert_eq!(ended.stdout.lines().count(), 4);
    assert!(ended.stdout.contains("unknown"), "{}", ended.stdout);
}

/// The example of the documentation is compiled as it is printed, and run.
#[test]
fn what_cannot_be_looked_at_is_not_said_to_be_absent() {
    let root = TestRoot::in_memory("docker-loop");
    std::os::unix::fs::symlink("imagedb", root.join("imagedb")).unwrap();
    let (loops, long) = (root.path().display().to_string(), "x".repeat(300));
    for (path, why) in [(&loops, "Too many levels of symbolic links"), (&long, "File name too long")] {
        let ended = tool(&["images", path]);
        assert!(ended.stderr.contains(why), "{}", ended.stderr);
        assert_ne!(ended.code, Some(3), "3: not found");
    }
}

#[test]
fn names_that_would_change_a_terminal_are_escaped() {
    let root = golden();
    let path = root.join("overlay2");
    let names = path.join("repositories.json");
    let text = fs::read_to_string(&names).unwrap();
    // Of an image that is there, and neither a name nor a tag.
    let odd = text.replace("localhost/opq:v1", "x\\u001b[31m\\nforged:1");
    assert_ne!(odd, text);
    fs::write(&names, odd).unwrap();
    let path = path.to_str().unwrap();
    for command in ["images", "tree"] {
        let printed = prints(&[command, path]);
        assert!(printed.contains(r"x\u{1b}[31m\nforged:1"), "{printed}");
        assert!(!printed.chars().any(|char| char.is_control() && char != '\n'), "{printed}");
        assert!(!printed.lines().any(|line| line.starts_with("forged")), "{printed}");
    }
    let listed = json_of(&["images", path]).to_string();
    assert!(listed.contains(r"x\u001b[31m\nforged:1"), "{listed}");
}

#[test]
fn the_example_of_the_documentation_runs() {
    let place = TestRoot::in_memory("docker-example");
    let document = fs::read_to_string(source("docs/docker-images.md")).unwrap();
    let code = document.split("```c\n").nth(1).unwrap().split("```").next().unwrap();
    let file = place.join("docker_images.c");
    fs::write(&file, code).unwrap();
    let program: PathBuf = place.join("docker_images");
    let mut compiler = Command::new("gcc");
    compiler
        .arg("-std=c11")
        .args(WARNINGS)
        .arg("-I")
        .arg(source("include"))
        .arg(&file)
        .arg("-o")
        .arg(&program);
    compiler.arg("-L").arg(library()).arg(format!("-Wl,-rpath,{}", library().display()));
    c_support::run(compiler.arg("-lisula_storage"));
    let store = place.join("store");
    let base = r#"{"os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let child = r#"{"os":"linux","comment":"v2","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let (base_id, id) = (Digest::of(base.as_bytes()), Digest::of(child.as_bytes()));
    let wanted = format!("found {id}\nparent {base_id}\nconfig {child}\nhead {id} v2\n");
    for _ in 0..2 {
        assert_eq!(c_support::run(Command::new(&program).arg(&store)), wanted);
    }
    let mut checked = Command::new(VALGRIND[0]);
    assert_eq!(c_support::run(checked.args(&VALGRIND[1..]).arg(&program).arg(&store)), wanted);
    assert_eq!(
        prints(&["tree", "--no-trunc", &store.display().to_string()]),
        format!("{}   <none>\n  {}   example:v2\n", base_id.hex(), id.hex())
    );
}

/// Each row of the documentation's table of differences names tests that there are.
#[test]
fn the_documentation_names_tests_that_exist() {
    let document = fs::read_to_string(source("docs/docker-images.md")).unwrap();
    let table = document.split("## Different from Docker on purpose").nth(1).unwrap();
    let rows: Vec<_> =
        table.split("\n## ").next().unwrap().lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    let mut sources = String::new();
    for entry in fs::read_dir(source("src/imagedb/tests")).unwrap() {
        sources += &fs::read_to_string(entry.unwrap().path()).unwrap();
    }
    assert!(rows.len() >= 12);
    for row in rows {
        let cell = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        let names: Vec<_> = cell.split('`').skip(1).step_by(2).collect();
        assert!(!names.is_empty(), "{row}");
        for name in names {
            assert!(sources.contains(&format!("fn {name}(")), "{name}");
        }
    }
}
