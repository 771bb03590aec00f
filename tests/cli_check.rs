// SPDX-License-Identifier: MulanPSL-2.0
//! `check`, `repair`, `quarantine` and `import --heal`: what an operator does about damage.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod cli_support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cli_support::common::{need_root, run};
use cli_support::{Store, golden_image, text, trees};
use isula_storage::storage::{Storage, StorageOptions};
use serde_json::{Value, json};

const BASE: &str = "e3548aeb466def46e7d035c029a6c86a90f525312873481d224369b802b5b5f3";
const TOP: &str = "af454b0b288549991b1ba85e7b664837cab7880c65a8606b0a75ddaf6fe78b7b";
const IMAGE: &str = "11ecebd34f10939e545d04d93fb8d09ac0c252c3c1e4bcf55a34694d2bcd5142";
const STOPPED: &str = "27cd7024d0302b999ae11c404ed0e0e148559fd3ba3c24947fc98da608fa8f14";

/// A store with one image of two layers.
fn store() -> Store {
    let store = Store::in_memory();
    store.import(&golden_image("bb.tar.gz"));
    store
}

/// The store of a real daemon, with two containers.
fn golden() -> Store {
    let store = Store::in_memory();
    let golden = trees::golden();
    for (from, to) in [("storage", store.root()), ("run", store.run_root())] {
        run(Command::new("cp").arg("-a").arg(golden.join("running").join(from)).arg(to));
    }
    // Nothing of it runs here.
    fs::remove_dir_all(store.run_root()).unwrap();
    store
}

fn data(store: &Store, layer: &str) -> PathBuf {
    store.root().join("overlay").join(layer)
}

fn tar_split(store: &Store, layer: &str) -> PathBuf {
    store.dir("layers").join(layer).join(format!("{layer}.tar-split.gz"))
}

/// Runs a command that prints JSON and then fails.
fn damaged<const N: usize>(store: &Store, args: [&str; N]) -> Value {
    let output = store.tool().arg("--json").args(args).output().unwrap();
    assert_eq!(output.status.code(), Some(6), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn reasons(found: &Value) -> Vec<(String, String)> {
    found.as_array().unwrap().iter().map(|one| (text(&one["subject"]), text(&one["reason"]))).collect()
}

fn layer(id: &str) -> String {
    format!("layer {id}")
}

#[test]
fn a_whole_store_is_found_whole() {
    if !need_root() {
        return;
    }
    for (store, containers) in [(store(), 0), (golden(), 2)] {
        let before = trees::describe(&store.root());
        let counts = format!(
            "1 images, {} layers (content not compared: --deep does), {containers} containers",
            2 + containers
        );
        assert_eq!(store.ok(["check"]), format!("checked {counts}\n"));
        let deep = store.json(["check", "--deep"]);
        let layers = 2 + containers;
        assert_eq!(
            deep,
            json!({
                "deep": true, "images": 1, "layers": layers, "compared": 2, "containers": containers, "quarantined": 0,
                "findings": [],
                "not_looked_for": [],
            })
        );
        assert_eq!(store.ok(["repair", "--dry-run"]), "nothing to mend\n");
        assert_eq!(trees::describe(&store.root()), before, "looking changes nothing");
        assert_eq!(store.ok(["quarantine", "list"]), "");
        assert_eq!(store.ok(["repair"]), "nothing to mend\n");
    }
}

#[test]
fn damage_is_told_of_with_status_6_and_nothing_is_changed() {
    if !need_root() {
        return;
    }
    type Harm = fn(&Store);
    let content: Harm = |store| fs::write(data(store, BASE).join("diff/etc/passwd"), "x").unwrap();
    let table: [(Harm, &[&str], &str, &str); 7] = [
        (
            content,
            &["--deep"],
            BASE,
            "its content differs from its archive: \"etc/passwd\": it has 1 bytes, the layer had",
        ),
        (
            |store| fs::write(tar_split(store, TOP), "no gzip, but long enough to be one").unwrap(),
            &[],
            TOP,
            "its tar-split stream is damaged",
        ),
        (|store| fs::remove_file(tar_split(store, TOP)).unwrap(), &[], TOP, "it has no tar-split stream"),
        (
            |store| fs::remove_file(data(store, BASE).join("link")).unwrap(),
            &[],
            BASE,
            "its file link is lost",
        ),
        (|store| fs::write(data(store, TOP).join("lower"), "").unwrap(), &[], TOP, "file lower: it is empty"),
        (|store| fs::remove_dir_all(data(store, BASE)).unwrap(), &[], BASE, "its data are missing"),
        (|store| fs::write(store.dir("layers").join(TOP).join("layer.json"), "").unwrap(), &[], TOP, "parse"),
    ];
    for (harm, more, id, reason) in table {
        let store = store();
        harm(&store);
        let before = trees::describe(&store.root());
        let args: Vec<&str> = ["check"].into_iter().chain(more.iter().copied()).collect();
        let (code, message) = store.fails(&args);
        assert_eq!(code, 6, "{reason}");
        assert!(message.contains("damaged") && message.contains("docs/recovery.md"), "{message}");
        let output = store.tool().arg("--json").args(&args).output().unwrap();
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        let found = reasons(&found["findings"]);
        assert!(
            found.iter().any(|(subject, why)| *subject == layer(id) && why.contains(reason)),
            "{reason}: {found:?}"
        );
        assert_eq!(trees::describe(&store.root()), before, "{reason}");
    }
}

#[test]
fn big_data_are_compared_with_what_is_recorded() {
    if !need_root() {
        return;
    }
    let store = store();
    let manifest = store.dir("images").join(IMAGE).join("manifest");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("\"schemaVersion\": 2", "\"schemaVersion\":  2")).unwrap();
    let found = damaged(&store, ["check"]);
    let [(subject, reason)] = <[_; 1]>::try_from(reasons(&found["findings"])).unwrap();
    assert_eq!(subject, format!("image {IMAGE}"));
    assert!(reason.starts_with("big data \"manifest\" has "), "{reason}");
    // Importing the image again writes it anew.
    store.import(&golden_image("bb.tar.gz"));
    assert_eq!(fs::read_to_string(&manifest).unwrap(), text);
    store.ok(["check"]);
}

#[test]
fn a_check_works_beside_the_process_that_has_the_store() {
    if !need_root() {
        return;
    }
    let store = store();
    let owner = Storage::open(StorageOptions::new(store.root(), store.run_root())).unwrap();
    owner.layers().mount(TOP).unwrap();
    assert_eq!(store.json(["check", "--deep"])["findings"], json!([]));
    assert_eq!(store.ok(["quarantine", "list"]), "");
    assert_eq!(store.ok(["repair", "--dry-run"]), "nothing to mend\n");
    let (code, message) = store.fails(["repair"]);
    assert_eq!(code, 4);
    assert!(message.contains(&format!("in use by pid {}", std::process::id())), "{message}");
    owner.layers().unmount(TOP, true).unwrap();
    owner.close().unwrap();
    store.ok(["repair"]);
}

#[test]
fn what_is_derivable_is_mended_and_a_dry_run_only_says_so() {
    if !need_root() {
        return;
    }
    let store = golden();
    let link = fs::read_to_string(data(&store, BASE).join("link")).unwrap();
    fs::remove_file(store.root().join("overlay/l").join(&link)).unwrap();
    fs::remove_dir(data(&store, TOP).join("merged")).unwrap();
    // Cut off between two names: it reads well, and a container would be without its base.
    let lower = data(&store, STOPPED).join("lower");
    let whole = fs::read_to_string(&lower).unwrap();
    fs::write(&lower, &whole[..28]).unwrap();
    let expected = json!([
        { "subject": layer(BASE), "reason": format!("its short name l/{link} is lost"), "derivable": true, "quarantined": false },
        { "subject": layer(TOP), "reason": "its directory merged is missing", "derivable": true, "quarantined": false },
        {
            "subject": layer(STOPPED),
            "reason": "its file lower does not name the layers below its parent",
            "derivable": true,
            "quarantined": false,
        },
    ]);
    let found = damaged(&store, ["check"]);
    assert_eq!(found["findings"], expected);
    let before = trees::describe(&store.root());
    let dry = store.json(["repair", "--dry-run"]);
    assert_eq!(dry, json!({ "dry_run": true, "mended": expected, "removed": [], "left": [] }));
    assert_eq!(trees::describe(&store.root()), before);
    let told = store.ok(["repair"]);
    assert_eq!(told.lines().count(), 3, "{told}");
    assert!(told.starts_with(&format!("mended layer {BASE}: its short name")), "{told}");
    assert_eq!(fs::read_to_string(&lower).unwrap(), whole);
    store.ok(["check"]);
    assert_eq!(store.ok(["repair"]), "nothing to mend\n");
}

#[test]
fn the_lost_record_of_a_containers_layer_is_made_from_what_is_there() {
    if !need_root() {
        return;
    }
    let store = golden();
    let record = store.dir("layers").join(STOPPED).join("layer.json");
    let whole = fs::read_to_string(&record).unwrap();
    let content = trees::describe(&data(&store, STOPPED).join("diff"));
    fs::write(&record, "").unwrap();
    let found = damaged(&store, ["check"]);
    assert!(!found["findings"].as_array().unwrap().is_empty());
    let told = store.ok(["repair"]);
    assert!(told.contains(&format!("mended container {STOPPED}: its layer {STOPPED} is missing")), "{told}");
    let lines = |text: &str| -> Vec<String> {
        text.lines().filter(|line| !line.contains("\"created\"")).map(str::to_owned).collect()
    };
    assert_eq!(lines(&fs::read_to_string(&record).unwrap()), lines(&whole));
    assert_eq!(trees::describe(&data(&store, STOPPED).join("diff")), content);
    store.ok(["check"]);
    let merged = store.ok(["mount", STOPPED]);
    assert!(Path::new(merged.trim()).join("bin/busybox").exists());
    store.ok(["umount", STOPPED]);
    // The record that was put aside can be thrown away now.
    let list = store.json(["quarantine", "list"]);
    assert_eq!(list.as_array().unwrap().len(), 1);
    assert_eq!(
        (text(&list[0]["kind"]), text(&list[0]["name"])),
        ("layer record".to_owned(), STOPPED.to_owned())
    );
    store.ok(["quarantine", "purge", &text(&list[0]["key"])]);
    assert_eq!(store.ok(["quarantine", "list"]), "");
}

#[test]
fn what_was_put_aside_is_listed_mended_and_restored() {
    if !need_root() {
        return;
    }
    let store = golden();
    let record = store.dir("containers").join(STOPPED).join("container.json");
    let whole = fs::read_to_string(&record).unwrap();
    fs::write(&record, &whole[..20]).unwrap();
    // The next command that owns the store puts it aside.
    let (code, _) = store.fails(["repair"]);
    assert_eq!(code, 6);
    assert!(!record.exists());
    let list = store.ok(["quarantine", "list"]);
    let lines: Vec<&str> = list.lines().collect();
    assert_eq!(lines.len(), 5, "{list}");
    assert!(lines[0].ends_with(&format!("  container {STOPPED}")), "{list}");
    assert!(lines[3].ends_with("overlay-containers"), "{list}");
    let [entry] =
        <[Value; 1]>::try_from(store.json(["quarantine", "list"]).as_array().unwrap().clone()).unwrap();
    let (key, path) = (text(&entry["key"]), text(&entry["path"]));
    assert_eq!(fs::read_to_string(Path::new(&path).join("container.json")).unwrap(), whole[..20]);

    let (code, message) = store.fails(["quarantine", "restore", &key]);
    assert_eq!(code, 6, "{message}");
    assert_eq!(store.json(["quarantine", "list"]).as_array().unwrap().len(), 1, "it is where it was");
    fs::write(Path::new(&path).join("container.json"), &whole).unwrap();
    assert_eq!(store.ok(["quarantine", "restore", &key[..5]]), format!("restored container {STOPPED}\n"));
    assert_eq!(fs::read_to_string(&record).unwrap(), whole);
    store.ok(["check"]);
}

/// What a removal leaves that is killed behind the image's record.
#[test]
fn orphan_layers_are_removed_when_asked_for() {
    if !need_root() {
        return;
    }
    let store = store();
    fs::rename(store.dir("images").join(IMAGE), store.root().join("gone")).unwrap();
    let left = format!("layer {TOP}: no image, container or layer uses it: it was left alone\n");
    assert_eq!(damaged(&store, ["repair"])["removed"], json!([]));
    // No image at all: they may be somewhere else.
    for more in [&[][..], &["--dry-run"]] {
        let (code, message) = store.fails([&["repair", "--remove-orphans"][..], more].concat());
        assert_eq!(code, 6, "{message}");
        assert!(message.contains("2 layers would be orphans because there is no image at all"), "{message}");
        assert!(message.contains("--even-without-images"), "{message}");
    }
    assert_eq!(store.layer_ids().len(), 2);
    let repair = ["repair", "--remove-orphans", "--even-without-images"];
    let would = store.ok([&repair[..], &["--dry-run"]].concat());
    let line = |done: &str, id: &str| format!("{done} layer {id}: nothing uses it\n");
    let lines = |done: &str| format!("nothing to mend\n{}{}", line(done, TOP), line(done, BASE));
    assert_eq!(would, lines("would remove"));
    let output = store.tool().args(["check"]).output().unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().contains(&left), "a dry run changes nothing");
    assert_eq!(store.ok(repair), lines("removed"));
    assert_eq!(store.layer_ids(), [""; 0]);
    assert_eq!(store.json(["repair", "--remove-orphans"])["removed"], json!([]));
    store.ok(["check"]);
    // Used ones stay.
    store.import(&golden_image("bb.tar.gz"));
    assert_eq!(store.ok(["repair", "--remove-orphans"]), "nothing to mend\n");
    assert_eq!(store.layer_ids().len(), 2);
}

#[test]
fn an_image_and_a_layer_are_put_back_by_name() {
    if !need_root() {
        return;
    }
    let store = golden();
    let owner = Storage::open(StorageOptions::new(store.root(), store.run_root())).unwrap();
    owner.layers().quarantine(STOPPED, "to see it come back").unwrap();
    owner.images().quarantine(IMAGE, "to see it come back").unwrap();
    owner.close().unwrap();
    assert_eq!(store.json(["quarantine", "list"]).as_array().unwrap().len(), 3);
    // One name, two things: record and data of the layer.
    let told = store.ok(["quarantine", "restore", STOPPED]);
    assert_eq!(told, format!("restored layer record {STOPPED}\nrestored layer data {STOPPED}\n"));
    assert_eq!(store.ok(["quarantine", "restore", &IMAGE[..8]]), format!("restored image {IMAGE}\n"));
    store.ok(["check"]);
    for (what, expected) in [("ab", 2), ("0123456789ab", 3)] {
        let (code, message) = store.fails(["quarantine", "restore", what]);
        assert_eq!(code, expected, "{message}");
    }
}

#[test]
fn purging_gives_up_for_good() {
    if !need_root() {
        return;
    }
    let store = golden();
    let owner = Storage::open(StorageOptions::new(store.root(), store.run_root())).unwrap();
    owner.layers().quarantine(STOPPED, "not wanted").unwrap();
    owner.close().unwrap();
    let paths: Vec<String> =
        store.json(["quarantine", "list"]).as_array().unwrap().iter().map(|put| text(&put["path"])).collect();
    assert_eq!(paths.len(), 2);
    let told = store.ok(["quarantine", "purge", STOPPED]);
    assert_eq!(told.lines().count(), 2, "{told}");
    assert!(paths.iter().all(|path| !Path::new(path).exists()));
    let (code, _) = store.fails(["quarantine", "purge", STOPPED]);
    assert_eq!(code, 3);
}

#[test]
fn an_import_with_heal_replaces_damaged_layers_and_keeps_the_old_content() {
    if !need_root() {
        return;
    }
    let store = golden();
    let passwd = data(&store, BASE).join("diff/etc/passwd");
    let whole = fs::read(&passwd).unwrap();
    fs::write(&passwd, "damaged").unwrap();
    let archive = golden_image("bb.tar.gz");
    store.import(&archive);
    assert_eq!(fs::read_to_string(&passwd).unwrap(), "damaged", "a plain import does not look at content");
    // Not under a mounted container.
    let merged = store.ok(["mount", STOPPED]);
    let (code, message) = store.fails([Path::new("import"), Path::new("--heal"), &archive]);
    assert_eq!(code, 4, "{message}");
    assert!(message.contains("unmount it (stop the container)"), "{message}");
    store.ok(["umount", STOPPED]);
    let report = store.json([Path::new("import"), Path::new("--heal"), &archive]);
    assert_eq!(report["images"][0]["existed"], true);
    assert_eq!(fs::read(&passwd).unwrap(), whole);
    store.ok(["check", "--deep"]);
    let [entry] =
        <[Value; 1]>::try_from(store.json(["quarantine", "list"]).as_array().unwrap().clone()).unwrap();
    assert_eq!(text(&entry["kind"]), "layer data");
    let old = Path::new(&text(&entry["path"])).join("diff/etc/passwd");
    assert_eq!(fs::read_to_string(old).unwrap(), "damaged");
    // The container stands on the new content.
    assert_eq!(store.ok(["mount", STOPPED]), merged);
    assert_eq!(fs::read(Path::new(merged.trim()).join("etc/passwd")).unwrap(), whole);
    store.ok(["umount", STOPPED]);
}

#[test]
fn layers_of_the_vfs_driver_are_checked_and_healed_too() {
    let mut store = Store::in_memory();
    store.driver = "vfs";
    if !need_root() {
        return;
    }
    let archive = golden_image("bb.tar.gz");
    store.import(&archive);
    assert_eq!(store.json(["check", "--deep"])["findings"], json!([]));
    let passwd = store.root().join("vfs/dir").join(TOP).join("opt/dir1/three");
    let whole = fs::read(&passwd).unwrap();
    fs::write(&passwd, "other").unwrap();
    let found = damaged(&store, ["check", "--deep"]);
    assert_eq!(reasons(&found["findings"]).len(), 1, "{found}");
    store.import(&archive);
    assert_eq!(fs::read(&passwd).unwrap(), b"other");
    store.json([Path::new("import"), Path::new("--heal"), &archive]);
    assert_eq!(fs::read(&passwd).unwrap(), whole);
    assert!(store.root().join("vfs/dir").join(TOP).join("bin/busybox").exists(), "a copy of the parent, too");
    store.ok(["check", "--deep"]);
    // The whole old tree lies aside, and can be had back in the place of a layer that is gone.
    let [entry] =
        <[Value; 1]>::try_from(store.json(["quarantine", "list"]).as_array().unwrap().clone()).unwrap();
    let (code, message) = store.fails(["quarantine", "restore", &text(&entry["key"])]);
    assert_eq!(code, 4, "{message}");
    store.ok(["quarantine", "purge", &text(&entry["key"])]);
}
