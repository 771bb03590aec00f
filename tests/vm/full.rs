// SPDX-License-Identifier: MulanPSL-2.0
//! A pool whose metadata really run full, and one whose metadata have to be checked.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use isula_storage::driver::{GraphDriver, LayerKind};
use isula_storage::sys::dm::Dm;

use crate::guest::Scenario;
use crate::layers;
use crate::scene::*;

pub const ALL: &[Scenario] = crate::scenarios! {
    metadata_that_run_full_lose_no_layer
    a_pool_that_has_to_be_checked_can_be_read_and_is_mended
};

/// 2 MiB, the least that the kernel takes, in sectors.
const LEAST: u64 = 4096;
/// Ids of devices that only fill the metadata, far from those of the store.
const FILL: u32 = 100_000;

/// Used and all blocks of the metadata.
fn metadata(pool: &Pool) -> (u64, u64) {
    let status = pool.status();
    let (used, all) = status.split(' ').nth(1).unwrap().split_once('/').unwrap();
    (used.parse().unwrap(), all.parse().unwrap())
}

fn assert_all_readable(driver: &dyn GraphDriver, made: &[String], what: &str) {
    assert_eq!(layer_ids(driver).len(), made.len(), "{what}");
    for name in made {
        let id = layers::id(name);
        driver.validate(&id, None).unwrap_or_else(|error| panic!("{what}: {name}: {}", error.report()));
        let usage = driver.usage(&id).unwrap_or_else(|error| panic!("{what}: {name}: {}", error.report()));
        assert!(usage.is_some_and(|(_, usage)| usage.inodes.0 >= 2), "{what}: {name}");
        let rootfs = driver
            .mount(&id, LayerKind::ReadOnly, None)
            .unwrap_or_else(|error| panic!("{what}: {name}: {}", error.report()));
        assert_eq!(layers::read(rootfs.join("file")), "content", "{what}: {name}");
        unmount(driver, name);
    }
}

fn metadata_that_run_full_lose_no_layer() {
    let pool = Pool::of_size(LEAST, u64::MAX);
    let place = Place::new();
    let look_at_nothing = ["dm.min_free_space=0%"];
    let driver = place.try_driver(&look_at_nothing).unwrap();
    let mut made = Vec::new();
    for (name, parent) in [("bottom", None), ("middle", Some("bottom")), ("top", Some("middle"))] {
        create(&*driver, name, parent).unwrap();
        layers::write(mount(&*driver, name).join("file"), "content");
        unmount(&*driver, name);
        made.push(name.to_owned());
    }
    // Each device takes a block, also an empty one.
    let mut fill = FILL;
    while metadata(&pool).0 + 40 < metadata(&pool).1 {
        pool.dm.message(POOL, &format!("create_thin {fill}")).unwrap();
        fill += 1;
    }
    let refused = loop {
        let name = format!("layer-{}", made.len());
        if let Err(error) = create(&*driver, &name, Some("top")) {
            break error;
        }
        made.push(name.clone());
        assert!(made.len() < 100, "the pool took a hundred layers: {}", pool.status());
        // What is written differs from the layer below, and takes room in the metadata.
        if let Ok(rootfs) = driver.mount(&layers::id(&name), LayerKind::ReadWrite, None) {
            let file = std::fs::File::create(rootfs.join("fill")).unwrap();
            let written = (0..400).try_for_each(|at| file.write_all_at(b"x", at << 16));
            println!("    {name}: {:?} {:?}: {}", written, file.sync_all(), pool.status());
            drop(file);
            unmount(&*driver, &name);
        }
    };
    println!("    {} layers: {}: {}", made.len(), refused.report(), pool.status());
    assert!(refused.is_no_space(), "{}", refused.report());
    let text = refused.shown().unwrap();
    assert!(text.contains("no free metadata blocks left"), "{text}");
    assert!(pool.status().contains(" ro "), "{}", pool.status());
    assert_all_readable(&*driver, &made, "full");
    // The kernel takes no message now, not even that a device is to go.
    let error = driver.remove(&layers::id("top")).map(drop).unwrap_err();
    assert!(error.is_no_space() && driver.exists(&layers::id("top")).unwrap(), "{}", error.report());
    drop(driver);
    let driver = place.try_driver(&look_at_nothing).unwrap_or_else(|error| panic!("{}", error.report()));
    assert_all_readable(&*driver, &made, "started again");

    // First way: enlarged, while the daemon runs.
    pool.enlarge_metadata(2 * LEAST);
    println!("    enlarged: {}", pool.status());
    create(&*driver, "after", Some("top")).unwrap_or_else(|error| panic!("{}", error.report()));
    remove(&*driver, "after");
    assert_all_readable(&*driver, &made, "enlarged");
    // Full again, with room in the file systems: the second way is to remove layers after the pool was made active anew.
    while !pool.status().contains(" ro ") {
        if pool.dm.message(POOL, &format!("create_thin {fill}")).is_ok() {
            fill += 1;
        }
    }
    let error = create(&*driver, "refused", Some("top")).unwrap_err();
    assert!(error.is_no_space(), "{}", error.report());
    assert_all_readable(&*driver, &made, "full again");
    driver.clean_up().unwrap();
    drop(driver);
    drop(pool);
    let pool = Pool::existing(2 * LEAST, u64::MAX);
    let driver = place.try_driver(&look_at_nothing).unwrap_or_else(|error| panic!("{}", error.report()));
    assert_all_readable(&*driver, &made, "after a boot");
    for name in made.split_off(3) {
        remove(&*driver, &name);
    }
    create(&*driver, "after", Some("top")).unwrap_or_else(|error| panic!("{}", error.report()));
    layers::write(mount(&*driver, "after").join("more"), "more");
    unmount(&*driver, "after");
    made.push("after".to_owned());
    assert_all_readable(&*driver, &made, "with room again");
    driver.clean_up().unwrap();
    drop(driver);
    drop(place);
    let ids = pool.ids();
    assert_eq!(ids.iter().filter(|id| **id < FILL).count(), 1 + made.len(), "{ids:?}");
}

/// Sets the flag that the kernel sets when it could not write the metadata.
fn require_a_check(disk: &Path) {
    let disk = std::fs::File::options().read(true).write(true).open(disk).unwrap();
    let mut block = [0; 4096];
    disk.read_exact_at(&mut block, 0).unwrap();
    // Checksum, flags, …; the checksum is crc32c, and another number of the kernel's.
    let sum = |block: &[u8]| crc32c(&block[4..]) ^ 160_774;
    assert_eq!(block[..4], sum(&block).to_le_bytes());
    block[4] |= 1;
    let sum = sum(&block);
    block[..4].copy_from_slice(&sum.to_le_bytes());
    disk.write_all_at(&block, 0).unwrap();
    disk.sync_all().unwrap();
}

/// Without the last inversion, as the kernel has it.
fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0x82f6_3b78 * (sum & 1)))
    })
}

fn a_pool_that_has_to_be_checked_can_be_read_and_is_mended() {
    let mut pool = Pool::new();
    let place = Place::new();
    let driver = place.driver();
    let mut made = Vec::new();
    for (name, parent) in [("bottom", None), ("top", Some("bottom"))] {
        create(&*driver, name, parent).unwrap();
        layers::write(mount(&*driver, name).join("file"), "content");
        unmount(&*driver, name);
        made.push(name.to_owned());
    }
    let mut driver = Some(driver);
    let metadata = disks()[0].clone();
    let repaired = disks()[2].clone();
    for way in ["thin_check", "thin_repair"] {
        driver.take().unwrap().clean_up().unwrap();
        drop(pool);
        require_a_check(&metadata);
        pool = Pool::existing(u64::MAX, u64::MAX);
        assert!(pool.status().contains(" ro ") && pool.status().contains("needs_check"), "{}", pool.status());
        let opened = place.driver();
        let error = create(&*opened, "new", Some("top")).unwrap_err();
        assert_eq!(error.errno(), libc::EROFS, "{}", error.report());
        assert!(error.shown().unwrap().contains("(needs_check)"), "{}", error.report());
        let error = opened.remove(&layers::id("top")).map(drop).unwrap_err();
        assert_eq!(error.errno(), libc::EROFS, "{}", error.report());
        assert_all_readable(&*opened, &made, way);
        opened.clean_up().unwrap();
        drop(opened);
        // What docs/devicemapper.md tells to do.
        pool.close();
        if way == "thin_repair" {
            run(Command::new("thin_repair").arg("-i").arg(&metadata).arg("-o").arg(&repaired));
            let option = |name: &str, path: &Path| format!("{name}={}", path.display());
            run(Command::new("dd")
                .args(["bs=64K", "conv=fsync", "status=none"])
                .args([option("if", &repaired), option("of", &metadata)]));
        }
        run(Command::new("thin_check").arg("--clear-needs-check-flag").arg(&metadata));
        pool = Pool::existing(u64::MAX, u64::MAX);
        assert!(pool.status().contains(" rw "), "{way}: {}", pool.status());
        let opened = place.driver();
        assert_all_readable(&*opened, &made, way);
        create(&*opened, "new", Some("top")).unwrap_or_else(|error| panic!("{way}: {}", error.report()));
        remove(&*opened, "new");
        driver = Some(opened);
    }
    driver.take().unwrap().clean_up().unwrap();
    drop(driver);
    drop(place);
    assert_eq!(pool.ids().len(), 1 + made.len());
}
