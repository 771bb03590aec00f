// SPDX-License-Identifier: MulanPSL-2.0
//! The process is killed in the middle of creating, mounting and deleting layers; the next one finds every layer that
//! was reported complete, whole, and nothing half-made.
//!
//! This program starts itself again as the process to be killed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod archive_common;
mod common;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use archive_common::layers_of;
use common::{loop_ext4, need_root};
use isula_storage::digest::Digest;
use isula_storage::driver::{Limits, Verdict};
use isula_storage::id::LayerId;
use isula_storage::layer::{CreateLayer, LayerStore, LayerStoreOptions};
use isula_storage::persist::{Durability, Ownership};

/// Set for the process to be killed: where its store is.
const VICTIM: &str = "ISULA_STORAGE_TEST_VICTIM";

fn open(root: &Path) -> LayerStore {
    LayerStore::open(LayerStoreOptions {
        root: root.join("root"),
        run_root: root.join("run"),
        driver: "overlay2".to_owned(),
        driver_options: Vec::new(),
        durability: Durability::Full,
        ownership: Ownership::Owner,
        owner_shift: None,
        limits: Limits::default(),
    })
    .unwrap_or_else(|error| panic!("{}", error.report()))
}

fn id(number: u32) -> LayerId {
    LayerId::new(&format!("{number:064x}")).unwrap()
}

/// Says something for each piece that is read, so that the parent can choose the moment.
struct Telling<R>(R);

impl<R: Read> Read for Telling<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let piece = buffer.len().min(100 << 10);
        say("read");
        self.0.read(&mut buffer[..piece])
    }
}

fn say(what: &str) {
    let mut out = std::io::stdout();
    writeln!(out, "victim: {what}").and_then(|()| out.flush()).unwrap();
}

/// Runs only as the child: layers come and go until it is killed.
#[test]
fn victim() {
    let Some(root) = std::env::var_os(VICTIM) else { return };
    let store = open(Path::new(&root));
    let archives = layers_of("bb.tar.gz");
    let next = |number: u32| number % 4 + 1;
    for number in 1.. {
        let archive = &archives[number as usize % 2];
        let layer = CreateLayer {
            uncompressed_digest: Some(Digest::of(archive).to_string()),
            ..CreateLayer::default()
        };
        let slot = next(number);
        store.delete(id(slot).as_str()).unwrap();
        say(&format!("deleted {slot}"));
        store.create(&id(slot), &layer, Some(&mut Telling(archive.as_slice()))).unwrap();
        say(&format!("created {slot}"));
        store.mount(id(slot).as_str()).unwrap();
        say("mounted");
        store.unmount(id(slot).as_str(), number % 8 == 0).unwrap();
    }
}

fn start(root: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["victim", "--exact", "--nocapture", "--test-threads", "1"])
        .env(VICTIM, root)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn a_killed_process_leaves_every_layer_whole_or_absent() {
    if !need_root() {
        return;
    }
    let disk = loop_ext4(128 << 20);
    let root = disk.path();
    // Layers that must be there: created, and not being deleted since.
    let mut certain = BTreeSet::new();
    for round in 0u32..24 {
        let mut child = start(&root);
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Another moment each time; what it does after this line, nobody knows.
        let moment = 1 + (round * 7 % 31) as usize;
        let mut heard = 0;
        for line in lines.map_while(Result::ok) {
            let Some((_, what)) = line.split_once("victim: ") else { continue };
            heard += 1;
            match what.split_once(' ') {
                Some(("created", slot)) => certain.insert(slot.parse::<u32>().unwrap()),
                Some(("deleted", slot)) => certain.remove(&slot.parse::<u32>().unwrap()),
                _ => false,
            };
            if heard == moment {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(heard >= moment, "round {round}: the process ended by itself");

        let store = open(&root);
        assert_eq!(store.problems(), [], "round {round}");
        assert_eq!(store.quarantined().unwrap(), [], "round {round}");
        let listed: BTreeSet<u32> = (1..=4).filter(|number| store.exists(id(*number).as_str())).collect();
        // The last thing it was at may be the deletion of one.
        assert!(certain.difference(&listed).count() <= 1, "round {round}: {certain:?} became {listed:?}");
        for number in &listed {
            let mut out = Vec::new();
            assert_eq!(store.check(id(*number).as_str()).unwrap(), Verdict::Valid, "round {round}");
            store.export(id(*number).as_str(), &mut out).unwrap();
        }
        let in_driver: BTreeSet<LayerId> = store.driver().layers().unwrap().into_iter().collect();
        let expected: BTreeSet<LayerId> = listed.iter().map(|number| id(*number)).collect();
        assert_eq!(in_driver, expected, "round {round}");
        store.close().unwrap();
        assert_eq!(std::fs::read_dir(root.join("root/overlay/l")).unwrap().count(), listed.len());
        certain = listed;
    }
}
