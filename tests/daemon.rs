// SPDX-License-Identifier: MulanPSL-2.0
//! The programs `c_tests/daemon_*.c` play iSulad's daemon on top of the library: every command in the order of calls
//! that iSulad makes, on fresh stores and on stores that iSulad left, in one thread and in many, with kills.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod archive_common;
mod c_support;
mod common;
mod daemon_support;
#[allow(dead_code, unreachable_pub, reason = "only the archives are used")]
#[path = "cli_support/images.rs"]
mod images;

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use c_support::{Program, Scratch, VALGRIND, needs_root, run};
use daemon_support::{unpack_golden, write_bundles};

const SANITIZE: [&str; 2] = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"];

/// The bundles and one program in its two builds.
struct Bed {
    dir: Scratch,
    plain: PathBuf,
    sanitized: PathBuf,
}

impl Bed {
    fn new(sources: &'static [&'static str]) -> Bed {
        let dir = Scratch::new();
        write_bundles(dir.path());
        let program = Program { sources, flags: &["-D_DEFAULT_SOURCE"] };
        let plain = program.compile(dir.path(), "", &[]);
        let sanitized = program.compile(dir.path(), "-sanitized", &SANITIZE);
        Bed { dir, plain, sanitized }
    }

    /// Runs the program plain, sanitized and under valgrind, each on a store of its own that `prepare` has set up.
    fn check(&self, driver: &str, more: &[&str], prepare: impl Fn(&Path, &Path)) {
        let valgrind: Vec<&str> = VALGRIND.into();
        for (wrapper, program) in [(&[][..], &self.plain), (&[], &self.sanitized), (&valgrind, &self.plain)] {
            let place = Scratch::new();
            let (graph, state) = (place.path().join("graph"), place.path().join("state"));
            prepare(&graph, &state);
            let mut words: Vec<PathBuf> = wrapper.iter().map(PathBuf::from).collect();
            words.push(program.clone());
            let mut command = Command::new(words.remove(0));
            command.args(words).arg(graph).arg(state).arg(driver).arg(self.dir.path()).args(more);
            run(&mut command);
        }
    }
}

fn fresh(_graph: &Path, _state: &Path) {}

#[test]
fn a_daemon_lives_on_plain_copies() {
    Bed::new(&["daemon_life.c", "daemon.c", "daemon_parts.c"]).check("vfs", &[], fresh);
}

#[test]
fn a_daemon_lives_on_overlay() {
    if needs_root() {
        let bed = Bed::new(&["daemon_life.c", "daemon.c", "daemon_parts.c"]);
        bed.check("overlay2", &[], fresh);
        bed.check("overlay", &[], |graph, state| unpack_golden("fresh", graph, state));
    }
}

#[test]
fn a_daemon_goes_on_with_the_stores_of_isulad() {
    if needs_root() {
        let bed = Bed::new(&["daemon_golden.c", "daemon.c", "daemon_parts.c"]);
        for tree in ["running", "imported"] {
            bed.check("overlay2", &[tree], |graph, state| unpack_golden(tree, graph, state));
        }
    }
}

const THREADS: &[&str] = &["daemon_threads.c", "daemon.c", "daemon_parts.c"];

#[test]
fn many_use_a_daemon_on_plain_copies() {
    Bed::new(THREADS).check("vfs", &["8", "4"], fresh);
}

#[test]
fn many_use_a_daemon_on_overlay() {
    if needs_root() {
        let bed = Bed::new(THREADS);
        bed.check("overlay2", &["2", "6"], fresh);
        for tree in ["fresh", "running", "imported"] {
            bed.check("overlay2", &["8", "4"], |graph, state| unpack_golden(tree, graph, state));
        }
    }
}

/// The calls that change a store: between any two of them it can be found by the next start.
const CHANGES: [&str; 10] = [
    "renameat",
    "renameat2",
    "mkdirat",
    "unlinkat",
    "symlinkat",
    "fsync",
    "syncfs",
    "mount",
    "umount2",
    "move_mount",
];

/// Kills the daemon at calls of each kind, ever farther apart, and lets another start after it.
/// `kept` are files of the storage that were there before and have to stay.
fn kill(driver: &str, farther: usize, kept: &[&str], prepare: impl Fn(&Path, &Path)) {
    let dir = Scratch::new();
    write_bundles(dir.path());
    let program =
        Program { sources: &["daemon_crash.c", "daemon.c", "daemon_parts.c"], flags: &["-D_DEFAULT_SOURCE"] };
    let program = program.compile(dir.path(), "", &[]);
    let mut kills = 0;
    for call in CHANGES {
        let mut n = 1;
        loop {
            let place = Scratch::new();
            prepare(&place.path().join("graph"), &place.path().join("state"));
            let arguments = |command: &mut Command, what: &str| {
                command.arg(place.path().join("graph")).arg(place.path().join("state")).arg(driver);
                command.arg(dir.path()).arg(what).arg(place.path().join("notes"));
            };
            let mut strace = Command::new("strace");
            strace.args(["-f", "-qq", "-o", "/dev/null"]);
            strace
                .arg(format!("--trace={call}"))
                .arg(format!("--inject={call}:signal=KILL:when={n}"))
                .arg(&program);
            arguments(&mut strace, "run");
            let output = strace.output().unwrap();
            let mut check = Command::new(&program);
            arguments(&mut check, "check");
            eprintln!("killed at {call} {n}: {}", output.status);
            run(&mut check);
            for file in kept {
                assert!(place.path().join("graph/storage").join(file).exists(), "{file}");
            }
            if output.status.success() {
                break;
            }
            assert_eq!(output.status.signal(), Some(9), "{}", String::from_utf8_lossy(&output.stderr));
            kills += 1;
            n += 1 + n * farther / 4;
        }
    }
    assert!(kills > 20, "only {kills} kills");
}

#[test]
fn a_killed_daemon_has_lost_nothing_on_plain_copies() {
    kill("vfs", 1, &[], fresh);
}

#[test]
fn a_killed_daemon_has_lost_nothing_on_overlay() {
    if needs_root() {
        kill("overlay2", 1, &[], fresh);
        let kept = [
            "overlay/5bdedd739ff4704de65820ae9a5f93f63a0cf3869b70eee5531db7a63486ecf5/diff/root/w",
            "overlay-containers/5bdedd739ff4704de65820ae9a5f93f63a0cf3869b70eee5531db7a63486ecf5/container.json",
            "overlay-images/11ecebd34f10939e545d04d93fb8d09ac0c252c3c1e4bcf55a34694d2bcd5142/images.json",
        ];
        kill("overlay2", 8, &kept, |graph, state| unpack_golden("running", graph, state));
    }
}
