// SPDX-License-Identifier: MulanPSL-2.0
//! Booting the machine.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// Status of `run-in-vm` when the machine did not start, or ended before the command did.
const NO_MACHINE: i32 = 125;

/// A machine for one group of scenarios.
pub struct Machine {
    group: &'static str,
    disks: Vec<String>,
    shares: Vec<PathBuf>,
    udev: bool,
    variables: Vec<(String, String)>,
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vm/run-in-vm")
}

/// What the machine needs is installed as far as that is possible. `false`: it cannot be used here, and that is no failure.
pub fn is_ready() -> bool {
    static READY: OnceLock<Result<(), String>> = OnceLock::new();
    let ready = READY.get_or_init(|| {
        let is_root = rustix::process::geteuid().is_root();
        let mut command = Command::new(script());
        // Anybody may use what is installed; root installs the rest.
        command.args(if is_root { &["-u", "--install"][..] } else { &["true"] });
        let output = command.stdin(Stdio::null()).output().map_err(|error| format!("run-in-vm: {error}"))?;
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        if output.status.success() { Ok(()) } else { Err(said) }
    });
    match ready {
        Ok(()) => true,
        Err(why) => {
            assert!(
                std::env::var_os("CI").is_none(),
                "the virtual machine cannot be used, and must be: {why}"
            );
            eprintln!("skipped: the virtual machine cannot be used: {why}");
            false
        }
    }
}

impl Machine {
    pub fn new(group: &'static str) -> Machine {
        Machine { group, disks: Vec::new(), shares: Vec::new(), udev: false, variables: Vec::new() }
    }

    /// A disk of this size that is thrown away, or an image file, which keeps what is written.
    pub fn disk(mut self, disk: &str) -> Machine {
        self.disks.push(disk.to_owned());
        self
    }

    /// A directory of this side that programs in the machine need.
    pub fn share(mut self, dir: &Path) -> Machine {
        self.shares.push(dir.to_owned());
        self
    }

    pub fn with_udev(mut self) -> Machine {
        self.udev = true;
        self
    }

    pub fn variable(mut self, name: &str, value: &str) -> Machine {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Runs the group, which has to pass.
    pub fn run(self) {
        let group = self.group;
        if is_inside() || !is_ready() {
            return;
        }
        let status = self.boot(&mut |_| ());
        assert_eq!(status, 0, "group {group} failed in the virtual machine (its output is above)");
    }

    /// Runs the group; its exit status. Power cuts give `None`.
    pub fn run_until_cut(self) -> Option<i32> {
        self.run_and_listen(&mut |_| ())
    }

    /// The same; hears every line of output.
    pub fn run_and_listen(self, heard: &mut dyn FnMut(&str)) -> Option<i32> {
        Some(self.boot(heard)).filter(|status| *status != NO_MACHINE)
    }

    fn boot(self, heard: &mut dyn FnMut(&str)) -> i32 {
        let program = std::env::current_exe().unwrap();
        let mut command = Command::new(script());
        if self.udev {
            command.arg("-u");
        }
        for disk in &self.disks {
            command.args(["-d", disk]);
        }
        let mut needed: Vec<&Path> =
            vec![&program, Path::new(env!("CARGO_MANIFEST_DIR")), Path::new(super::scene::TOOL)];
        needed.extend(self.shares.iter().map(PathBuf::as_path));
        for path in covered(&needed) {
            command.arg("-s").arg(path);
        }
        command.arg("--").arg(&program).args(["guest", "--exact", "--nocapture", "--test-threads=1"]);
        command.env("VM_GUEST", self.group).env("RUST_BACKTRACE", "0").envs(self.variables);
        command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        for line in output.split(b'\n') {
            // Not through print!, which keeps it for tests that fail.
            let mut line = line.unwrap();
            heard(&String::from_utf8_lossy(&line));
            line.push(b'\n');
            std::io::stdout().write_all(&line).unwrap();
        }
        child.wait().unwrap().code().unwrap_or(NO_MACHINE)
    }
}

/// Whether this is the machine.
pub fn is_inside() -> bool {
    std::env::var_os("RUN_IN_VM").is_some()
}

/// Directories of these that lie where the machine has its own.
fn covered(paths: &[&Path]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in paths {
        let is_covered = ["/tmp", "/run", "/dev"].iter().any(|own| path.starts_with(own));
        let dir = if path.is_dir() { path } else { path.parent().unwrap() };
        if is_covered && !found.iter().any(|known: &PathBuf| dir.starts_with(known)) {
            found.push(dir.to_owned());
        }
    }
    found
}
