// SPDX-License-Identifier: MulanPSL-2.0
//! Full pools, and many layers.

use crate::costs;
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

/// A thousand, or `VM_LAYERS` of them.
fn many_layers_come_and_go_without_a_trace() {
    costs::of_layers(costs::wanted(1000));
}
