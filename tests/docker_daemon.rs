// SPDX-License-Identifier: MulanPSL-2.0
//! A real Docker daemon: what it wrote is read, and what is written here it takes for its own.
//!
//! The daemon has a data directory, a socket and a containerd of its own, touches neither network nor the system's
//! directories, and is ended by its process id. Debian's package is `docker.io`.
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
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{TestRoot, need_root};
use isula_storage::digest::Digest;
use isula_storage::imagedb::{DockerLayers, ImageDb, ImageDbOptions};
use isula_storage::storage::{Durability, Ownership};
use isula_storage::time::Timestamp;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};

/// How long the daemon may take to start, to answer and to end.
const PATIENCE: Duration = Duration::from_secs(120);

fn has_docker() -> bool {
    let there = Command::new("dockerd").arg("--version").stdout(Stdio::null()).status().is_ok();
    if !there {
        assert!(std::env::var_os("CI").is_none(), "dockerd (Debian: docker.io) is needed here");
        eprintln!("skipped: needs dockerd");
    }
    there
}

/// Tries until it is so.
fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The directory for plugins that every daemon makes, and whether there was none.
struct Plugins {
    made: bool,
}

impl Plugins {
    const PATH: &str = "/run/docker";

    fn look() -> Plugins {
        Plugins { made: !Path::new(Plugins::PATH).exists() }
    }
}

impl Drop for Plugins {
    fn drop(&mut self) {
        if self.made {
            // Only if they are empty.
            for dir in [format!("{}/plugins", Plugins::PATH), Plugins::PATH.to_owned()] {
                if let Err(error) = fs::remove_dir(&dir) {
                    eprintln!("remove {dir}: {error}");
                }
            }
        }
    }
}

/// A running daemon.
struct Daemon {
    child: Child,
    root: PathBuf,
}

impl Daemon {
    fn start(root: &Path) -> Daemon {
        let at = |name: &str| root.join(name).display().to_string();
        // Its key would else be made in /etc/docker.
        fs::write(at("config.json"), json!({ "deprecated-key-path": at("key.json") }).to_string()).unwrap();
        let log = fs::OpenOptions::new().create(true).append(true).open(at("log")).unwrap();
        let mut command = Command::new("dockerd");
        command.args(["--data-root", &at("data"), "--exec-root", &at("exec"), "--pidfile", &at("pid")]);
        command.args(["--config-file", &at("config.json"), "--host", &format!("unix://{}", at("socket"))]);
        command.args(["--iptables=false", "--ip6tables=false", "--bridge=none"]);
        command.args(["--storage-driver=overlay2", "--log-level=warn"]);
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut daemon = Daemon { child: command.spawn().unwrap(), root: root.to_owned() };
        let start = Instant::now();
        while daemon.try_call("GET", "/_ping", b"").is_none() {
            let ended = daemon.child.try_wait().unwrap();
            let log = fs::read_to_string(root.join("log")).unwrap_or_default();
            assert!(ended.is_none(), "dockerd ended: {ended:?}\n{log}");
            assert!(start.elapsed() < PATIENCE, "dockerd does not answer\n{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
        daemon
    }

    /// Status and body of an answer; `None` while nobody listens.
    fn try_call(&self, method: &str, path: &str, body: &[u8]) -> Option<(u32, Vec<u8>)> {
        let mut stream = UnixStream::connect(self.root.join("socket")).ok()?;
        let kind = if path.starts_with("/images/load") { "application/x-tar" } else { "application/json" };
        // 1.0: the answer ends with the connection.
        let head = format!(
            "{method} {path} HTTP/1.0\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).ok()?;
        stream.write_all(body).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
        let status = std::str::from_utf8(&answer[..end]).ok()?.split(' ').nth(1)?.parse().ok()?;
        Some((status, answer[end + 4..].to_vec()))
    }

    /// A call that has to succeed.
    fn call(&self, method: &str, path: &str, body: &[u8]) -> Value {
        let (status, answer) = self.try_call(method, path, body).expect(path);
        let text = String::from_utf8_lossy(&answer);
        assert!((200..300).contains(&status), "{method} {path}: {status} {text}");
        serde_json::from_str(&text).unwrap_or(Value::Null)
    }

    fn load(&self, image: &str) {
        let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/images").join(image);
        let (status, answer) = self.try_call("POST", "/images/load", &fs::read(archive).unwrap()).unwrap();
        let text = String::from_utf8_lossy(&answer);
        assert!(status == 200 && text.contains("Loaded image"), "{status} {text}");
    }

    /// Makes an image of a container that was never started.
    fn commit(&self, container: &str, from: &str, to: &str) -> Digest {
        let body = json!({ "Image": from }).to_string();
        self.call("POST", &format!("/containers/create?name={container}"), body.as_bytes());
        let made =
            self.call("POST", &format!("/commit?container={container}&repo={to}&tag=v1&comment=made"), b"{}");
        self.call("DELETE", &format!("/containers/{container}"), b"");
        Digest::parse(made["Id"].as_str().unwrap()).unwrap()
    }

    fn images(&self) -> Vec<Value> {
        self.call("GET", "/images/json?all=1", b"").as_array().unwrap().clone()
    }

    fn inspect(&self, name: &str) -> Value {
        self.call("GET", &format!("/images/{name}/json"), b"")
    }

    /// Ends it and waits until it, and the containerd that it has started, are gone.
    fn stop(&mut self) {
        let ours = |pid: Pid| {
            let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&self.root.display().to_string())
        };
        let containerd = fs::read_to_string(self.root.join("exec/containerd/containerd.pid"));
        let containerd = containerd.ok().and_then(|text| Pid::from_raw(text.trim().parse().ok()?));
        let daemon = Pid::from_child(&self.child);
        let ended = kill_process(daemon, Signal::TERM).is_ok() && {
            let start = Instant::now();
            loop {
                match self.child.try_wait() {
                    Ok(None) if start.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(50)),
                    Ok(None) => break false,
                    _ => break true,
                }
            }
        };
        if !ended {
            eprintln!("dockerd does not end: {:?}", self.child.kill().and_then(|()| self.child.wait()));
        }
        if let Some(pid) = containerd.filter(|pid| ours(*pid)) {
            eprintln!("containerd is left over: {:?}", kill_process(pid, Signal::KILL));
            wait_for("containerd ends", || test_kill_process(pid).is_err() || !ours(pid));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            self.stop();
        }
    }
}

fn open(root: &Path, ownership: Ownership) -> (ImageDb, Arc<DockerLayers>) {
    let root = root.join("data/image/overlay2");
    let layers = Arc::new(DockerLayers::open(&root).unwrap());
    let options = ImageDbOptions { root, ownership, durability: Durability::Full, layers: layers.clone() };
    let db = ImageDb::open(options).unwrap();
    assert_eq!(db.problems(), []);
    (db, layers)
}

fn texts(value: &Value) -> Vec<String> {
    let mut texts: Vec<String> = value
        .as_array()
        .map(|all| all.iter().map(|text| text.as_str().unwrap().to_owned()).collect())
        .unwrap_or_default();
    texts.sort();
    texts
}

/// Everything that the daemon said of its images is what the library says.
fn same_as_daemon(db: &ImageDb, layers: &DockerLayers, root: &Path, told: &[Value], details: &[Value]) {
    let images = db.map();
    assert_eq!(images.len(), told.len());
    for (told, detail) in told.iter().zip(details) {
        let id = Digest::parse(told["Id"].as_str().unwrap()).unwrap();
        let (image, bytes) = db.get_with_bytes(&id).unwrap();
        assert_eq!(Digest::of(&bytes), id);
        assert!(images.contains(&image));
        assert_eq!(
            image.parent.map(|id| id.to_string()).unwrap_or_default(),
            told["ParentId"].as_str().unwrap()
        );
        let mut names = [texts(&detail["RepoTags"]), texts(&detail["RepoDigests"])].concat();
        names.sort();
        assert_eq!(db.names(&id), names);
        let diff_ids: Vec<_> = image.config.diff_ids.iter().map(Digest::to_string).collect();
        let wanted: Vec<_> =
            detail["RootFS"]["Layers"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
        assert_eq!(diff_ids, wanted);
        // The daemon shows that of the last step where the image has none.
        let last = image.config.history.last().and_then(|entry| entry.comment.clone());
        let comment = image.config.comment.clone().or(last).unwrap_or_default();
        assert_eq!(comment, detail["Comment"].as_str().unwrap());
        assert_eq!(image.config.architecture.as_deref(), detail["Architecture"].as_str());
        assert_eq!(image.config.created.as_deref(), detail["Created"].as_str());
        let tagged = db.last_updated(&id).unwrap();
        let told_time =
            Timestamp::parse_rfc3339(detail["Metadata"]["LastTagTime"].as_str().unwrap()).unwrap();
        assert!(tagged == Some(told_time) || (tagged.is_none() && told_time.seconds < 0));
        // The layer, and its place in the graph driver.
        let layer = layers.get(&image.config.chain_id.unwrap()).unwrap();
        assert_eq!(layer.size, told["Size"].as_u64().unwrap());
        let place = root.join("data/overlay2").join(&layer.cache_id).join("diff");
        assert_eq!(detail["GraphDriver"]["Data"]["UpperDir"].as_str().unwrap(), place.to_str().unwrap());
        assert!(place.is_dir());
        assert_eq!(db.search(&id.hex()[..12]).unwrap(), id);
        assert_eq!(db.search(&id.to_string()[..20]).unwrap(), id);
        let children: Vec<_> =
            told_children(&id, told_list(details)).into_iter().map(|id| id.to_string()).collect();
        assert_eq!(db.children(&id).iter().map(Digest::to_string).collect::<Vec<_>>(), children);
    }
}

fn told_list(details: &[Value]) -> Vec<(Digest, String)> {
    let pair = |detail: &Value| {
        (
            Digest::parse(detail["Id"].as_str().unwrap()).unwrap(),
            detail["Parent"].as_str().unwrap().to_owned(),
        )
    };
    details.iter().map(pair).collect()
}

fn told_children(id: &Digest, list: Vec<(Digest, String)>) -> Vec<Digest> {
    let mut children: Vec<_> =
        list.into_iter().filter(|(_, parent)| *parent == id.to_string()).map(|(child, _)| child).collect();
    children.sort_unstable();
    children
}

#[test]
fn a_real_daemon_and_the_library_read_what_the_other_wrote() {
    if !need_root() || !has_docker() {
        return;
    }
    let _plugins = Plugins::look();
    let place = TestRoot::in_memory("docker");
    let root = place.path();
    let mut daemon = Daemon::start(root);
    daemon.load("bb.tar.gz");
    daemon.load("opq.tar.gz");
    let child = daemon.commit("one", "localhost/bb:v1", "localhost/child");
    let grandchild = daemon.commit("two", "localhost/child:v1", "localhost/grandchild");
    daemon.call("POST", "/images/localhost/child:v1/tag?repo=busybox&tag=w", b"");
    let told = daemon.images();
    let details: Vec<_> = told.iter().map(|image| daemon.inspect(image["Id"].as_str().unwrap())).collect();
    assert_eq!(told.len(), 4);
    daemon.stop();

    // What it wrote is read, and reading changes nothing.
    let (db, layers) = open(root, Ownership::ReadOnly);
    same_as_daemon(&db, &layers, root, &told, &details);
    let id = |name: &str| db.by_name(name).unwrap();
    let (bb, opq) = (id("localhost/bb:v1"), id("docker.io/localhost/opq:v1"));
    assert_eq!((id("library/busybox:w"), id("localhost/grandchild:v1")), (child, grandchild));
    let mut heads: Vec<_> = db.heads().into_iter().map(|image| image.id).collect();
    heads.sort_unstable();
    let mut wanted = vec![opq, grandchild];
    wanted.sort_unstable();
    assert_eq!(heads, wanted);
    let config = db.get_with_bytes(&bb).unwrap().1;
    db.close();
    assert!(!root.join("data/image/overlay2/.isula-storage").exists());

    // An image, a parent, names and times of ours; a deletion; a parent and a name that move.
    let (db, layers) = open(root, Ownership::Owner);
    same_as_daemon(&db, &layers, root, &told, &details);
    let mut document: Value = serde_json::from_slice(&config).unwrap();
    document["comment"] = json!("made by the library");
    let config = document.to_string();
    let ours = db.create(config.as_bytes()).unwrap();
    db.set_parent(&ours, &child).unwrap();
    db.set_parent(&grandchild, &ours).unwrap();
    db.add_name("localhost/ours:v1", &ours, false).unwrap();
    db.add_name(&format!("localhost/ours@{}", Digest::of(b"manifest")), &ours, false).unwrap();
    db.add_name("busybox:w", &bb, true).unwrap();
    db.set_last_updated(&ours).unwrap();
    db.set_built_locally(&ours).unwrap();
    let tagged = db.last_updated(&ours).unwrap().unwrap();
    db.delete_name("localhost/opq:v1").unwrap();
    assert_eq!(db.delete(&opq).unwrap(), []);
    db.close();

    let mut daemon = Daemon::start(root);
    let told = daemon.images();
    let mut ids: Vec<_> = told.iter().map(|image| image["Id"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    let mut wanted = [bb, child, grandchild, ours].map(|id| id.to_string()).to_vec();
    wanted.sort();
    assert_eq!(ids, wanted);
    let detail = daemon.inspect("localhost/ours:v1");
    assert_eq!(detail["Id"], json!(ours.to_string()));
    assert_eq!(
        (&detail["Parent"], &detail["Comment"]),
        (&json!(child.to_string()), &json!("made by the library"))
    );
    assert_eq!(texts(&detail["RepoTags"]), ["localhost/ours:v1"]);
    assert_eq!(texts(&detail["RepoDigests"]), [format!("localhost/ours@{}", Digest::of(b"manifest"))]);
    let time = detail["Metadata"]["LastTagTime"].as_str().unwrap();
    assert_eq!(Timestamp::parse_rfc3339(time).unwrap(), tagged);
    assert_eq!(daemon.inspect("localhost/grandchild:v1")["Parent"], json!(ours.to_string()));
    assert_eq!(daemon.inspect("busybox:w")["Id"], json!(bb.to_string()));
    assert_eq!(daemon.inspect(&ours.hex()[..12])["Id"], json!(ours.to_string()));
    assert_eq!(daemon.try_call("GET", "/images/localhost/opq:v1/json", b"").unwrap().0, 404);
    // It works with ours as with its own: containers, children, names, deletion.
    let made = daemon.commit("three", "localhost/ours:v1", "localhost/ofours");
    assert_eq!(daemon.inspect("localhost/ofours:v1")["Parent"], json!(ours.to_string()));
    let (status, answer) = daemon.try_call("DELETE", "/images/localhost/grandchild:v1", b"").unwrap();
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
    // What was deleted here can be loaded again.
    daemon.load("opq.tar.gz");
    let told = daemon.images();
    let details: Vec<_> = told.iter().map(|image| daemon.inspect(image["Id"].as_str().unwrap())).collect();
    daemon.stop();
    let log = fs::read_to_string(root.join("log")).unwrap();
    let errors: Vec<_> =
        log.lines().filter(|line| line.contains("level=error") || line.contains("nvalid image")).collect();
    assert!(errors.is_empty(), "{errors:#?}");

    let (db, layers) = open(root, Ownership::Owner);
    assert_eq!((db.by_name("localhost/opq:v1").unwrap(), db.exists(&made)), (opq, true));
    // The daemon removes an untagged parent with its last child: what is left, both agree on.
    same_as_daemon(&db, &layers, root, &told, &details);
    db.close();
}
