// SPDX-License-Identifier: MulanPSL-2.0
//! How long lookups, lists and mounts of others take while two large imports run, beside how long they take when nothing
//! else does, and beside two threads that only keep the cores busy: what is more than that is waiting for each other.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use isula_storage::persist::Durability;
use isula_storage::storage::{ImportOptions, Storage, StorageOptions};

use crate::changes::large;
use crate::store::{self, Chain, Size};
use crate::{open, room};

/// Sorted times in microseconds.
struct Times(Vec<f64>);

impl Times {
    fn part(&self, part: f64) -> f64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part of a length")]
        let at = (self.0.len() as f64 * part) as usize;
        self.0.get(at.min(self.0.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
    }
}

fn times(enough: impl Fn(usize) -> bool, mut action: impl FnMut(usize)) -> Times {
    let mut all = Vec::new();
    while !enough(all.len()) {
        let start = Instant::now();
        action(all.len());
        all.push(start.elapsed().as_secs_f64() * 1e6);
    }
    all.sort_by(f64::total_cmp);
    Times(all)
}

type Action<'a> = (&'static str, usize, Box<dyn FnMut(usize) + 'a>);

pub(crate) fn table(size: Size, files: usize) {
    let place = room("scale-beside");
    let (root, run) = (place.join("root"), place.join("run"));
    std::fs::create_dir(&run).unwrap();
    let ids = store::make(&root, size);
    let mut chain = Chain::default();
    (0..5).for_each(|layer| chain.push(&root, &format!("mount {layer}"), layer));
    let container = format!("{:064x}", 5);
    store::container(&root, &container, &chain);
    let layouts = [1, 2].map(|seed| large(&place.join(format!("layout{seed}")), files, seed));
    let mut options = StorageOptions::new(&root, &run);
    options.durability = Durability::None;
    let storage: Storage = open(options);
    let images = storage.images();
    let mut actions: Vec<Action<'_>> = vec![
        ("lookup", 20_000, Box::new(|at| drop(black_box(images.lookup(&ids[at * 7 % ids.len()][..12]))))),
        ("list", 300, Box::new(|_| drop(black_box(images.shared_summaries().unwrap())))),
        (
            "mount + unmount",
            300,
            Box::new(|_| {
                storage.layers().mount(&container).unwrap();
                storage.layers().unmount(&container, false).unwrap();
            }),
        ),
    ];
    println!(
        "\n{:<18} {:>20} {:>26} {:>26}",
        "beside imports, µs", "idle p50 / p99", "busy cores p50 / p99", "two imports p50 / p99"
    );
    for (what, count, action) in &mut actions {
        let idle = times(|done| done >= *count, &mut *action);
        let stop = AtomicBool::new(false);
        let busy = std::thread::scope(|scope| {
            (0..2).for_each(|_| {
                drop(scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        std::hint::spin_loop()
                    }
                }))
            });
            let busy = times(|done| done >= *count, &mut *action);
            stop.store(true, Ordering::Relaxed);
            busy
        });
        let running = AtomicUsize::new(2);
        let during = std::thread::scope(|scope| {
            for layout in &layouts {
                let (storage, running) = (&storage, &running);
                scope.spawn(move || {
                    let report = storage.import(layout, ImportOptions::default()).unwrap();
                    running.fetch_sub(1, Ordering::Relaxed);
                    storage.remove_image(report.images[0].id.as_str()).unwrap();
                });
            }
            times(|done| running.load(Ordering::Relaxed) < 2 || done >= 2_000_000, &mut *action)
        });
        let show = |times: &Times| format!("{:.1} / {:.1}", times.part(0.5), times.part(0.99));
        println!("{what:<18} {:>20} {:>26} {:>26}", show(&idle), show(&busy), show(&during));
    }
    drop(actions);
    storage.close().unwrap();
}
