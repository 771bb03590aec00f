// SPDX-License-Identifier: MulanPSL-2.0
//! Many threads at once. Waiting is for messages, never for time; a test that hangs is the failure.

use std::io::Read;
use std::sync::Barrier;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use super::fake::Fault;
use super::*;

/// An archive that says when it is first read and goes on when it is told to.
struct Gate {
    reached: Sender<()>,
    open: Receiver<()>,
    content: &'static [u8],
    waiting: bool,
}

fn gate(content: &'static [u8]) -> (Gate, Receiver<()>, Sender<()>) {
    let (reached, was_reached) = channel();
    let (opener, open) = channel();
    (Gate { reached, open, content, waiting: true }, was_reached, opener)
}

impl Read for Gate {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if std::mem::take(&mut self.waiting) {
            self.reached.send(()).unwrap();
            self.open.recv().unwrap();
        }
        self.content.read(buffer)
    }
}

#[test]
fn nothing_waits_for_a_creation_that_is_being_read() {
    let place = Place::new();
    let store = place.open();
    add_image(&store, 1, None);
    add_container(&store, 2, 1);
    let (mut archive, reached, open) = gate(b"slow");
    thread::scope(|scope| {
        let creator =
            scope.spawn(|| store.create(&id(3), &image(Some(id(1)), "slow"), Some(&mut archive)).unwrap());
        reached.recv().unwrap();
        // All of this while the archive is being read; were anything locked, it would never end.
        assert!(store.find(id(3).as_str()).is_none() && !store.exists(id(3).as_str()));
        assert_eq!(ids(&store), [id(1), id(2)]);
        assert!(store.by_uncompressed_digest(&Digest::of(b"slow").to_string()).is_empty());
        assert_eq!(kind(store.hold(&id(3))), ErrorKind::NotFound);
        assert_eq!(kind(store.mount(id(3).as_str())), ErrorKind::NotFound);
        store.mount(id(2).as_str()).unwrap();
        store.unmount(id(2).as_str(), false).unwrap();
        add_image(&store, 4, Some(1));
        store.delete(id(4).as_str()).unwrap();
        store.hold(&id(1)).unwrap();
        store.check(id(1).as_str()).unwrap();
        // What it is being built upon cannot go; what it will be called is taken.
        assert_eq!(kind(store.delete(id(1).as_str())), ErrorKind::InUse);
        store.delete(id(2).as_str()).unwrap();
        assert!(store.has_children(&id(1)));
        assert_eq!(kind(store.create(&id(5), &container(id(3)), None)), ErrorKind::NotFound);
        open.send(()).unwrap();
        assert_eq!(creator.join().unwrap(), Created::New(id(3)));
    });
    assert_eq!(ids(&store), [id(1), id(3)]);
}

#[test]
fn a_layer_is_filled_beside_its_parent_and_completed_after_it() {
    let place = Place::new();
    let store = place.open();
    let (mut below, below_reached, open_below) = gate(b"below");
    let (mut above, above_reached, open_above) = gate(b"above");
    let (mut top, top_reached, open_top) = gate(b"top");
    thread::scope(|scope| {
        let base = scope.spawn(|| store.create(&id(1), &image(None, "below"), Some(&mut below)));
        below_reached.recv().unwrap();
        let child = scope.spawn(|| store.create(&id(2), &image(Some(id(1)), "above"), Some(&mut above)));
        above_reached.recv().unwrap();
        let last = scope.spawn(|| store.create(&id(3), &image(Some(id(2)), "top"), Some(&mut top)));
        top_reached.recv().unwrap();
        open_top.send(()).unwrap();
        open_above.send(()).unwrap();
        assert!(ids(&store).is_empty(), "complete before its parent");
        for number in 1..=3 {
            let record = std::fs::read_to_string(place.record_dir(&id(number)).join("layer.json")).unwrap();
            assert!(record.contains("\"incompelte\": true"), "{record}");
        }
        open_below.send(()).unwrap();
        for (number, creation) in (1..).zip([base, child, last]) {
            assert_eq!(creation.join().unwrap().unwrap(), Created::New(id(number)));
        }
    });
    assert_eq!(ids(&store), [id(1), id(2), id(3)]);
    assert_eq!(kind(store.delete(id(2).as_str())), ErrorKind::InUse);
    for number in [3, 2, 1] {
        store.delete(id(number).as_str()).unwrap();
    }
}

#[test]
fn a_layer_fails_with_its_parent() {
    let place = Place::new();
    let store = place.open();
    let (mut below, below_reached, open_below) = gate(b"not what was promised");
    let (mut above, above_reached, open_above) = gate(b"above");
    thread::scope(|scope| {
        let base = scope.spawn(|| store.create(&id(1), &image(None, "below"), Some(&mut below)));
        below_reached.recv().unwrap();
        let child = scope.spawn(|| store.create(&id(2), &image(Some(id(1)), "above"), Some(&mut above)));
        above_reached.recv().unwrap();
        open_below.send(()).unwrap();
        assert_eq!(kind(base.join().unwrap()), ErrorKind::DigestMismatch);
        open_above.send(()).unwrap();
        assert_eq!(kind(child.join().unwrap()), ErrorKind::NotFound);
    });
    assert!(ids(&store).is_empty() && !store.has_children(&id(1)));
    for number in [1, 2] {
        place.assert_absent(&id(number));
    }
    add_image(&store, 1, None);
    add_image(&store, 2, Some(1));
}

/// A parent that failed and is made again meanwhile is as good as one that never failed.
#[test]
fn a_layer_takes_a_parent_that_was_made_again() {
    let place = Place::new();
    let store = place.open();
    let (mut below, below_reached, open_below) = gate(b"not what was promised");
    let (mut above, above_reached, open_above) = gate(b"above");
    thread::scope(|scope| {
        let base = scope.spawn(|| store.create(&id(1), &image(None, "below"), Some(&mut below)));
        below_reached.recv().unwrap();
        let child = scope.spawn(|| store.create(&id(2), &image(Some(id(1)), "above"), Some(&mut above)));
        above_reached.recv().unwrap();
        open_below.send(()).unwrap();
        assert_eq!(kind(base.join().unwrap()), ErrorKind::DigestMismatch);
        add_image(&store, 1, None);
        open_above.send(()).unwrap();
        child.join().unwrap().unwrap();
    });
    assert_eq!(ids(&store), [id(1), id(2)]);
}

#[test]
fn names_of_a_layer_being_created_are_taken() {
    let place = Place::new();
    let store = place.open();
    let (mut archive, reached, open) = gate(b"x");
    let layer = CreateLayer { names: vec!["n".into()], ..CreateLayer::default() };
    thread::scope(|scope| {
        scope.spawn(|| store.create(&id(1), &layer, Some(&mut archive)).unwrap());
        reached.recv().unwrap();
        assert_eq!(kind(store.create(&id(2), &named(&["n"]), None)), ErrorKind::AlreadyExists);
        open.send(()).unwrap();
    });
    assert_eq!(store.find("n").unwrap().id, id(1));
}

/// An archive whose reader asks the store for the very layer that it is for.
struct Selfish<'a>(&'a LayerStore, Vec<ErrorKind>);

impl Read for Selfish<'_> {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        let Selfish(store, seen) = self;
        for name in ["name", id(1).as_str()] {
            seen.push(kind(store.delete(name)));
            let created = store.create(&LayerId::new(name).unwrap(), &CreateLayer::default(), None);
            seen.push(kind(created));
        }
        Ok(0)
    }
}

#[test]
fn a_creation_that_waits_for_itself_is_refused() {
    let place = Place::new();
    let store = place.open();
    let mut archive = Selfish(&store, Vec::new());
    let layer = CreateLayer { names: vec!["name".into()], ..CreateLayer::default() };
    store.create(&id(1), &layer, Some(&mut archive)).unwrap();
    assert_eq!(archive.1[..4], [ErrorKind::InUse; 4]);
    store.delete("name").unwrap();
    assert!(ids(&store).is_empty());
}

#[test]
fn two_creations_of_one_id_coalesce() {
    let place = Place::new();
    let store = place.open();
    let (mut archive, reached, open) = gate(b"x");
    let (mut unread, was_read, _keep) = gate(b"x");
    thread::scope(|scope| {
        let first = scope.spawn(|| store.create(&id(1), &image(None, "x"), Some(&mut archive)).unwrap());
        reached.recv().unwrap();
        let second = scope.spawn(|| store.create(&id(1), &image(None, "x"), Some(&mut unread)).unwrap());
        open.send(()).unwrap();
        assert_eq!(first.join().unwrap(), Created::New(id(1)));
        assert_eq!(second.join().unwrap(), Created::Existing(id(1)));
    });
    assert_eq!(store.hold_count(&id(1)).unwrap(), 2);
    assert!(was_read.try_recv().is_err());
}

#[test]
fn the_second_creation_tries_itself_when_the_first_fails() {
    let place = Place::new();
    let store = place.open();
    let (mut archive, reached, open) = gate(b"not what was promised");
    thread::scope(|scope| {
        let first = scope.spawn(|| store.create(&id(1), &image(None, "x"), Some(&mut archive)));
        reached.recv().unwrap();
        let second = scope.spawn(|| store.create(&id(1), &image(None, "x"), Some(&mut &b"x"[..])));
        open.send(()).unwrap();
        assert_eq!(kind(first.join().unwrap()), ErrorKind::DigestMismatch);
        assert_eq!(second.join().unwrap().unwrap(), Created::New(id(1)));
    });
    assert_eq!(store.hold_count(&id(1)).unwrap(), 1);
}

#[test]
fn a_deletion_of_a_layer_being_created_waits_for_it() {
    let place = Place::new();
    let store = place.open();
    let (mut archive, reached, open) = gate(b"x");
    thread::scope(|scope| {
        let creator = scope.spawn(|| store.create(&id(1), &image(None, "x"), Some(&mut archive)).unwrap());
        reached.recv().unwrap();
        let deleter = scope.spawn(|| store.delete(id(1).as_str()).unwrap());
        open.send(()).unwrap();
        assert_eq!(creator.join().unwrap(), Created::New(id(1)));
        deleter.join().unwrap();
    });
    assert!(ids(&store).is_empty());
}

#[test]
fn closing_waits_for_a_creation_and_refuses_those_who_wait_for_it() {
    let place = Place::new();
    let store = place.open();
    let (mut archive, reached, open) = gate(b"x");
    thread::scope(|scope| {
        let creator = scope.spawn(|| store.create(&id(1), &image(None, "x"), Some(&mut archive)));
        reached.recv().unwrap();
        let closer = scope.spawn(|| store.close().unwrap());
        // Until the store is closing; lookups go on meanwhile.
        while store.status().is_ok() {
            thread::yield_now();
        }
        assert_eq!(kind(store.create(&id(1), &CreateLayer::default(), None)), ErrorKind::NotReady);
        open.send(()).unwrap();
        assert_eq!(creator.join().unwrap().unwrap(), Created::New(id(1)));
        closer.join().unwrap();
    });
    assert_eq!(ids(&place.open()), [id(1)]);
}

#[test]
fn a_layer_being_deleted_can_neither_be_mounted_nor_built_upon() {
    let place = Place::new();
    let store = place.open();
    add_image(&store, 1, None);
    let (at_removal, removing) = channel();
    let (go_on, gone_on) = channel();
    let gate = parking_lot::Mutex::new((at_removal, gone_on));
    *place.world.hook.lock() = Some(Arc::new(move |operation| {
        if operation == "remove" {
            let gate = gate.lock();
            gate.0.send(()).unwrap();
            gate.1.recv().unwrap();
        }
    }));
    thread::scope(|scope| {
        let deleter = scope.spawn(|| store.delete(id(1).as_str()).unwrap());
        removing.recv().unwrap();
        assert_eq!(kind(store.create(&id(2), &container(id(1)), None)), ErrorKind::NotFound);
        let mounter = scope.spawn(|| store.mount(id(1).as_str()));
        let again =
            scope.spawn(|| store.create(&id(1), &image(None, "new"), Some(&mut &b"new"[..])).unwrap());
        go_on.send(()).unwrap();
        deleter.join().unwrap();
        assert_eq!(again.join().unwrap(), Created::New(id(1)));
        // It asked for the old layer or for the new one; it never mounts what is gone.
        match mounter.join().unwrap() {
            Ok(_) => assert_eq!(store.find(id(1).as_str()).unwrap().mount_count, 1),
            Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound),
        }
    });
}

#[test]
fn eight_threads_on_the_same_ids_leave_a_consistent_store() {
    const THREADS: u32 = 8;
    const ROUNDS: u32 = 40;
    let place = Place::new();
    let store = place.open();
    add_image(&store, 100, None);
    let start = Barrier::new(8);
    let expected = |error: &Error| {
        matches!(
            error.kind(),
            ErrorKind::NotFound | ErrorKind::InUse | ErrorKind::AlreadyExists | ErrorKind::Cancelled
        )
    };
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (store, start, world) = (&store, &start, &place.world);
            scope.spawn(move || {
                start.wait();
                for round in 0..ROUNDS {
                    let number = (thread * 7 + round * 3) % 5 + 1;
                    // A chain: each layer on the one before it.
                    let parent = id(if number == 1 { 100 } else { number - 1 });
                    let content = format!("content of {number}");
                    if (thread + round) % 11 == 0 {
                        world.fail("apply", Fault::Before(ErrorKind::Cancelled));
                    }
                    let results = [
                        store
                            .create(
                                &id(number),
                                &image(Some(parent), &content),
                                Some(&mut content.as_bytes()),
                            )
                            .map(drop),
                        store.mount(id(number).as_str()).map(drop),
                        store.unmount(id(number).as_str(), round % 2 == 0),
                        store.delete(id((number + round) % 5 + 1).as_str()),
                    ];
                    for error in results.into_iter().filter_map(Result::err) {
                        assert!(expected(&error), "{}", error.report());
                    }
                    let listed = ids(store);
                    assert!(listed.contains(&id(100)));
                }
            });
        }
    });
    place.world.faults.lock().clear();
    let listed = ids(&store);
    for layer in store.list() {
        if let Some(parent) = &layer.parent {
            assert!(listed.contains(parent), "{} lost its parent", layer.id);
            assert!(store.has_children(parent));
        }
        assert_eq!(store.check(layer.id.as_str()).unwrap(), crate::driver::Verdict::Valid);
    }
    let mut in_driver = store.driver().layers().unwrap();
    in_driver.sort();
    let mut sorted = listed.clone();
    sorted.sort();
    assert_eq!(in_driver, sorted);
    assert!(store.quarantined().unwrap().is_empty());
    store.close().unwrap();
    place.assert_no_trash();
    let store = place.open();
    assert!(store.problems().is_empty(), "{:?}", store.problems());
    assert_eq!(ids(&store), listed);
    // From the top, everything can go.
    for number in (1..=5).rev() {
        store.delete(id(number).as_str()).unwrap();
    }
    store.delete(id(100).as_str()).unwrap();
    assert!(ids(&store).is_empty());
}
