// SPDX-License-Identifier: MulanPSL-2.0
//! `isula-storage containerd`: files of both layouts, and files that are none.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::TestRoot;
use isula_storage::metadata::boltfile::BoltFile;
use isula_storage::metadata::{ImageFile, NamespacedFile, NamespacedImage, Options, Target};
use isula_storage::persist::Durability;
use isula_storage::sys::fs::Dir;
use serde_json::{Value, json};

fn options() -> Options {
    Options { durability: Durability::None, ..Options::default() }
}

fn target(number: u8) -> Target {
    Target { media_type: "m/t".to_owned(), digest: format!("sha256:{number:064x}"), size: i64::from(number) }
}

fn tool(arguments: &[&str], file: &Path) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_isula-storage"))
        .arg("containerd")
        .args(arguments)
        .arg(file)
        .output();
    let output = output.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn printed(arguments: &[&str], file: &Path) -> String {
    let (code, stdout, stderr) = tool(arguments, file);
    assert_eq!((code, stderr.as_str()), (0, ""), "{stdout}");
    stdout
}

fn parsed(arguments: &[&str], file: &Path) -> Value {
    serde_json::from_str(&printed(arguments, file)).unwrap()
}

fn plain(root: &TestRoot) -> PathBuf {
    let path = root.join("plain");
    let file = ImageFile::open(&path, &options()).unwrap();
    file.init().unwrap();
    file.put(b"b\x1b[31m", &target(2)).unwrap();
    file.put(b"\xff", &target(3)).unwrap();
    file.put(b"a", &Target { size: -1, ..target(1) }).unwrap();
    path
}

fn namespaced(root: &TestRoot) -> PathBuf {
    let path = root.join("namespaced");
    let file = NamespacedFile::open(&path, &options()).unwrap();
    for (namespace, name, number) in [("one", "x/a", 1), ("one", "y/b", 2), ("two", "x/c", 200)] {
        let image = NamespacedImage { name: name.to_owned(), target: target(number), ..Default::default() };
        file.create(namespace, &image.with_labels([("l", name)])).unwrap();
    }
    path
}

#[test]
fn names_without_namespaces_are_listed() {
    let root = TestRoot::in_memory("cli-containerd");
    let path = plain(&root);
    let text = printed(&["images"], &path);
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["NAMESPACE", "NAME", "DIGEST", "TARGET", "SIZE", "UPDATED", "TYPE"]);
    assert_eq!(lines[1], ["-", "a", &target(1).digest, "-", "-", "m/t"]);
    assert_eq!(lines[2], ["-", "b\\x1b[31m", &target(2).digest, "2", "B", "-", "m/t"]);
    assert_eq!(lines[3][1], "\\xff");
    assert_eq!(printed(&["images", "--quiet"], &path), "a\nb\\x1b[31m\n\\xff\n");
    let value = parsed(&["images", "--json"], &path);
    let image = |name: &str, number: u8, size: i64| json!({ "name": name, "digest": target(number).digest, "media_type": "m/t", "size": size });
    let mut odd = image("\u{fffd}", 3, 3);
    odd["name_bytes"] = json!([255]);
    assert_eq!(
        value,
        json!({
            "schema": "images", "version": null, "problems": [],
            "images": [image("a", 1, -1), image("b\x1b[31m", 2, 2), odd],
        })
    );
    assert_eq!(printed(&["images", "-q", "--filter", "name==a"], &path), "a\n");
    assert_eq!(tool(&["images", "--namespace", "one"], &path).0, 2);
}

#[test]
fn namespaces_are_listed_and_chosen_from() {
    let root = TestRoot::in_memory("cli-containerd");
    let path = namespaced(&root);
    let before = fs::read(&path).unwrap();
    let text = printed(&["images"], &path);
    let lines: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    let first = ["one", "x/a", &target(1).digest, "1", "B", "just", "now", "m/t"];
    assert_eq!(lines[0], first);
    assert_eq!(lines.len(), 3);
    let quiet = |arguments: &[&str]| printed(&[&["images", "-q"], arguments].concat(), &path);
    assert_eq!(quiet(&[]), "x/a\ny/b\nx/c\n");
    assert_eq!(quiet(&["--namespace", "two"]), "x/c\n");
    assert_eq!(quiet(&["--namespace", "three"]), "");
    assert_eq!(quiet(&["--filter", "name^=x/"]), "x/a\nx/c\n");
    assert_eq!(quiet(&["-f", "labels.l==y/b", "-f", "name==x/c"]), "y/b\nx/c\n");
    let value = parsed(&["images", "--json", "-n", "one"], &path);
    assert_eq!((&value["schema"], &value["version"]), (&json!("namespaces"), &json!(3)));
    assert_eq!(value["images"].as_array().unwrap().len(), 2);
    let image = &value["images"][0];
    assert_eq!((&image["namespace"], &image["labels"]), (&json!("one"), &json!({ "l": "x/a" })));
    assert!(image["created"].as_str().unwrap().ends_with('Z') && image["created"] == image["updated"]);
    assert_eq!(fs::read(&path).unwrap(), before);
    let (code, _, errors) = tool(&["images", "--filter", "size==1"], &path);
    assert!(code == 2 && errors.contains("at byte 0"), "{errors}");
}

#[test]
fn images_that_cannot_be_read_are_told_beside_the_others() {
    let root = TestRoot::in_memory("cli-containerd");
    let path = namespaced(&root);
    let file = BoltFile::open(&Dir::open(root.path()).unwrap(), "namespaced", &options()).unwrap();
    let mut transaction = file.begin_write().unwrap();
    let mut outer = transaction.root_mut().unwrap();
    let mut v1 = outer.bucket(b"v1").unwrap().unwrap();
    let mut one = v1.bucket(b"one").unwrap().unwrap();
    one.bucket(b"images").unwrap().unwrap().create_bucket(b"bad").unwrap();
    transaction.commit().unwrap();
    drop(file);
    let (code, text, errors) = tool(&["images", "-q"], &path);
    assert_eq!((code, text.as_str()), (6, "x/a\ny/b\nx/c\n"));
    assert!(errors.contains("namespace one: image \"bad\": it has no target"), "{errors}");
    let (code, text, _) = tool(&["images", "--json"], &path);
    let value: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((code, value["images"].as_array().unwrap().len()), (6, 3));
    assert_eq!(value["problems"], json!(["namespace one: image \"bad\": it has no target"]));
}

#[test]
fn files_that_hold_no_images_are_refused_and_none_is_made() {
    let root = TestRoot::in_memory("cli-containerd");
    let absent = root.join("absent");
    assert_eq!(tool(&["images"], &absent).0, 3);
    assert!(!absent.exists());
    let text = root.join("text");
    fs::write(&text, "text").unwrap();
    let (code, _, errors) = tool(&["images"], &text);
    assert_eq!(code, 6);
    assert!(errors.contains("it is no bolt file") || errors.contains("not there"), "{errors}");
    assert!(errors.contains("If it is containerd's meta.db") && !errors.contains("other images"), "{errors}");
    // Long enough for both meta pages.
    fs::write(&text, "text".repeat(100_000)).unwrap();
    let (code, _, errors) = tool(&["images"], &text);
    assert!(code == 6 && errors.contains("it is no bolt file"), "{errors}");
    drop(BoltFile::open(&Dir::open(root.path()).unwrap(), "empty", &options()).unwrap());
    let (code, _, errors) = tool(&["images", "--json"], &root.join("empty"));
    let value: Value = serde_json::from_str(&errors).unwrap();
    assert_eq!((code, &value["error"]["kind"]), (5, &json!("bad-archive")));
    assert!(value["error"]["message"].as_str().unwrap().contains("there is nothing in it"), "{errors}");
    // Somebody writes it.
    let path = plain(&root);
    let _open = ImageFile::open(&path, &options()).unwrap();
    let (code, _, errors) = tool(&["images"], &path);
    assert_eq!(code, 4);
    assert!(errors.contains(&format!("in use by pid {}", std::process::id())), "{errors}");
    assert!(errors.contains("look at a copy"), "{errors}");
}
