// SPDX-License-Identifier: MulanPSL-2.0
//! One suite for every graph driver: each scenario runs on overlay2 and on vfs. On devicemapper it runs in a virtual
//! machine: see `tests/vm`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod archive_common;
mod common;
mod conformance;
mod layers;

use common::TestRoot;
use conformance::Bench;

fn in_memory(name: &'static str, scenario: fn(&Bench)) {
    let root = TestRoot::in_memory(name);
    scenario(&Bench { name, root: root.path().to_owned(), options: Vec::new() });
}

fn on_ext4(name: &'static str, scenario: fn(&Bench)) {
    let disk = common::loop_ext4(32 << 20);
    scenario(&Bench { name, root: disk.path(), options: Vec::new() });
}

macro_rules! on_every_driver {
    ($($scenario:ident)*) => {
        mod overlay2 {
            $(#[test] fn $scenario() {
                if super::common::need_root() {
                    super::in_memory("overlay2", crate::conformance::$scenario);
                }
            })*
        }
        mod overlay2_on_ext4 {
            $(#[test] fn $scenario() {
                if super::common::need_root() {
                    super::on_ext4("overlay2", crate::conformance::$scenario);
                }
            })*
        }
        /// Needs no root.
        mod vfs {
            $(#[test] fn $scenario() {
                super::in_memory("vfs", crate::conformance::$scenario);
            })*
        }
    };
}

conformance::for_each_scenario!(on_every_driver);
