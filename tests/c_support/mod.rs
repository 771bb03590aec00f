// SPDX-License-Identifier: MulanPSL-2.0
//! Programs in C that use the library that was built for the test: compiled, and run plain, under valgrind and with
//! sanitizers.

#![allow(dead_code, unreachable_pub, reason = "not every test program uses all of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

pub const WARNINGS: [&str; 4] = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"];
/// Not "possibly lost": Rust keeps pointers into the middle of counted values, such as the handle of a thread.
pub const VALGRIND: [&str; 8] = [
    "valgrind",
    concat!("--suppressions=", env!("CARGO_MANIFEST_DIR"), "/c_tests/valgrind.supp"),
    // Else a thread that computes keeps valgrind's one lock from another that waits for it, for minutes.
    "--fair-sched=try",
    "--quiet",
    "--leak-check=full",
    "--show-leak-kinds=definite,indirect",
    "--errors-for-leak-kinds=definite,indirect",
    "--error-exitcode=99",
];

pub fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Directory of the shared library: cargo puts it beside this test.
pub fn built() -> PathBuf {
    let dir = std::env::current_exe().unwrap().parent().unwrap().to_path_buf();
    assert!(dir.join("libisula_storage.so").exists(), "no libisula_storage.so beside this test");
    dir
}

/// A directory with the library under the name that programs ask for.
pub fn library() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("lib");
        fs::create_dir_all(&dir).unwrap();
        for name in ["libisula_storage.so", "libisula_storage.so.0"] {
            let link = dir.join(name);
            if fs::symlink_metadata(&link).is_ok() {
                fs::remove_file(&link).unwrap();
            }
            symlink(built().join("libisula_storage.so"), link).unwrap();
        }
        dir
    })
}

/// Runs a command and gives what it printed; anything but exit code 0 fails the test.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{text}{errors}", output.status);
    text
}

/// Whether this is root; if not, the test is skipped, which fails where everything has to run.
pub fn needs_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        assert!(std::env::var_os("CI").is_none(), "needs root");
        eprintln!("skipped: needs root");
    }
    root
}

/// A directory for the stores of one run; what they left mounted is unmounted, whatever became of the run.
pub struct Scratch(tempfile::TempDir);

impl Scratch {
    pub fn new() -> Self {
        // Memory where there is any: what is tested here is not the disk.
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
        Scratch(dir.unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
        let ours: Vec<&str> = points.filter(|point| Path::new(point).starts_with(self.path())).collect();
        for point in ours.into_iter().rev() {
            let _unmounted = rustix::mount::unmount(point, rustix::mount::UnmountFlags::DETACH);
        }
    }
}

/// One program of `c_tests/`: its first source names it.
pub struct Program {
    pub sources: &'static [&'static str],
    pub flags: &'static [&'static str],
}

impl Program {
    pub fn new(sources: &'static [&'static str]) -> Self {
        Program { sources, flags: &[] }
    }

    pub fn compile(&self, dir: &Path, variant: &str, extra: &[&str]) -> PathBuf {
        self.compile_with(library(), dir, variant, extra)
    }

    /// With the library in this directory instead of the one of the tests.
    pub fn compile_with(&self, library: &Path, dir: &Path, variant: &str, extra: &[&str]) -> PathBuf {
        let name = self.sources[0].split('.').next().unwrap();
        let program = dir.join(format!("{name}{variant}"));
        let cplusplus = self.sources[0].ends_with(".cpp");
        let mut compiler = Command::new(if cplusplus { "g++" } else { "gcc" });
        compiler.arg(if cplusplus { "-std=c++17" } else { "-std=c11" });
        compiler.args(WARNINGS).args(["-g", "-D_POSIX_C_SOURCE=200809L", "-rdynamic"]);
        compiler.arg(format!("-DEXPECTED_VERSION=\"{}\"", env!("CARGO_PKG_VERSION")));
        if cfg!(feature = "remote-layer-store") {
            compiler.arg("-DENABLE_REMOTE_LAYER_STORE");
        }
        compiler.arg("-I").arg(source("include")).arg("-I").arg(source("src/ffi"));
        compiler.arg("-I").arg(source("c_tests/libisula")).arg("-I").arg(source("c_tests/isulad"));
        compiler.args(self.flags).args(extra);
        compiler.args(self.sources.iter().map(|name| source("c_tests").join(name)));
        compiler.arg("-o").arg(&program);
        compiler.arg("-L").arg(library).arg(format!("-Wl,-rpath,{}", library.display()));
        run(compiler.args(["-lisula_storage", "-lpthread"]));
        program
    }

    /// Runs it plain, with sanitizers and under valgrind, each with a fresh directory and these arguments in it.
    pub fn check(&self, arguments: &[&str]) {
        let dir = Scratch::new();
        let plain = self.compile(dir.path(), "", &[]);
        let sanitized = self.compile(
            dir.path(),
            "-sanitized",
            &["-fsanitize=address,undefined", "-fno-sanitize-recover=all"],
        );
        let start = |wrapper: &[&str], program: &Path| {
            let place = Scratch::new();
            let mut words: Vec<PathBuf> = wrapper.iter().map(PathBuf::from).collect();
            words.push(program.to_path_buf());
            let mut command = Command::new(words.remove(0));
            command.args(words).current_dir(dir.path());
            for argument in arguments {
                // `/x` is made a path of the fresh directory, anything else stays.
                match argument.strip_prefix('/') {
                    Some(name) => command.arg(place.path().join(name)),
                    None => command.arg(argument),
                };
            }
            run(&mut command);
        };
        start(&[], &plain);
        start(&[], &sanitized);
        start(&VALGRIND, &plain);
    }
}
