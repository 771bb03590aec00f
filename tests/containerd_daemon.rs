// SPDX-License-Identifier: MulanPSL-2.0
//! A real containerd: what it has written is read, and it goes on with what the library has written.
//!
//! It has root, state and socket of its own and is stopped by its process id. It needs Debian's `containerd`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod cli_support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cli_support::common::{TestRoot, need_root, run};
use cli_support::golden_image;
use isula_storage::error::ErrorKind;
use isula_storage::metadata::{
    Access, Filters, ImageFile, NamespacedFile, NamespacedImage, Options, Schema, Target, schema_of,
};
use isula_storage::time::Timestamp;
use serde_json::Value;

/// Longest wait for the daemon to begin or to end.
const PATIENCE: Duration = Duration::from_secs(120);

/// Whether there is a daemon to try; says why not.
fn is_there() -> bool {
    if !need_root() {
        return false;
    }
    let there = ["containerd", "ctr"].iter().all(|name| Command::new(name).arg("--version").output().is_ok());
    if !there {
        assert!(std::env::var_os("CI").is_none(), "this test needs containerd and must not be skipped here");
        eprintln!("skipped: needs containerd");
    }
    there
}

struct Daemon {
    child: Child,
    home: PathBuf,
}

impl Daemon {
    fn start(home: &Path) -> Daemon {
        let path = |name: &str| home.join(name).display().to_string();
        let config = format!(
            r#"version = 2
root = "{}"
state = "{}"
disabled_plugins = [
    "io.containerd.grpc.v1.cri", "io.containerd.internal.v1.restart", "io.containerd.snapshotter.v1.aufs",
    "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
    "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp", "io.containerd.internal.v1.tracing",
]
[grpc]
address = "{}"
[ttrpc]
address = "{}"
[plugins."io.containerd.internal.v1.opt"]
path = "{}"
"#,
            path("root"),
            path("state"),
            path("socket"),
            path("ttrpc"),
            path("opt"),
        );
        fs::write(home.join("config.toml"), config).unwrap();
        let log = fs::File::create(home.join("log")).unwrap();
        let mut command = Command::new("containerd");
        command.arg("--config").arg(home.join("config.toml")).stdin(Stdio::null());
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let daemon = Daemon { child, home: home.to_owned() };
        daemon.wait_until("it answers", || {
            daemon.command("default").arg("version").output().unwrap().status.success()
        });
        daemon
    }

    fn wait_until(&self, what: &str, is_so: impl Fn() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            let log = || fs::read_to_string(self.home.join("log")).unwrap_or_default();
            assert!(begun.elapsed() < PATIENCE, "waited too long until {what}: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn command(&self, namespace: &str) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(self.home.join("socket")).args(["--namespace", namespace]);
        command
    }

    /// What its own tool prints.
    fn ctr<const N: usize>(&self, namespace: &str, arguments: [&str; N]) -> String {
        let output = self.command(namespace).args(arguments).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "ctr {arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Names with type, digest and labels, as its own tool shows them.
    fn images(&self, namespace: &str) -> BTreeMap<String, (String, String, String)> {
        let text = self.ctr(namespace, ["images", "ls"]);
        let lines =
            text.lines().skip(1).map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        lines
            .map(|words| {
                (words[0].clone(), (words[1].clone(), words[2].clone(), words.last().unwrap().clone()))
            })
            .collect()
    }

    fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let begun = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < PATIENCE, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn meta_db(home: &Path) -> PathBuf {
    home.join("root/io.containerd.metadata.v1.bolt/meta.db")
}

fn reading() -> Options {
    Options { access: Access::ReadOnly, timeout: Some(Duration::ZERO), ..Options::default() }
}

fn writing() -> Options {
    Options { timeout: Some(Duration::ZERO), ..Options::default() }
}

fn all(file: &NamespacedFile, namespace: &str) -> Vec<NamespacedImage> {
    let listing = file.list(namespace, &Filters::default()).unwrap();
    assert!(listing.problems.is_empty(), "{:?}", listing.problems);
    listing.images
}

/// An archive that `ctr` takes: not compressed.
fn archive(home: &Path) -> String {
    let path = home.join("image.tar");
    run(Command::new("sh")
        .arg("-c")
        .arg("gzip -dc \"$0\" > \"$1\"")
        .arg(golden_image("bb.tar.gz"))
        .arg(&path));
    path.display().to_string()
}

const NAME: &str = "localhost/bb:v1";
const LABEL: &str = "org.example/purpose";

/// What a list of ours says as that of `ctr` does.
fn as_ctr_says(images: &[NamespacedImage]) -> BTreeMap<String, (String, String, String)> {
    let labels = |image: &NamespacedImage| {
        let labels: Vec<_> = image.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        if labels.is_empty() { "-".to_owned() } else { labels.join(",") }
    };
    images
        .iter()
        .map(|image| {
            let target = &image.target;
            (image.name.clone(), (target.media_type.clone(), target.digest.clone(), labels(image)))
        })
        .collect()
}

/// Written by containerd 1.6.20 after `ctr image import` of the small image beside it.
#[test]
fn a_file_of_containerd_1_6_is_read() {
    let root = TestRoot::in_memory("containerd");
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/containerd/meta-1.6.20.db.xz");
    let path = root.join("meta.db");
    run(Command::new("sh").arg("-c").arg("xz -dc \"$0\" > \"$1\"").arg(golden).arg(&path));
    let file = NamespacedFile::open(&path, &reading()).unwrap();
    assert_eq!(file.namespaces().unwrap(), ["default"]);
    let images = all(&file, "default");
    let time = Some(Timestamp { seconds: 1_795_277_208, nanos: 647_914_784 });
    let annotations = [("io.containerd.image.name", NAME), ("org.opencontainers.image.ref.name", "v1")];
    let expected = NamespacedImage {
        name: NAME.to_owned(),
        target: Target {
            media_type: "application/vnd.docker.distribution.manifest.v2+json".to_owned(),
            digest: "sha256:1d7169bc072f150867f5cc05296064b242b66ea49a49c1cb171514c953851878".to_owned(),
            size: 578,
        },
        annotations: annotations.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        created: time,
        updated: time,
        ..NamespacedImage::default()
    };
    assert_eq!(images, [expected]);
}

#[test]
fn images_of_a_real_containerd_are_read_and_it_goes_on_with_what_was_written() {
    if !is_there() {
        return;
    }
    let root = TestRoot::in_memory("containerd");
    let home = root.path();
    let begun = Timestamp::now();
    let daemon = Daemon::start(home);
    let tar = archive(home);
    daemon.ctr("default", ["images", "import", "--no-unpack", &tar]);
    daemon.ctr("default", ["images", "tag", NAME, "docker.io/library/bb:other"]);
    daemon.ctr("default", ["images", "label", NAME, &format!("{LABEL}=test")]);
    daemon.ctr("k8s.io", ["images", "import", "--no-unpack", &tar]);
    let said = [daemon.images("default"), daemon.images("k8s.io")];
    assert_eq!(said[0].len(), 2, "{said:?}");

    // Not while it runs.
    let path = meta_db(home);
    let pid = daemon.child.id();
    for options in [reading(), writing()] {
        let error = NamespacedFile::open(&path, &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InUse);
        assert!(error.report().ends_with(&format!("in use by pid {pid}")), "{}", error.report());
    }
    let tool = || Command::new(env!("CARGO_BIN_EXE_isula-storage"));
    let output = tool().args(["containerd", "images"]).arg(&path).output().unwrap();
    assert_eq!(output.status.code(), Some(4));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains(&format!("in use by pid {pid}")) && told.contains("stop it first"), "{told}");
    daemon.stop();

    // What it wrote.
    let content = fs::read(&path).unwrap();
    assert_eq!(schema_of(&path, &reading()).unwrap(), Schema::Namespaced { version: 3 });
    let error = ImageFile::open(&path, &writing()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData, "{}", error.report());
    let theirs = NamespacedFile::open(&path, &reading()).unwrap();
    assert_eq!(theirs.namespaces().unwrap(), ["default", "k8s.io"]);
    for (namespace, said) in ["default", "k8s.io"].iter().zip(&said) {
        assert_eq!(as_ctr_says(&all(&theirs, namespace)), *said);
    }
    let image = theirs.get("default", NAME).unwrap();
    assert_eq!(image.labels.get(LABEL).map(String::as_str), Some("test"));
    let blob = image.target.digest.strip_prefix("sha256:").unwrap();
    let blob = home.join("root/io.containerd.content.v1.content/blobs/sha256").join(blob);
    assert_eq!(u64::try_from(image.target.size).unwrap(), fs::metadata(blob).unwrap().len());
    assert!(image.created.is_some_and(|time| time >= begun && time <= Timestamp::now()), "{image:?}");
    assert!(image.updated > image.created, "it was labelled later");
    drop(theirs);

    let output = tool().args(["containerd", "images", "--json"]).arg(&path).output().unwrap();
    assert!(output.status.success());
    let value: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((value["schema"].as_str(), value["version"].as_i64()), (Some("namespaces"), Some(3)));
    assert_eq!(value["images"].as_array().unwrap().len(), 3);
    assert_eq!(value["images"][1]["name"], NAME);
    assert_eq!(value["images"][1]["digest"], image.target.digest.as_str());
    assert_eq!(value["images"][1]["labels"][LABEL], "test");

    // Into a file of ours.
    let ours = NamespacedFile::open(&home.join("ours.db"), &writing()).unwrap();
    let report = ours.import(&path, None, Some(Duration::ZERO)).unwrap();
    assert_eq!((report.imported.len(), report.problems.len()), (3, 0), "{report:?}");
    assert_eq!(ours.get("default", NAME).unwrap(), image);
    assert_eq!(fs::read(&path).unwrap(), content, "reading has changed nothing");

    // It goes on with a file that the library has changed.
    let writer = NamespacedFile::open(&path, &writing()).unwrap();
    let mut new = NamespacedImage { name: "docker.io/library/new:1".to_owned(), ..image.clone() };
    new.labels.insert("added".to_owned(), "yes".to_owned());
    new.labels.remove(LABEL);
    writer.create("default", &new).unwrap();
    writer.delete("k8s.io", NAME, Some(&image.target.digest)).unwrap();
    drop(writer);
    let daemon = Daemon::start(home);
    let mut expected = said[0].clone();
    let (kind, digest) = (image.target.media_type.clone(), image.target.digest.clone());
    expected.insert(new.name.clone(), (kind, digest, "added=yes".to_owned()));
    assert_eq!(daemon.images("default"), expected);
    assert_eq!(daemon.images("k8s.io"), BTreeMap::new());
    assert!(daemon.ctr("default", ["images", "check"]).contains("complete"));
    daemon.ctr("default", ["images", "rm", &new.name]);
    daemon.ctr("default", ["images", "tag", NAME, "docker.io/library/third:1"]);
    daemon.stop();
    let file = NamespacedFile::open(&path, &reading()).unwrap();
    let names: Vec<String> = all(&file, "default").into_iter().map(|image| image.name).collect();
    assert_eq!(names, ["docker.io/library/bb:other", "docker.io/library/third:1", NAME]);
}

#[test]
fn a_containerd_lists_the_images_of_a_file_that_the_library_made() {
    if !is_there() {
        return;
    }
    let root = TestRoot::in_memory("containerd");
    let home = root.path();
    let path = meta_db(home);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let file = NamespacedFile::open(&path, &writing()).unwrap();
    let mut expected = Vec::new();
    // Enough for branches and pages of every kind.
    for number in 0..300u16 {
        let image = NamespacedImage {
            name: format!("docker.io/library/image{number}:1"),
            target: Target {
                media_type: "application/vnd.oci.image.manifest.v1+json".to_owned(),
                digest: format!("sha256:{number:064x}"),
                size: i64::from(number) + 1,
            },
            labels: [("number".to_owned(), number.to_string())].into(),
            ..NamespacedImage::default()
        };
        expected.push(file.create("ours", &image).unwrap());
    }
    expected.sort_by(|a, b| a.name.cmp(&b.name));
    drop(file);
    let daemon = Daemon::start(home);
    assert_eq!(daemon.images("ours"), as_ctr_says(&expected));
    let first = &expected[0].name;
    daemon.ctr("ours", ["images", "label", first, "seen=yes"]);
    for image in &expected[1..100] {
        daemon.ctr("ours", ["images", "rm", &image.name]);
    }
    daemon.stop();

    let file = NamespacedFile::open(&path, &writing()).unwrap();
    let first = file.get("ours", first).unwrap();
    assert_eq!(first.labels["seen"], "yes");
    assert_eq!(first.created, expected[0].created);
    assert!(first.updated > expected[0].updated);
    assert_eq!(all(&file, "ours")[1..], expected[100..]);
    // And it can be written again.
    file.delete("ours", &first.name, Some(&first.target.digest)).unwrap();
}
