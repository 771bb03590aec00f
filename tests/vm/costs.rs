// SPDX-License-Identifier: MulanPSL-2.0
//! What layers cost while there are ever more of them. Also of `benches/devicemapper.rs`.

use std::time::Instant;

use crate::scene::*;

/// Counts of what a leak would leave: descriptors, mounts, semaphores, devices.
fn left(pool: &Pool) -> [usize; 4] {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
    [descriptors, mounts, semaphores(), pool.devices().len()]
}

/// The same once rules of udev that look at a device for a moment are through.
fn left_in_the_end(pool: &Pool, wanted: [usize; 4]) -> [usize; 4] {
    let mut tries = 0..200;
    while left(pool) != wanted && tries.next().is_some() {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    left(pool)
}

/// How many layers are wanted: `VM_LAYERS`, or as many as are told here.
pub fn wanted(default: usize) -> usize {
    std::env::var("VM_LAYERS").map_or(default, |count| count.parse().unwrap())
}

/// Makes, mounts and unmounts `count` layers, and removes them when all are there. What each took is printed; nothing may
/// be left.
pub fn of_layers(count: usize) {
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
    assert_eq!(left_in_the_end(&pool, before), before, "descriptors, mounts, semaphores, devices");
    assert_eq!(before[2..], [0, 0]);
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
