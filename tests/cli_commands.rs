// SPDX-License-Identifier: MulanPSL-2.0
//! What each command prints, changes and returns.
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
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};

use cli_support::common::{mounts_below, need_root};
use cli_support::images::{DockerImage, docker_archive, small_layer};
use cli_support::{Store, golden_image, text};
use serde_json::{Value, json};

const BB: &str = "11ecebd34f10939e545d04d93fb8d09ac0c252c3c1e4bcf55a34694d2bcd5142";
const BUSYBOX: &str = "e3548aeb466def46e7d035c029a6c86a90f525312873481d224369b802b5b5f3";
const WHITEOUTS: &str = "af454b0b288549991b1ba85e7b664837cab7880c65a8606b0a75ddaf6fe78b7b";

fn with_busybox() -> Store {
    let store = Store::in_memory();
    store.import(&golden_image("bb.tar.gz"));
    store
}

fn cells(line: &str) -> Vec<&str> {
    line.split("   ").map(str::trim).filter(|cell| !cell.is_empty()).collect()
}

/// Imports a made-up image; its id.
fn import_made(store: &Store, images: &[DockerImage]) -> Value {
    let archive = store.home().join("made.tar");
    fs::write(&archive, docker_archive(images)).unwrap();
    store.import(&archive)
}

#[test]
fn lists_are_tables_for_people_and_json_for_programs() {
    if !need_root() {
        return;
    }
    let store = with_busybox();
    let images = store.ok(["images"]);
    let lines: Vec<Vec<&str>> = images.lines().map(cells).collect();
    assert_eq!(lines[0], ["IMAGE ID", "TAGS", "SIZE", "CREATED"]);
    assert_eq!(lines[1][..3], ["11ecebd34f10", "localhost/bb:v1", "1.8 MiB"]);
    assert_eq!(lines.len(), 2);
    assert!(store.ok(["images", "--no-trunc"]).contains(BB));
    assert_eq!(store.ok(["-q", "images"]), "11ecebd34f10\n");
    assert_eq!(store.ok(["images", "-q", "--no-trunc"]), format!("{BB}\n"));

    let image = &store.json(["images"])[0];
    assert_eq!(text(&image["id"]), BB);
    assert_eq!(image["tags"], json!(["localhost/bb:v1"]));
    assert_eq!(text(&image["top_layer"]), WHITEOUTS);
    assert_eq!(text(&image["created"]), "2026-11-21T07:56:35.564166910+00:00");

    let layers = store.ok(["layers"]);
    let lines: Vec<Vec<&str>> = layers.lines().map(cells).collect();
    assert_eq!(lines[0], ["LAYER ID", "PARENT", "KIND", "SIZE", "LIMIT", "MOUNTS"]);
    assert!(lines.contains(&vec!["af454b0b2885", "e3548aeb466d", "image", "12 B", "-", "0"]));
    assert_eq!(store.json(["layers"]).as_array().unwrap().len(), 2);

    let empty = Store::in_memory();
    for made in [false, true] {
        if made {
            fs::create_dir(empty.root()).unwrap();
        }
        let (code, message) = empty.fails(["images"]);
        assert_eq!(code, 3, "{message}");
        assert!(message.contains("--root"), "{message}");
    }
    assert_eq!(fs::read_dir(empty.root()).unwrap().count(), 0, "a list writes nothing");
}

#[test]
fn inspect_tells_all_of_an_image_and_of_a_layer() {
    if !need_root() {
        return;
    }
    let store = with_busybox();
    for name in ["localhost/bb:v1", BB, &BB[..5]] {
        let image = store.json(["inspect", name]);
        assert_eq!(image["kind"], "image");
        assert_eq!(text(&image["id"]), BB);
        assert_eq!(image["names"], json!(["localhost/bb:v1"]));
        assert_eq!(image["config"]["config"]["Cmd"], json!(["/bin/sh"]));
        let layers: Vec<String> =
            image["layers"].as_array().unwrap().iter().map(|l| text(&l["id"])).collect();
        assert_eq!(layers, [WHITEOUTS, BUSYBOX], "top first");
        assert_eq!(image["big_data"][1]["key"], "manifest");
    }
    for name in [BUSYBOX, &BUSYBOX[..8]] {
        let layer = store.json(["inspect", name]);
        assert_eq!(layer["kind"], "layer");
        assert_eq!(text(&layer["id"]), BUSYBOX);
        assert_eq!(layer["children"], json!([WHITEOUTS]));
        assert_eq!(layer["images"], json!([]));
        assert!(text(&layer["data"]["UpperDir"]).ends_with(&format!("{BUSYBOX}/diff")));
        assert!(layer["usage"]["bytes"].as_u64().unwrap() > 1_900_000);
    }
    assert_eq!(store.json(["inspect", WHITEOUTS])["images"], json!([BB]));
    let (code, message) = store.fails(["inspect", "nothing"]);
    assert_eq!(code, 3);
    assert!(message.contains("nothing: no such image or layer"), "{message}");
}

#[test]
fn mount_shows_the_image_and_umount_ends_it() {
    if !need_root() {
        return;
    }
    let store = with_busybox();
    let path = store.ok(["mount", "localhost/bb:v1"]);
    let path = Path::new(path.trim_end());
    assert!(!path.join("opt/dir1/one").exists(), "the upper layer hides it");
    assert_eq!(fs::read_to_string(path.join("opt/dir1/three")).unwrap().len(), 4);
    assert_eq!(fs::read_to_string(path.join("opt/dir2/keep")).unwrap().len(), 8, "the upper layer's");
    assert_eq!(fs::metadata(path.join("tmp")).unwrap().mode() & 0o7777, 0o1777);
    let output = Command::new("chroot").arg(path).args(["/bin/busybox", "echo", "hello"]).output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "hello\n");

    // Mounting it again changes nothing: each command finds it mounted once.
    assert_eq!(store.json(["mount", WHITEOUTS])["path"], json!(path));
    store.ok(["umount", &BB[..12]]);
    assert!(!path.join("bin").exists());
    assert_eq!(store.json(["inspect", WHITEOUTS])["mount_count"], 0);
    store.ok(["umount", WHITEOUTS]);
    store.ok(["mount", WHITEOUTS]);
    assert_eq!(store.json(["inspect", WHITEOUTS])["mount_count"], 1);
    store.ok(["umount", "--force", WHITEOUTS]);
    assert!(!path.join("bin").exists());
    assert_eq!(mounts_below(&store.root()), [""; 0].map(std::path::PathBuf::from), "nothing stays mounted");
    assert_eq!(store.fails(["mount", "nothing"]).0, 3);
    store.assert_whole();
}

#[test]
fn removal_takes_names_first_then_the_image_and_what_only_it_used() {
    if !need_root() {
        return;
    }
    let store = Store::in_memory();
    let (base, left, right) = (small_layer("base"), small_layer("left"), small_layer("right"));
    let two = [
        DockerImage::new(&[base.clone(), left.clone()], &["left:1", "left:2"]),
        DockerImage::new(&[base, right], &["right:1"]),
    ];
    let report = import_made(&store, &two);
    assert_eq!(report["images"].as_array().unwrap().len(), 2);
    let existed: Vec<&Value> =
        report["images"][1]["layers"].as_array().unwrap().iter().map(|l| &l["existed"]).collect();
    assert_eq!(existed, [true, false], "the base is shared");
    assert_eq!(store.layer_ids().len(), 3);

    let removed = store.json(["rmi", "left:2"]);
    assert_eq!(
        removed,
        json!([{ "image": two[0].id(), "untagged": ["left:2"], "deleted": false, "layers": [] }])
    );
    assert_eq!(store.names()[0].1, ["left:1"]);

    let removed = store.json(["rmi", "docker.io/library/left:1"]);
    assert_eq!(removed[0]["deleted"], true);
    assert_eq!(removed[0]["layers"].as_array().unwrap().len(), 1, "the base is still used");
    assert_eq!(store.assert_whole(), [two[1].id()]);

    let printed = store.ok(["rmi", &two[1].id()[..12]]);
    assert!(printed.contains("untagged right:1") && printed.contains("deleted image"), "{printed}");
    assert_eq!(store.layer_ids(), [""; 0]);
    assert_eq!(fs::read_dir(store.root().join("overlay/l")).unwrap().count(), 0);

    let (code, message) = store.fails(["rmi", "left:1"]);
    assert_eq!(code, 3);
    assert!(message.contains("isula-storage images lists"), "{message}");
}

#[test]
fn removal_by_id_takes_all_names() {
    if !need_root() {
        return;
    }
    let store = Store::in_memory();
    let image = DockerImage::new(&[small_layer("one")], &["a:1", "b:1"]);
    import_made(&store, std::slice::from_ref(&image));
    let removed = store.json(["rmi", &image.id()]);
    assert_eq!(removed[0]["untagged"], json!(["a:1", "b:1"]));
    assert_eq!(store.names(), []);
    assert_eq!(store.layer_ids(), [""; 0]);
}

#[test]
fn removal_by_a_digest_reference_of_an_image_with_several_names_is_refused() {
    if !need_root() {
        return;
    }
    let store = Store::in_memory();
    let image = DockerImage::new(&[small_layer("one")], &["a:1", "b:1"]);
    import_made(&store, std::slice::from_ref(&image));
    let digest = text(&store.json(["inspect", "a:1"])["digest"]);
    let (code, message) = store.fails(["rmi", &format!("a@{digest}")]);
    assert_eq!(code, 2);
    assert!(message.contains("several names"), "{message}");
    assert_eq!(store.names()[0].1, ["a:1", "b:1"]);
}

/// `-o /dev/null` would have put a file where the device is.
#[test]
fn export_writes_into_what_is_no_file() {
    if !need_root() {
        return;
    }
    let store = with_busybox();
    let (pipe, link) = (store.home().join("pipe"), store.home().join("link"));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    std::os::unix::fs::symlink("pipe", &link).unwrap();
    for output in [&pipe, &link] {
        let copy = fs::File::create(store.home().join("copy")).unwrap();
        let mut reader = Command::new("cat").arg(&pipe).stdout(copy).spawn().unwrap();
        store.ok([Path::new("export"), Path::new(BUSYBOX), Path::new("-o"), output]);
        assert!(reader.wait().unwrap().success());
        assert_eq!(fs::metadata(store.home().join("copy")).unwrap().len(), 2_007_552);
    }
    let kind = |path: &Path| fs::symlink_metadata(path).unwrap().file_type();
    assert!(std::os::unix::fs::FileTypeExt::is_fifo(&kind(&pipe)) && kind(&link).is_symlink());
}

#[test]
fn only_an_import_makes_a_store() {
    let store = Store::in_memory();
    for made in [false, true] {
        if made {
            fs::create_dir(store.root()).unwrap();
        }
        for command in ["images", "layers", "inspect x", "mount x", "umount x", "rmi x", "export x", "status"]
        {
            let (code, message) = store.fails(command.split(' '));
            assert_eq!(code, 3, "{command}: {message}");
            assert!(
                message.contains("there is no storage") && message.contains("--root"),
                "{command}: {message}"
            );
        }
        assert_eq!(fs::exists(store.root()).unwrap(), made);
    }
    assert_eq!(fs::read_dir(store.root()).unwrap().count(), 0);
}

#[test]
fn a_mounted_image_is_not_removed() {
    if !need_root() {
        return;
    }
    let store = with_busybox();
    let path = store.ok(["mount", "localhost/bb:v1"]);
    let (code, message) = store.fails(["rmi", "localhost/bb:v1"]);
    assert_eq!(code, 4, "{message}");
    assert!(message.contains("is mounted: unmount it first"), "{message}");
    assert!(Path::new(path.trim_end()).join("bin/busybox").exists());
    store.ok(["umount", "localhost/bb:v1"]);
    store.ok(["rmi", "localhost/bb:v1"]);
}

#[test]
fn a_layer_that_others_stand_on_survives_a_removal() {
    if !need_root() {
        return;
    }
    let store = Store::in_memory();
    let (base, top) = (small_layer("base"), small_layer("top"));
    let images = [
        DockerImage::new(std::slice::from_ref(&base), &["base:1"]),
        DockerImage::new(&[base, top], &["top:1"]),
    ];
    import_made(&store, &images);
    let removed = store.json(["rmi", "base:1"]);
    assert_eq!(removed[0]["layers"], json!([]), "its only layer carries another");
    assert_eq!(store.assert_whole(), [images[1].id()]);
    assert_eq!(store.layer_ids().len(), 2);
}

#[test]
fn export_writes_a_file_only_when_it_is_whole() {
    if !need_root() {
        return;
    }
    let store = with_busybox();
    let file = store.home().join("out.tar");
    fs::write(&file, "old").unwrap();
    let report = store.json([Path::new("export"), Path::new(&BUSYBOX[..6]), Path::new("-o"), &file]);
    assert_eq!(text(&report["digest"]), format!("sha256:{BUSYBOX}"));
    assert_eq!(report["size"], 2_007_552);
    assert_eq!(fs::metadata(&file).unwrap().len(), 2_007_552);
    let piped = store.tool().args(["export", BUSYBOX]).output().unwrap();
    assert!(piped.status.success());
    assert_eq!(piped.stdout, fs::read(&file).unwrap());

    // The layer was changed behind the store's back.
    fs::write(store.root().join("overlay").join(BUSYBOX).join("diff/etc/passwd"), "evil").unwrap();
    fs::write(&file, "old").unwrap();
    let (code, message) = store.fails([Path::new("export"), Path::new(BUSYBOX), Path::new("-o"), &file]);
    assert_eq!(code, 6, "{message}");
    assert!(message.contains("etc/passwd"), "{message}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "old");
    let beside: Vec<String> = fs::read_dir(store.home())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with(".isula"))
        .collect();
    assert_eq!(beside, [""; 0]);
    assert_eq!(store.fails(["export", "ffffff"]).0, 3);
}

#[test]
fn status_counts_and_reports_what_was_put_aside() {
    if !need_root() {
        return;
    }
    let store = with_busybox();
    let status = store.json(["status"]);
    for (member, count) in [("images", 1), ("image_layers", 2), ("container_layers", 0), ("mounted", 0)] {
        assert_eq!(status[member], count, "{member}");
    }
    assert_eq!(status["layer_bytes"], 1_982_362 + 12);
    assert_eq!(status["driver"], "overlay");
    // A record that does not parse: kept, reported, and the rest works.
    fs::write(store.dir("layers").join(WHITEOUTS).join("layer.json"), "{").unwrap();
    store.ok(["umount", BUSYBOX]);
    let status = store.json(["status"]);
    assert_eq!(status["image_layers"], 1);
    let told = status["quarantine"].to_string() + &status["problems"].to_string();
    assert!(told.contains(WHITEOUTS), "{told}");
    assert!(store.ok(["status"]).contains(WHITEOUTS));
    // Importing again heals it.
    store.import(&golden_image("bb.tar.gz"));
    assert_eq!(store.json(["inspect", BB])["problems"], json!([]));
    assert_eq!(store.export(WHITEOUTS), text(&store.json(["inspect", WHITEOUTS])["uncompressed_digest"]));
}

/// An import that waits for its standard input has the store open for writing.
fn writer(store: &Store) -> std::process::Child {
    let child = store
        .tool()
        .args(["import", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let child = child.unwrap();
    let lock_held = || {
        let pid = child.id().to_string();
        let locks = fs::read_to_string("/proc/locks").unwrap();
        locks.lines().any(|line| line.split_whitespace().nth(4) == Some(&pid))
    };
    while !lock_held() {
        std::thread::yield_now();
    }
    child
}

#[test]
fn a_second_writer_is_refused_and_readers_are_not() {
    if !need_root() {
        return;
    }
    let store = with_busybox();
    let mut first = writer(&store);
    let (code, message) = store.fails(["rmi", BB]);
    assert_eq!(code, 4);
    assert!(message.contains(&format!("in use by pid {}", first.id())), "{message}");
    assert!(message.contains("Another process has the store open"), "{message}");
    assert_eq!(store.names().len(), 1);
    assert_eq!(store.layer_ids().len(), 2);
    assert_eq!(store.json(["status"])["images"], 1);
    assert_eq!(text(&store.json(["inspect", BB])["id"]), BB);
    assert_eq!(store.export(BUSYBOX), format!("sha256:{BUSYBOX}"));
    first.kill().unwrap();
    first.wait().unwrap();
    store.ok(["rmi", BB]);
}

#[test]
fn an_interrupt_takes_back_what_was_begun() {
    if !need_root() {
        return;
    }
    let store = with_busybox();
    let image = DockerImage::new(&[small_layer("a"), vec![0; 64 << 20]], &["x:1"]);
    let archive = docker_archive(&[image]);
    let mut child = writer(&store);
    let mut stdin = child.stdin.take().unwrap();
    let interrupt = |child: &std::process::Child| {
        let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    };
    std::io::Write::write_all(&mut stdin, &archive[..1 << 20]).unwrap();
    interrupt(&child);
    // It ends within the archive: more than a pipe holds is never taken.
    assert!(std::io::Write::write_all(&mut stdin, &archive[1 << 20..]).is_err(), "it went on reading");
    drop(stdin);
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let mut message = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut message).unwrap();
    assert!(message.contains("cancelled"), "{message}");
    assert_eq!(store.assert_whole(), [BB]);
    assert_eq!(store.layer_ids().len(), 2);
}

#[test]
fn errors_are_json_when_asked_for() {
    if !need_root() {
        return;
    }
    let store = with_busybox();
    let ended = store.run(["--json", "inspect", "nothing"]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(3), ""));
    let error: Value = serde_json::from_str(&ended.stderr).unwrap();
    assert_eq!(error["error"]["kind"], "not-found");
    assert_eq!(error["error"]["errno"], libc::ENOENT);
    assert!(text(&error["error"]["message"]).contains("nothing"));
    assert!(text(&error["error"]["hint"]).contains("isula-storage images"));
}

#[test]
fn wrong_command_lines_are_told_apart() {
    let store = Store::in_memory();
    for args in [
        &["import"][..],
        &["frobnicate"],
        &["images", "--frobnicate"],
        &["rmi"],
        &["--driver", "nonsense", "images"],
        &["import", "--platform", "linux", "x"],
    ] {
        fs::create_dir_all(store.root()).unwrap();
        let (code, message) = store.fails(args);
        assert_eq!(code, 2, "{args:?}: {message}");
    }
    let (code, message) = store.fails(["import", "/no/such/file"]);
    assert_eq!(code, 3);
    assert!(message.contains("/no/such/file"), "{message}");
}

#[test]
fn completions_and_manual_pages_are_made() {
    let store = Store::in_memory();
    for shell in ["bash", "zsh", "fish"] {
        assert!(store.ok(["completion", shell]).contains("isula-storage"), "{shell}");
    }
    let dir = store.home();
    store.ok([Path::new("man"), &dir]);
    let mut pages: Vec<String> = fs::read_dir(&dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| Path::new(name).extension().is_some())
        .collect();
    pages.sort();
    assert_eq!(pages.len(), 17, "{pages:?}");
    let page = fs::read_to_string(dir.join("isula-storage-import.1")).unwrap();
    assert!(page.contains("isula\\-storage\\-import"), "{page}");
    assert!(fs::read_to_string(dir.join("isula-storage.1")).unwrap().contains("Exit status"));
}
