// SPDX-License-Identifier: MulanPSL-2.0
//! Full pools, and many layers.

use std::time::Instant;

use crate::guest::Scenario;
use crate::layers;
use crate::scene::*;

pub const ALL: &[Scenario] = crate::scenarios! {
    a_pool_full_of_data_takes_no_layer_and_gives_them_back
    a_pool_full_of_metadata_takes_no_layer_and_gives_them_back
    many_layers_come_and_go_without_a_trace
};

fn a_pool_full_of_data_takes_no_layer_and_gives_them_back() {
    // 96 MiB for file systems of 64 MiB.
    let pool = Pool::of_size(u64::MAX, 192 << 10);
    let place = Place::new();
    let driver = place.driver();
    let mut refused = None;
    for number in 0..8 {
        let name = format!("layer-{number}");
        match create(&*driver, &name, None) {
            Ok(()) => {
                let rootfs = mount(&*driver, &name);
                let errno = fill(&rootfs.join("fill"));
                assert!([libc::ENOSPC, libc::EIO, libc::EROFS].contains(&errno), "errno {errno}");
                unmount(&*driver, &name);
            }
            Err(error) => {
                refused = Some((number, error));
                break;
            }
        }
    }
    let (number, error) = refused.expect("the pool took eight layers");
    assert!(number >= 1 && error.is_no_space(), "{number}: {}", error.report());
    let text = error.shown().unwrap();
    assert!(text.starts_with("devmapper: Thin Pool has ") && text.contains(" free data blocks "), "{text}");
    assert_eq!(layer_ids(&*driver).len(), number);
    for number in 0..number {
        remove(&*driver, &format!("layer-{number}"));
    }
    create(&*driver, "again", None).unwrap();
    layers::write(mount(&*driver, "again").join("file"), "content");
    unmount(&*driver, "again");
    driver.clean_up().unwrap();
    drop(driver);
    assert_eq!(pool.devices(), [""; 0]);
    assert_eq!(pool.ids().len(), 2);
}

fn a_pool_full_of_metadata_takes_no_layer_and_gives_them_back() {
    // 2 MiB, the least that the kernel takes: 512 blocks.
    let pool = Pool::of_size(4096, u64::MAX);
    let place = Place::new();
    let driver = place.try_driver(&["dm.min_free_space=80%"]).unwrap();
    let mut made: Vec<String> = Vec::new();
    let error = loop {
        let name = format!("layer-{}", made.len());
        match create(&*driver, &name, None) {
            Ok(()) => {
                // Each mapping that differs from the base takes room in the metadata.
                layers::write(mount(&*driver, &name).join("file"), &"x".repeat(1 << 20));
                unmount(&*driver, &name);
                made.push(name);
            }
            Err(error) => break error,
        }
        assert!(made.len() < 400, "the pool took 400 layers: {}", pool.status());
    };
    assert!(error.is_no_space(), "{}", error.report());
    assert!(error.shown().unwrap().contains(" free metadata blocks "), "{}", error.report());
    for name in &made {
        remove(&*driver, name);
    }
    create(&*driver, "again", None).unwrap();
    println!("    {} layers took a fifth of 2 MiB of metadata", made.len());
    driver.clean_up().unwrap();
    drop(driver);
    assert_eq!(pool.ids().len(), 2);
}

/// Counts of what a leak would leave.
fn left(pool: &Pool) -> (usize, usize, usize, usize) {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
    (descriptors, mounts, semaphores(), pool.devices().len())
}

/// A thousand, or `VM_LAYERS` of them.
fn many_layers_come_and_go_without_a_trace() {
    let count: usize = std::env::var("VM_LAYERS").map_or(1000, |count| count.parse().unwrap());
    let pool = Pool::new();
    let place = Place::new();
    let driver = place.driver();
    create(&*driver, "bottom", None).unwrap();
    mount(&*driver, "bottom");
    unmount(&*driver, "bottom");
    let before = left(&pool);
    let mut times: Vec<[u128; 4]> = Vec::new();
    let timed = |action: &mut dyn FnMut()| {
        let start = Instant::now();
        action();
        start.elapsed().as_micros()
    };
    for number in 0..count {
        let name = format!("layer-{number:04}");
        times.push([
            timed(&mut || create(&*driver, &name, Some("bottom")).unwrap()),
            timed(&mut || drop(mount(&*driver, &name))),
            timed(&mut || unmount(&*driver, &name)),
            0,
        ]);
    }
    assert_eq!(layer_ids(&*driver).len(), count + 1);
    for (number, times) in times.iter_mut().enumerate() {
        times[3] = timed(&mut || remove(&*driver, &format!("layer-{number:04}")));
    }
    let during = left(&pool);
    // The device that ids are tried on is one.
    assert_eq!((during.0, during.1, during.2), (before.0, before.1, before.2));
    let metadata = std::fs::read_dir(place.home().join("metadata")).unwrap().count();
    assert_eq!(metadata, 4, "base, bottom, and the two of the driver");
    assert_eq!(std::fs::read_dir(place.home().join("mnt")).unwrap().count(), 1);
    let tenth = (count / 10).max(1);
    println!("    medians of {tenth} layers in microseconds: create, mount, unmount, remove");
    let mut rows: Vec<[u128; 4]> = Vec::new();
    for part in times.chunks(tenth) {
        let median = |at: usize| {
            let mut all: Vec<u128> = part.iter().map(|times| times[at]).collect();
            all.sort_unstable();
            all[all.len() / 2]
        };
        let row = [0, 1, 2, 3].map(median);
        let [create, mount, unmount, remove] = row;
        rows.push(row);
        println!("    up to {:4}: {create} {mount} {unmount} {remove}", rows.len() * tenth);
    }
    // The times of a busy machine decide nothing; that all but the list of layers stays as it is was looked at above.
    for (at, what) in ["create", "mount", "unmount", "remove"].into_iter().enumerate() {
        let (first, last) = (rows[0][at] as f64, rows[rows.len() - 1][at] as f64);
        println!("    {what}: last / first {:.2} (goal 1.5)", last / first);
    }
    driver.clean_up().unwrap();
    drop(driver);
    assert_eq!(pool.devices(), [""; 0]);
    assert_eq!(pool.ids(), [1, 2], "no device is left in the pool");
}
