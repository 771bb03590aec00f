// SPDX-License-Identifier: MulanPSL-2.0
//! What needs a kernel of its own: thin pools, project quotas, power cuts. Runs in a virtual machine with Debian's stock
//! kernel (see `run-in-vm`), one boot for a group of scenarios, each of which is named in the output.
//!
//! This program is on both sides: `cargo test` starts it here; here it boots the machine and starts itself there, with the
//! group in `VM_GUEST`. `VM_ONLY=text` runs only the scenarios with that text in their names.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]
#![allow(dead_code, unreachable_pub, reason = "one program for all groups")]

#[path = "../archive_common/mod.rs"]
mod archive_common;
#[path = "../c_support/mod.rs"]
mod c_support;
#[path = "../common/mod.rs"]
mod common;
#[path = "../conformance/mod.rs"]
mod conformance;
#[path = "../daemon_support/mod.rs"]
mod daemon_support;
#[path = "../cli_support/images.rs"]
mod images;
#[path = "../layers/mod.rs"]
mod layers;
#[path = "../storages/mod.rs"]
mod storages;

mod bounds;
mod conform;
mod costs;
mod daemons;
mod disk;
mod full;
mod guest;
mod host;
mod kernel;
mod kills;
mod life;
mod power;
mod quota;
mod quota_crash;
mod scene;
mod steps;
mod trouble;
mod udev;

use host::Machine;

/// The whole of the devicemapper driver, without udevd: nodes are made and removed by the library.
#[test]
fn devicemapper_works_on_the_thin_pool_of_a_real_kernel() {
    Machine::new("devicemapper").disk("64M").disk("4G").disk("64M").run();
}

/// The suite that all drivers pass.
#[test]
fn devicemapper_conforms_on_a_real_kernel() {
    Machine::new("conformance").disk("64M").disk("4G").run();
}

/// iSulad's daemon on the driver.
#[test]
fn a_daemon_uses_devicemapper() {
    daemons::compile_and_run();
}

/// With udevd, whose rules have to be waited for.
#[test]
fn devicemapper_works_with_udev() {
    Machine::new("udev").disk("64M").disk("4G").with_udev().run();
}

/// Killed at system calls that change the store or the pool.
#[test]
fn devicemapper_survives_being_killed() {
    Machine::new("kills").disk("64M").disk("4G").run();
}

/// The machine goes off at such calls; the disks are kept.
#[test]
fn devicemapper_survives_power_cuts() {
    power::cut_again_and_again();
}

/// Limits of containers on overlay, on xfs and on ext4.
#[test]
fn containers_are_limited_by_project_quotas() {
    Machine::new("quota").disk("512M").disk("256M").run();
}

/// Killed while limits are set and freed.
#[test]
fn limits_survive_being_killed() {
    Machine::new("quota-kills").disk("512M").disk("256M").run();
}

/// The machine goes off while limits are set and freed.
#[test]
fn limits_survive_power_cuts() {
    quota_crash::cut_again_and_again();
}

/// What is killed in the machine; does nothing elsewhere.
#[test]
fn deed() {
    if let (Ok(deed), Some(place)) = (std::env::var("VM_DEED"), std::env::var_os("VM_PLACE")) {
        match deed.strip_prefix("quota:") {
            Some(deed) => quota::do_deed(deed, place.as_ref()),
            None => kills::do_deed(&deed, place.as_ref()),
        }
    }
}

/// The side in the machine; does nothing on the other.
#[test]
fn guest() {
    guest::run();
}
