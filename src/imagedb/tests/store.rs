// SPDX-License-Identifier: MulanPSL-2.0
//! The methods of the store: each row of the table, and what is better on purpose.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

#[test]
fn get_reads_the_disk_and_works_for_what_is_not_in_the_store() {
    let store = Store::new();
    let config = layered("by hand", &[diff("absent")]);
    let id = Digest::of(&config);
    fails(store.get(&id), ErrorKind::NotFound, &format!("failed to get digest {id}"));
    std::fs::write(store.content(&id), &config).unwrap();
    assert_eq!(store.get(&id).unwrap().config.comment.as_deref(), Some("by hand"));
    assert!(!store.exists(&id));
    let bad = Digest::of(b"{}");
    std::fs::write(store.content(&bad), "{}").unwrap();
    fails(store.get(&bad), ErrorKind::InvalidData, "no RootFS key");
}

#[test]
fn get_shows_the_whole_config() {
    let store = Store::new();
    let config = br#"{"created":"2026-11-21T07:56:35.56416691Z","author":"me","comment":"c","container":"k",
        "docker_version":"20.10","architecture":"arm64","variant":"v8","os":"linux","os.version":"1","os.features":["f"],
        "rootfs":{"type":"layers","diff_ids":[]},"history":[{"created":"2026-11-21T07:56:35Z","author":"a",
        "created_by":"b","comment":"h","empty_layer":true}],"config":{"User":"u","ExposedPorts":{"80/tcp":{}},"Env":["A=b"],
        "Entrypoint":["e"],"Cmd":["c"],"Volumes":{"/v":{}},"WorkingDir":"/w","Labels":{"k":"v"},"StopSignal":"9"}}"#;
    let id = store.create(config).unwrap();
    let text = |value: &str| Some(value.to_owned());
    let texts = |value: &str| vec![value.to_owned()];
    let wanted = Config {
        created: text("2026-11-21T07:56:35.56416691Z"),
        author: text("me"),
        comment: text("c"),
        container: text("k"),
        docker_version: text("20.10"),
        architecture: text("arm64"),
        variant: text("v8"),
        os: text("linux"),
        os_version: text("1"),
        os_features: texts("f"),
        run: RunConfig {
            user: text("u"),
            exposed_ports: texts("80/tcp"),
            env: texts("A=b"),
            entrypoint: texts("e"),
            cmd: texts("c"),
            volumes: texts("/v"),
            working_dir: text("/w"),
            labels: vec![("k".into(), "v".into())],
            stop_signal: text("9"),
        },
        rootfs_type: text("layers"),
        diff_ids: vec![],
        history: vec![History {
            created: text("2026-11-21T07:56:35Z"),
            author: text("a"),
            created_by: text("b"),
            comment: text("h"),
            empty_layer: true,
        }],
        chain_id: None,
    };
    assert_eq!(*store.get(&id).unwrap().config, wanted);
}

#[test]
fn search_finds_what_is_in_the_store_until_it_is_deleted() {
    let store = Store::new();
    let id = store.create(&bare("abc")).unwrap();
    assert_eq!(store.search(&id.to_string()[..15]).unwrap(), id);
    assert_eq!(store.search(&id.hex()[..6]).unwrap(), id);
    store.delete(&id).unwrap();
    fails(store.search(&id.to_string()[..15]), ErrorKind::NotFound, "No such image: sha256:");
}

#[test]
fn delete_of_what_is_unknown_is_not_found() {
    let store = Store::new();
    let id = diff("unknown");
    fails(store.delete(&id), ErrorKind::NotFound, &format!("unrecognized image ID {id}"));
    let id = store.create(&bare("x")).unwrap();
    store.delete(&id).unwrap();
    fails(store.delete(&id), ErrorKind::NotFound, &format!("unrecognized image ID {id}"));
}

#[test]
fn delete_leaves_children_without_a_parent_and_not_with_the_grandparent() {
    let mut store = Store::new();
    let [one, two, three, four] = ["1", "2", "3", "4"].map(|comment| store.create(&bare(comment)).unwrap());
    store.set_parent(&two, &one).unwrap();
    store.set_parent(&three, &two).unwrap();
    store.set_parent(&four, &two).unwrap();
    store.delete(&two).unwrap();
    for _ in 0..2 {
        for child in [three, four] {
            fails(store.parent(&child), ErrorKind::NotFound, "failed to read metadata");
            assert_eq!(store.get(&child).unwrap().parent, None);
        }
        assert_eq!(store.children(&one), []);
        assert_eq!(ids(&store.heads()), sorted(vec![one, three, four]));
        store.reopen();
    }
    assert!(!store.metadata(&three).join("parent").exists());
}

#[test]
fn delete_returns_the_layers_that_went() {
    let layer = diff("base");
    let store = Store::with(&[layer]);
    let one = store.create(&layered("1", &[layer])).unwrap();
    let two = store.create(&layered("2", &[layer])).unwrap();
    store.layers.drop_one(&layer);
    assert_eq!(store.delete(&one).unwrap(), []);
    let gone = RemovedLayer { chain_id: layer, diff_id: None, size: 7, diff_size: 7 };
    assert_eq!(store.delete(&two).unwrap(), [gone]);
    assert_eq!(store.layers.references(&layer), -1);
}

#[test]
fn delete_removes_the_image_even_if_its_layer_cannot_be_released() {
    let layer = diff("base");
    let mut store = Store::with(&[layer]);
    let id = store.create(&layered("x", &[layer])).unwrap();
    store.layers.state.lock().release_fails = true;
    let text = format!("image {id} is deleted; release layer {layer}: the layer store is broken");
    fails(store.delete(&id), ErrorKind::Os(libc::EIO), &text);
    assert!(!store.exists(&id));
    assert_eq!(store.reopen().len(), 0);
}

#[test]
fn a_delete_that_did_not_remove_the_config_fails() {
    let store = Store::new();
    let id = store.create(&bare("x")).unwrap();
    store.set_built_locally(&id).unwrap();
    let fail = |step: &str| match step {
        "mark deletion" => Err(Error::not_found("injected")),
        _ => Ok(()),
    };
    let deleted = crate::persist::with_hook(fail, || store.delete(&id));
    fails(deleted, ErrorKind::NotFound, "injected");
    assert!(store.exists(&id) && store.get(&id).is_ok());
    store.delete(&id).unwrap();
    assert!(!store.exists(&id));
}

#[test]
fn delete_works_for_damaged_images() {
    let layer = diff("base");
    for damage in ["changed", "empty", "absent", "a directory"] {
        for reopened in [false, true] {
            let mut store = Store::with(&[layer]);
            let id = store.create(&layered("x", &[layer])).unwrap();
            let path = store.content(&id);
            std::fs::remove_file(&path).unwrap();
            match damage {
                "changed" => std::fs::write(&path, "{}").unwrap(),
                "empty" => std::fs::write(&path, "").unwrap(),
                "a directory" => std::fs::create_dir(&path).unwrap(),
                _ => {}
            }
            let at = format!("{damage}, {reopened}");
            if reopened {
                store.reopen();
                assert_eq!((store.len(), store.layers.references(&layer)), (0, 1), "{at}");
            }
            if damage == "absent" && reopened {
                fails(store.delete(&id), ErrorKind::NotFound, "unrecognized image ID");
            } else {
                store.delete(&id).unwrap_or_else(|error| panic!("{at}: {}", error.report()));
            }
            assert!(!path.exists(), "{at}");
            assert_eq!(store.layers.references(&layer), 1, "{at}");
            assert_eq!(store.reopen().problems(), [], "{at}");
        }
    }
}

#[test]
fn set_parent_of_or_to_what_is_unknown_is_an_error_and_makes_no_phantom() {
    let mut store = Store::new();
    let id = store.create(&bare("x")).unwrap();
    let unknown = diff("unknown");
    let before = tree(store.root.path());
    fails(
        store.set_parent(&id, &unknown),
        ErrorKind::NotFound,
        &format!("unknown parent image ID {unknown}"),
    );
    fails(store.set_parent(&unknown, &id), ErrorKind::NotFound, &format!("unknown image ID {unknown}"));
    for _ in 0..2 {
        assert_eq!(store.children(&id), []);
        assert_eq!(store.children(&unknown), []);
        assert_eq!(ids(&store.heads()), [id]);
        assert_eq!(tree(store.root.path()), before);
        store.reopen();
    }
}

#[test]
fn set_parent_refuses_itself_and_circles() {
    let store = Store::new();
    let [one, two, three] = ["1", "2", "3"].map(|comment| store.create(&bare(comment)).unwrap());
    fails(store.set_parent(&one, &one), ErrorKind::InvalidArgument, "an image cannot be its own parent");
    store.set_parent(&two, &one).unwrap();
    store.set_parent(&three, &two).unwrap();
    fails(store.set_parent(&one, &two), ErrorKind::InvalidArgument, "descends from it");
    fails(store.set_parent(&one, &three), ErrorKind::InvalidArgument, "descends from it");
    fails(store.parent(&one), ErrorKind::NotFound, "failed to read metadata");
    assert_eq!(ids(&store.heads()), [three]);
    // The other way round is no circle once the first is undone.
    store.set_parent(&three, &one).unwrap();
    store.set_parent(&two, &three).unwrap();
    assert_eq!(ids(&store.heads()), [two]);
}

#[test]
fn set_parent_again_moves_a_child() {
    let mut store = Store::new();
    let [one, two, child] = ["1", "2", "3"].map(|comment| store.create(&bare(comment)).unwrap());
    store.set_parent(&child, &one).unwrap();
    assert_eq!((store.children(&one), store.children(&two)), (vec![child], vec![]));
    store.set_parent(&child, &two).unwrap();
    for _ in 0..2 {
        assert_eq!((store.children(&one), store.children(&two)), (vec![], vec![child]));
        assert_eq!(store.parent(&child).unwrap(), two);
        store.reopen();
    }
    let path = store.metadata(&child).join("parent");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), two.to_string(), "no newline");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
}

#[test]
fn get_parent_is_what_the_file_says() {
    let mut store = Store::new();
    let [parent, id] = ["1", "2"].map(|comment| store.create(&bare(comment)).unwrap());
    fails(store.parent(&id), ErrorKind::NotFound, "failed to read metadata");
    store.set_parent(&id, &parent).unwrap();
    assert_eq!(store.parent(&id).unwrap(), parent);
    let unknown = diff("unknown");
    fails(store.parent(&unknown), ErrorKind::NotFound, &format!("failed to get digest {unknown}"));
    let gone = diff("gone");
    std::fs::write(store.metadata(&id).join("parent"), gone.to_string()).unwrap();
    assert_eq!(store.reopen().parent(&id).unwrap(), gone);
    assert_eq!(store.get(&id).unwrap().parent, Some(gone));
    std::fs::write(store.metadata(&id).join("parent"), "nonsense").unwrap();
    fails(store.reopen().parent(&id), ErrorKind::Corrupt, "parent of image");
    assert_eq!(store.get(&id).unwrap().parent, None);
}

#[test]
fn last_updated_is_none_until_it_is_set() {
    let mut store = Store::new();
    let id = store.create(&bare("x")).unwrap();
    assert_eq!(store.last_updated(&id).unwrap(), None);
    assert_eq!(store.last_updated(&diff("unknown")).unwrap(), None);
    let before = Timestamp::now();
    store.set_last_updated(&id).unwrap();
    let set = store.last_updated(&id).unwrap().unwrap();
    assert!(before <= set && set <= Timestamp::now());
    let path = store.metadata(&id).join("lastUpdated");
    let text = std::fs::read_to_string(&path).unwrap();
    assert_eq!(Timestamp::parse_rfc3339(&text).unwrap(), set, "{text}");
    assert_eq!(store.reopen().last_updated(&id).unwrap(), Some(set));
    std::fs::write(&path, "0001-01-01T00:00:00Z").unwrap();
    assert_eq!(store.last_updated(&id).unwrap(), None);
    std::fs::write(&path, "yesterday").unwrap();
    fails(store.last_updated(&id), ErrorKind::Corrupt, "last update of image");
    fails(store.set_last_updated(&diff("unknown")), ErrorKind::NotFound, "unknown image ID");
}

#[test]
fn built_locally_is_one_byte() {
    let mut store = Store::new();
    let id = store.create(&bare("x")).unwrap();
    assert!(!store.is_built_locally(&id).unwrap());
    assert!(!store.is_built_locally(&diff("unknown")).unwrap());
    store.set_built_locally(&id).unwrap();
    assert!(store.reopen().is_built_locally(&id).unwrap());
    let path = store.metadata(&id).join("builtLocally");
    assert_eq!(std::fs::read(&path).unwrap(), [1]);
    for other in [&[0][..], &[2], &[]] {
        std::fs::write(&path, other).unwrap();
        assert!(!store.is_built_locally(&id).unwrap());
    }
    fails(store.set_built_locally(&diff("unknown")), ErrorKind::NotFound, "unknown image ID");
}

#[test]
fn children_are_those_directly_below() {
    let store = Store::new();
    let [one, two, three, four] = ["1", "2", "3", "4"].map(|comment| store.create(&bare(comment)).unwrap());
    store.set_parent(&two, &one).unwrap();
    store.set_parent(&three, &one).unwrap();
    store.set_parent(&four, &three).unwrap();
    assert_eq!(store.children(&one), sorted(vec![two, three]));
    assert_eq!(store.children(&two), []);
    assert_eq!(store.children(&diff("unknown")), []);
    assert_eq!(ids(&store.heads()), sorted(vec![two, four]));
    assert_eq!(ids(&store.map()), sorted(vec![one, two, three, four]));
}

#[test]
fn map_and_heads_leave_out_what_is_no_longer_right() {
    let store = Store::new();
    let [one, two, three] = ["1", "2", "3"].map(|comment| store.create(&bare(comment)).unwrap());
    store.set_parent(&two, &one).unwrap();
    std::fs::write(store.content(&two), "changed").unwrap();
    std::fs::remove_file(store.content(&three)).unwrap();
    assert_eq!(ids(&store.map()), [one]);
    assert_eq!(ids(&store.heads()), []);
    assert_eq!(store.len(), 3, "they are in the store still");
    std::fs::write(store.content(&two), bare("2")).unwrap();
    assert_eq!(ids(&store.map()), sorted(vec![one, two]), "it is looked at again when it changes");
}

#[test]
fn map_hashes_a_config_again_only_when_its_file_changed() {
    let store = Store::new();
    let id = store.create(&bare("1")).unwrap();
    let path = store.content(&id);
    let times = std::fs::metadata(&path).unwrap().modified().unwrap();
    // Same inode, size and time: that it is taken for the same shows that it was not read.
    let changed = String::from_utf8(bare("1")).unwrap().replace("\"1\"", "\"2\"");
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, changed.as_bytes(), 0).unwrap();
    file.set_modified(times).unwrap();
    assert_eq!(ids(&store.map()), [id]);
    fails(store.get(&id), ErrorKind::DigestMismatch, "failed to verify");
    file.set_modified(times + std::time::Duration::from_secs(1)).unwrap();
    assert_eq!(ids(&store.map()), []);
}

#[test]
fn len_counts_the_images() {
    let mut store = Store::new();
    assert!(store.is_empty());
    for number in 0..10 {
        store.create(&bare(&number.to_string())).unwrap();
    }
    assert_eq!((store.len(), store.map().len()), (10, 10));
    assert_eq!(store.reopen().len(), 10);
}

#[test]
fn a_store_opened_for_reading_writes_nothing() {
    let layer = diff("base");
    let mut store = Store::with(&[layer]);
    let config = layered("x", &[layer]);
    let id = store.create(&config).unwrap();
    store.add_name("a", &id, false).unwrap();
    store.close();
    std::fs::remove_dir_all(store.root.join(".isula-storage")).unwrap();
    let before = tree(store.root.path());
    let db = open_as(store.root.path(), store.layers.clone(), Ownership::ReadOnly).unwrap();
    assert_eq!(ids(&db.map()), [id]);
    assert_eq!(db.by_name("a").unwrap(), id);
    let refused = |result: Result<()>| fails(result, ErrorKind::ReadOnly, "opened for reading only");
    refused(db.create(&bare("new")).map(drop));
    refused(db.delete(&id).map(drop));
    refused(db.set_parent(&id, &id));
    refused(db.set_last_updated(&id));
    refused(db.set_built_locally(&id));
    refused(db.add_name("b", &id, false));
    refused(db.delete_name("a"));
    assert_eq!(tree(store.root.path()), before);
    assert!(!store.root.join(".isula-storage").exists());
    drop(db);
    let empty = TestRoot::in_memory("imagedb-empty");
    let db = open_as(empty.path(), Arc::new(NoLayers), Ownership::ReadOnly).unwrap();
    assert_eq!((db.len(), db.names(&id), tree(empty.path())), (0, vec![], BTreeMap::new()));
    fails(
        open_as(&empty.join("absent"), Arc::new(NoLayers), Ownership::ReadOnly),
        ErrorKind::NotFound,
        "open image store",
    );
}

#[test]
fn a_second_owner_is_refused() {
    let store = Store::new();
    let second = open(store.root.path(), store.layers.clone());
    fails(second, ErrorKind::InUse, &format!("in use by pid {}", std::process::id()));
}

#[test]
fn the_layer_store_is_never_called_while_a_lock_is_held() {
    /// Uses the store from within each call.
    #[derive(Default)]
    struct Curious {
        store: Mutex<Option<std::sync::Weak<ImageDb>>>,
        calls: AtomicUsize,
    }
    impl Curious {
        fn look(&self) {
            self.calls.fetch_add(1, Ordering::Relaxed);
            let store = self.store.lock().clone();
            if let Some(store) = store.and_then(|store| store.upgrade()) {
                store.map();
                store.create(&bare("made in a callback")).unwrap();
                let id = Digest::of(&bare("made in a callback"));
                store.set_last_updated(&id).unwrap();
                store.add_name("callback", &id, true).unwrap();
                store.delete(&id).unwrap();
            }
        }
    }
    impl Layers for Curious {
        fn retain(&self, _: &Digest) -> Result<()> {
            self.look();
            Ok(())
        }
        fn release(&self, _: &Digest) -> Result<Vec<RemovedLayer>> {
            self.look();
            Ok(Vec::new())
        }
        fn forget(&self, _: &Digest) {
            self.look();
        }
    }
    let root = TestRoot::in_memory("imagedb");
    let layers = Arc::new(Curious::default());
    let store = Arc::new(open(root.path(), layers.clone()).unwrap());
    *layers.store.lock() = Some(Arc::downgrade(&store));
    let id = store.create(&layered("x", &[diff("a")])).unwrap();
    store.delete(&id).unwrap();
    let id = store.create(&layered("y", &[diff("a")])).unwrap();
    let _ = id;
    let store = Arc::into_inner(store).unwrap();
    store.close();
    assert_eq!(layers.calls.load(Ordering::Relaxed), 4);
}

#[test]
fn many_threads_make_and_delete_the_same_images() {
    let layer = diff("base");
    let mut store = Store::with(&[layer]);
    let configs: Vec<_> = (0..8).map(|number| layered(&number.to_string(), &[layer])).collect();
    let db: &ImageDb = &store;
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let configs = &configs;
            scope.spawn(move || {
                for round in 0..20 {
                    let config = &configs[(thread + round) % configs.len()];
                    let id = db.create(config).unwrap();
                    db.map();
                    match db.delete(&id) {
                        Ok(_) => {}
                        Err(error) => assert_eq!(error.kind(), ErrorKind::NotFound, "{}", error.report()),
                    }
                }
            });
        }
    });
    assert_eq!(store.layers.references(&layer), 1 + i32::try_from(store.len()).unwrap());
    let left = store.len();
    assert_eq!(store.reopen().len(), left);
    assert_eq!(store.problems(), []);
}

#[test]
fn closing_gives_references_back_and_removes_nothing() {
    let layer = diff("base");
    let mut store = Store::with(&[layer]);
    store.create(&layered("x", &[layer])).unwrap();
    store.create(&layered("y", &[layer])).unwrap();
    store.layers.calls();
    store.close();
    assert_eq!(store.layers.calls(), ["forget", "forget"]);
    assert_eq!(store.layers.references(&layer), 1);
}

#[test]
fn an_image_that_is_deleted_while_a_list_is_made_is_no_error() {
    let store = Store::new();
    let [gone, damaged, fine] = ["a", "b", "c"].map(|comment| store.create(&bare(comment)).unwrap());
    let list = store.index.read().list();
    store.delete(&gone).unwrap();
    std::fs::write(store.content(&damaged), "damaged").unwrap();
    let (found, bad) = store.verify_all(list);
    assert_eq!(ids(&found), [fine]);
    assert_eq!(bad.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [damaged]);
}
