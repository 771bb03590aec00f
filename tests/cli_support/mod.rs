// SPDX-License-Identifier: MulanPSL-2.0
//! The command-line tool on a store of the test's own, and image archives made for a test.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]
#![allow(dead_code, unreachable_pub, reason = "not every test program uses all of it")]

#[path = "../common/mod.rs"]
pub mod common;
pub mod images;
pub mod peak;
pub mod trees;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use common::{LoopExt4, TestRoot};
use serde_json::Value;

/// The real image that lies in the repository.
pub fn golden_image(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/images").join(name)
}

/// A store that only this test uses.
pub struct Store {
    home: Home,
    pub driver: &'static str,
}

enum Home {
    Memory(TestRoot),
    Ext4(LoopExt4),
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Store {
    /// On tmpfs.
    pub fn in_memory() -> Store {
        Store { home: Home::Memory(TestRoot::in_memory("cli")), driver: "overlay" }
    }

    /// On an ext4 of this size.
    pub fn on_ext4(size: u64) -> Store {
        Store { home: Home::Ext4(common::loop_ext4(size)), driver: "overlay" }
    }

    /// A directory beside the store, on the same file system.
    pub fn home(&self) -> PathBuf {
        match &self.home {
            Home::Memory(root) => root.path().to_owned(),
            Home::Ext4(fs) => fs.path(),
        }
    }

    pub fn root(&self) -> PathBuf {
        self.home().join("root")
    }

    pub fn run_root(&self) -> PathBuf {
        self.home().join("run")
    }

    /// A directory of the store: `images`, `layers`.
    pub fn dir(&self, what: &str) -> PathBuf {
        self.root().join(format!("{}-{what}", self.driver))
    }

    /// The tool, told which store.
    pub fn tool(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_isula-storage"));
        command.arg("--root").arg(self.root()).arg("--run-root").arg(self.run_root());
        command.args(["--driver", self.driver]).stdin(Stdio::null());
        command
    }

    pub fn run<A: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Ended {
        Ended::of(self.tool().args(args).output().unwrap())
    }

    /// Runs a command that has to succeed; its standard output.
    pub fn ok<A: AsRef<std::ffi::OsStr> + std::fmt::Debug>(
        &self,
        args: impl IntoIterator<Item = A>,
    ) -> String {
        let args: Vec<A> = args.into_iter().collect();
        let ended = self.run(&args);
        assert_eq!(ended.code, Some(0), "{args:?}: {}", ended.stderr);
        ended.stdout
    }

    /// The same with `--json`.
    pub fn json<A: AsRef<std::ffi::OsStr> + std::fmt::Debug>(
        &self,
        args: impl IntoIterator<Item = A>,
    ) -> Value {
        let args: Vec<A> = args.into_iter().collect();
        let ended = Ended::of(self.tool().arg("--json").args(&args).output().unwrap());
        assert_eq!(ended.code, Some(0), "{args:?}: {}", ended.stderr);
        serde_json::from_str(&ended.stdout).unwrap()
    }

    /// Runs a command that has to fail; its exit status and message.
    pub fn fails<A: AsRef<std::ffi::OsStr> + std::fmt::Debug>(
        &self,
        args: impl IntoIterator<Item = A>,
    ) -> (i32, String) {
        let args: Vec<A> = args.into_iter().collect();
        let ended = self.run(&args);
        let code = ended.code.unwrap_or_else(|| panic!("{args:?} was killed"));
        assert_ne!(code, 0, "{args:?} succeeded: {}", ended.stdout);
        assert!(!ended.stderr.contains("panicked"), "{args:?}: {}", ended.stderr);
        (code, ended.stderr)
    }

    pub fn import(&self, archive: &Path) -> Value {
        self.json([Path::new("import"), archive])
    }

    /// Ids of all layers.
    pub fn layer_ids(&self) -> Vec<String> {
        self.json(["layers"]).as_array().unwrap().iter().map(|layer| text(&layer["id"])).collect()
    }

    /// Names of every image, by id.
    pub fn names(&self) -> Vec<(String, Vec<String>)> {
        let images = self.json(["images"]);
        let names = |image: &Value| image["tags"].as_array().unwrap().iter().map(text).collect();
        images.as_array().unwrap().iter().map(|image| (text(&image["id"]), names(image))).collect()
    }

    /// Asserts that every image is whole and every layer exports with its digest; returns the images' ids.
    pub fn assert_whole(&self) -> Vec<String> {
        let images = self.names();
        for (id, _) in &images {
            let image = self.json(["inspect", id]);
            assert_eq!(image["problems"], serde_json::json!([]), "image {id}");
            assert!(image["config"].is_object(), "image {id}");
            let layers = image["layers"].as_array().unwrap();
            let diff_ids = image["config"]["rootfs"]["diff_ids"].as_array().unwrap();
            assert_eq!(layers.len(), diff_ids.len(), "image {id}");
            for (layer, diff_id) in layers.iter().rev().zip(diff_ids) {
                assert_eq!(&layer["uncompressed_digest"], diff_id);
            }
        }
        for layer in self.json(["layers"]).as_array().unwrap() {
            if layer["writable"] == false {
                let exported = self.export(&text(&layer["id"]));
                assert_eq!(exported, text(&layer["uncompressed_digest"]), "layer {}", layer["id"]);
            }
        }
        let status = self.json(["status"]);
        assert_eq!(status["problems"], serde_json::json!([]));
        assert_eq!(status["quarantine"], serde_json::json!([]));
        images.into_iter().map(|(id, _)| id).collect()
    }

    /// Exports a layer; the digest of what was written, computed by another program.
    pub fn export(&self, layer: &str) -> String {
        let file = self.home().join("exported.tar");
        self.ok([Path::new("export"), Path::new(layer), Path::new("-o"), &file]);
        let sum = Command::new("sha256sum").arg(&file).output().unwrap();
        std::fs::remove_file(&file).unwrap();
        format!("sha256:{}", String::from_utf8(sum.stdout).unwrap().split_whitespace().next().unwrap())
    }
}

impl Ended {
    pub fn of(output: Output) -> Ended {
        Ended {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A JSON string.
pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is not a string")).to_owned()
}
