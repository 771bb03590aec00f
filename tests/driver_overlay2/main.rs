// SPDX-License-Identifier: MulanPSL-2.0
//! The overlay driver on real file systems: layout, repair, mounts, and stores written by a real iSulad daemon.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../layers/mod.rs"]
mod layers;

#[path = "../archive_common/mod.rs"]
mod archive_common;
mod diff;
mod home;
mod layout;
mod mounts;
mod repair;

use std::path::Path;
use std::sync::Arc;

use isula_storage::driver::{self, DriverOptions, GraphDriver, LayerKind};
use isula_storage::error::Result;
use isula_storage::id::LayerId;
use layers::{Tar, container_layer, id, image_layer, names};

fn try_open(root: &Path, options: &[&str]) -> Result<Arc<dyn GraphDriver>> {
    let options = options.iter().map(ToString::to_string).collect();
    driver::open(&DriverOptions { options, ..layers::options(root, "overlay2") })
}

fn open(root: &Path) -> Arc<dyn GraphDriver> {
    layers::open(root, "overlay2")
}

/// An image layer `one`, an image layer `two` on it, a container's layer `three` on that.
fn three_layers(driver: &dyn GraphDriver) -> [LayerId; 3] {
    let ids = [id("one"), id("two"), id("three")];
    image_layer(driver, &ids[0], None, &Tar::new().dir("d/").file("d/one", b"1").file("top", b"t").finish());
    image_layer(driver, &ids[1], Some(&ids[0]), &Tar::new().dir("d/").file("d/two", b"2").finish());
    container_layer(driver, &ids[2], Some(&ids[1]));
    ids
}

fn shows_all_three(driver: &dyn GraphDriver, layer: &LayerId) {
    let root =
        driver.mount(layer, LayerKind::ReadWrite, None).unwrap_or_else(|error| panic!("{}", error.report()));
    assert_eq!(names(&root), ["d/", "d/one", "d/two", "top"]);
    driver.unmount(layer).unwrap();
}
