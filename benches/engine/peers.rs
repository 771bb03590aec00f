// SPDX-License-Identifier: MulanPSL-2.0
//! Other storages that are installed here, each with a root of its own on the disk of the bench. Their daemons are started for
//! each measurement and ended after it; their start does not count.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::cost::{self, Cost};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    ContainersStorage,
    Umoci,
    Containerd,
    Docker,
}

pub(crate) fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).exists())
}

impl Peer {
    pub(crate) fn installed() -> Vec<Peer> {
        let all = [
            (Peer::ContainersStorage, ["skopeo", "skopeo"]),
            (Peer::Umoci, ["umoci", "umoci"]),
            (Peer::Containerd, ["containerd", "ctr"]),
            (Peer::Docker, ["dockerd", "docker"]),
        ];
        all.into_iter()
            .filter(|(_, programs)| programs.iter().all(|program| has(program)))
            .map(|(peer, _)| peer)
            .collect()
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Peer::ContainersStorage => "containers/storage (skopeo)",
            Peer::Umoci => "umoci unpack",
            Peer::Containerd => "containerd import",
            Peer::Docker => "dockerd load",
        }
    }

    pub(crate) fn measure(self, image: &Path, disk: &Path) -> Cost {
        let home = disk.join("peer");
        for dir in ["root", "run", "tmp"] {
            std::fs::create_dir_all(home.join(dir)).unwrap();
        }
        let cost = self.run(image, &home);
        // What a daemon leaves mounted.
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        for mount in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)) {
            if Path::new(mount).starts_with(&home) {
                crate::run(Command::new("umount").args(["-l", mount]));
            }
        }
        std::fs::remove_dir_all(&home).unwrap();
        cost
    }

    fn run(self, image: &Path, home: &Path) -> Cost {
        let (root, run, tmp) = (home.join("root"), home.join("run"), home.join("tmp"));
        let at = |path: &Path| path.display().to_string();
        let layout = at(&image.join("layout"));
        let program = |name: &str, args: &[String]| {
            let mut all: Vec<String> = vec![format!("TMPDIR={}", at(&tmp)), name.to_owned()];
            all.extend_from_slice(args);
            let all: Vec<&std::ffi::OsStr> = all.iter().map(|arg| arg.as_ref()).collect();
            Cost::of_program(Path::new("/usr/bin/env"), &all)
        };
        match self {
            Peer::ContainersStorage => {
                let to = format!("containers-storage:[overlay@{}+{}]localhost/bench:1", at(&root), at(&run));
                program(
                    "skopeo",
                    &["--insecure-policy", "copy", "-q", &format!("oci:{layout}:bench"), &to]
                        .map(str::to_owned),
                )
            }
            Peer::Umoci => {
                let to = at(&root.join("bundle"));
                program("umoci", &["unpack", "--image", &format!("{layout}:bench"), &to].map(str::to_owned))
            }
            Peer::Containerd => {
                let (socket, config) = (at(&run.join("socket")), home.join("config.toml"));
                std::fs::write(&config, "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n")
                    .unwrap();
                let mut daemon = Command::new("containerd");
                daemon
                    .arg("--config")
                    .arg(&config)
                    .arg("--root")
                    .arg(&root)
                    .arg("--state")
                    .arg(run.join("state"));
                let daemon = Daemon::start(daemon.args(["--address", &socket]), &tmp, &run.join("socket"));
                let tar = at(&image.join("oci.tar"));
                daemon.with(|| {
                    program(
                        "ctr",
                        &["-a", &socket, "-n", "bench", "images", "import", &tar].map(str::to_owned),
                    )
                })
            }
            Peer::Docker => {
                let socket = format!("unix://{}", at(&run.join("socket")));
                let mut daemon = Command::new("dockerd");
                daemon.args([
                    "-H",
                    &socket,
                    "--bridge=none",
                    "--iptables=false",
                    "--storage-driver=overlay2",
                ]);
                daemon.arg("--data-root").arg(&root).arg("--exec-root").arg(run.join("exec"));
                daemon.arg("--pidfile").arg(run.join("pid"));
                let daemon = Daemon::start(&mut daemon, &tmp, &run.join("socket"));
                let tar = at(&image.join("docker.tar"));
                daemon
                    .with(|| program("docker", &["-H", &socket, "load", "-q", "-i", &tar].map(str::to_owned)))
            }
        }
    }
}

/// A daemon that ends with this.
struct Daemon(Child);

impl Daemon {
    fn start(command: &mut Command, tmp: &Path, socket: &PathBuf) -> Daemon {
        let log = std::fs::File::create(tmp.join("log")).unwrap();
        command.env("TMPDIR", tmp).stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut daemon = Daemon(command.spawn().unwrap());
        let start = Instant::now();
        while std::os::unix::net::UnixStream::connect(socket).is_err() {
            let ended = daemon.0.try_wait().unwrap();
            let late = start.elapsed() > Duration::from_secs(60);
            if ended.is_some() || late {
                panic!("{command:?}: {}", std::fs::read_to_string(tmp.join("log")).unwrap());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        daemon
    }

    /// The cost of a client's call with what the daemon does meanwhile.
    fn with(&self, call: impl FnOnce() -> Cost) -> Cost {
        let pid = self.0.id();
        let before = cost::cpu_of(pid);
        let client = call();
        let cpu = client.cpu + cost::cpu_of(pid) - before;
        Cost { cpu, peak_kib: client.peak_kib.max(cost::peak_kib_of(pid)), ..client }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        if let Err(errno) = rustix::process::kill_process(pid, rustix::process::Signal::TERM) {
            eprintln!("end a daemon: {errno}");
        }
        let start = Instant::now();
        while self.0.try_wait().is_ok_and(|ended| ended.is_none()) {
            if start.elapsed() > Duration::from_secs(20) {
                drop(self.0.kill());
                drop(self.0.wait());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
