// SPDX-License-Identifier: MulanPSL-2.0
//! Opening what is on disk: nothing that is bad keeps what is good from being there.

use super::*;

fn subjects(db: &ImageDb) -> Vec<String> {
    db.problems().iter().map(|problem| problem.subject.clone()).collect()
}

fn plant(root: &Path, config: &[u8]) -> Digest {
    let dir = root.join("imagedb/content/sha256");
    std::fs::create_dir_all(&dir).unwrap();
    let id = Digest::of(config);
    std::fs::write(dir.join(id.hex()), config).unwrap();
    id
}

fn plant_metadata(root: &Path, id: &Digest, key: &str, value: &[u8]) {
    let dir = root.join("imagedb/metadata/sha256").join(id.hex());
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::write(dir.join(key), value).unwrap();
}

#[test]
fn images_parents_and_children_are_restored() {
    let root = TestRoot::in_memory("imagedb-restore");
    let parent = plant(root.path(), &bare("abc"));
    let child = plant(root.path(), &bare("def"));
    let invalid = plant(root.path(), b"invalid");
    plant_metadata(root.path(), &child, PARENT, parent.to_string().as_bytes());
    let db = open(root.path(), Arc::new(NoLayers)).unwrap();
    assert_eq!(ids(&db.map()), sorted(vec![parent, child]));
    assert_eq!(db.get(&parent).unwrap().config.comment.as_deref(), Some("abc"));
    assert_eq!(db.get(&child).unwrap().config.comment.as_deref(), Some("def"));
    fails(db.parent(&parent), ErrorKind::NotFound, "failed to read metadata");
    assert_eq!((db.parent(&child).unwrap(), db.children(&parent)), (parent, vec![child]));
    assert_eq!(ids(&db.heads()), [child]);
    assert_eq!(db.search(&parent.to_string()[..10]).unwrap(), parent);
    assert_eq!(db.search(&child.hex()[..6]).unwrap(), child);
    let middle = &parent.hex()[1..6];
    fails(db.search(middle), ErrorKind::NotFound, middle);
    assert_eq!(subjects(&db), [format!("image {invalid}")]);
}

#[test]
fn each_kind_of_damage_is_reported_and_stops_nothing() {
    let layer = diff("base");
    let root = TestRoot::in_memory("imagedb-restore");
    let good = [plant(root.path(), &bare("good")), plant(root.path(), &layered("good", &[layer]))];
    let content = root.join("imagedb/content/sha256");
    let damaged = plant(root.path(), &bare("damaged"));
    std::fs::write(content.join(damaged.hex()), bare("other")).unwrap();
    let empty = plant(root.path(), &bare("empty"));
    std::fs::write(content.join(empty.hex()), "").unwrap();
    let directory = diff("directory");
    std::fs::create_dir(content.join(directory.hex())).unwrap();
    let link = diff("link");
    std::os::unix::fs::symlink("/etc/passwd", content.join(link.hex())).unwrap();
    let rootless = plant(root.path(), b"{}");
    let windows = plant(root.path(), br#"{"os":"windows","rootfs":{}}"#);
    let layerless = plant(root.path(), &layered("x", &[diff("absent")]));
    std::fs::write(content.join("foobar"), "x").unwrap();
    let before = tree(root.path());

    let layers = FakeLayers::with(&[layer]);
    let db = open(root.path(), layers.clone()).unwrap();
    assert_eq!(ids(&db.map()), sorted(good.to_vec()));
    assert_eq!((db.len(), layers.references(&layer)), (2, 2));
    let reasons: BTreeMap<_, _> =
        db.problems().iter().map(|problem| (problem.subject.clone(), problem.reason.clone())).collect();
    for (id, reason) in [
        (damaged, "failed to verify"),
        (empty, "failed to verify"),
        (directory, "a directory"),
        (link, "a symbolic link"),
        (rootless, "no RootFS key"),
        (windows, "unsupported image operating system"),
        (layerless, "layer does not exist"),
    ] {
        let told = &reasons[&format!("image {id}")];
        assert!(told.contains(reason), "{reason}: {told}");
    }
    assert_eq!(reasons.len(), 7);
    let mut after = tree(root.path());
    after.retain(|path, _| before.contains_key(path));
    assert_eq!(
        after.keys().collect::<Vec<_>>(),
        before.keys().collect::<Vec<_>>(),
        "all is left where it is"
    );
}

#[test]
fn a_layer_store_that_fails_does_not_keep_the_store_from_opening() {
    let layer = diff("base");
    let mut store = Store::with(&[layer]);
    let with_layer = store.create(&layered("x", &[layer])).unwrap();
    let without = store.create(&bare("y")).unwrap();
    store.close();
    store.layers.state.lock().retain_fails = true;
    assert_eq!(ids(&store.reopen().map()), [without]);
    assert_eq!(subjects(&store), [format!("image {with_layer}")]);
    store.layers.state.lock().retain_fails = false;
    assert_eq!(store.reopen().len(), 2);
}

#[test]
fn making_an_image_again_heals_it() {
    let layer = diff("late");
    let mut store = Store::new();
    let config = layered("x", &[layer]);
    let id = plant(store.root.path(), &config);
    let damaged = bare("damaged");
    let damaged_id = plant(store.root.path(), &damaged);
    std::fs::write(store.content(&damaged_id), "x").unwrap();
    assert_eq!(store.reopen().len(), 0);
    fails(store.create(&config), ErrorKind::NotFound, "layer does not exist");
    assert!(store.content(&id).exists(), "what was there before stays");
    store.layers.add(&layer);
    assert_eq!(store.create(&config).unwrap(), id);
    assert_eq!(store.create(&damaged).unwrap(), damaged_id);
    assert_eq!(ids(&store.map()), sorted(vec![id, damaged_id]));
    assert_eq!(store.layers.references(&layer), 2);
    assert_eq!(store.reopen().problems(), []);
}

#[test]
fn a_dangling_parent_is_ignored_and_its_file_stays() {
    let mut store = Store::new();
    let id = store.create(&bare("x")).unwrap();
    let gone = diff("gone");
    plant_metadata(store.root.path(), &id, PARENT, gone.to_string().as_bytes());
    store.reopen();
    assert_eq!(ids(&store.heads()), [id]);
    assert_eq!(store.parent(&id).unwrap(), gone);
    assert_eq!(store.problems(), []);
    assert!(store.metadata(&id).join(PARENT).exists());
}

#[test]
fn a_parent_with_white_space_around_is_read_and_one_that_is_none_is_reported() {
    let mut store = Store::new();
    let [parent, child, bad] = ["1", "2", "3"].map(|comment| store.create(&bare(comment)).unwrap());
    plant_metadata(store.root.path(), &child, PARENT, format!(" {parent}\n").as_bytes());
    plant_metadata(store.root.path(), &bad, PARENT, b"\xff\0nonsense");
    store.reopen();
    assert_eq!(store.children(&parent), [child]);
    assert_eq!(store.len(), 3);
    assert_eq!(subjects(&store), [format!("image {bad}")]);
}

#[test]
fn circles_that_a_daemon_made_are_listed_and_reported() {
    let mut store = Store::new();
    let [one, two, own] = ["1", "2", "3"].map(|comment| store.create(&bare(comment)).unwrap());
    plant_metadata(store.root.path(), &one, PARENT, two.to_string().as_bytes());
    plant_metadata(store.root.path(), &two, PARENT, one.to_string().as_bytes());
    plant_metadata(store.root.path(), &own, PARENT, own.to_string().as_bytes());
    store.reopen();
    assert_eq!(store.map().len(), 3);
    assert_eq!(store.problems().len(), 3);
    // They can be untied and deleted.
    let root = store.create(&bare("4")).unwrap();
    store.set_parent(&one, &root).unwrap();
    store.delete(&own).unwrap();
    assert_eq!(ids(&store.heads()), [two]);
    assert_eq!(store.reopen().problems(), []);
}

#[test]
fn metadata_without_a_config_are_reported_and_not_inherited() {
    let mut store = Store::new();
    let parent = store.create(&bare("parent")).unwrap();
    let config = bare("new");
    let id = Digest::of(&config);
    plant_metadata(store.root.path(), &id, PARENT, parent.to_string().as_bytes());
    store.reopen();
    assert_eq!(subjects(&store), [format!("image {id}")]);
    assert_eq!(store.children(&parent), []);
    store.create(&config).unwrap();
    assert_eq!(store.get(&id).unwrap().parent, None);
    assert_eq!(store.reopen().problems(), []);
    assert_eq!(store.children(&parent), []);
}

#[test]
fn temporary_files_of_interrupted_writes_are_removed() {
    let mut store = Store::new();
    store.create(&bare("x")).unwrap();
    let dir = store.root.join("imagedb/content/sha256");
    std::fs::write(dir.join(format!(".tmp-{}-0123456789", "a".repeat(64))), "half").unwrap();
    store.reopen();
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 1);
}

#[test]
fn many_images_are_restored_by_several_threads() {
    let layer = diff("base");
    let root = TestRoot::in_memory("imagedb-restore");
    let mut planted: Vec<_> =
        (0..1500).map(|number| plant(root.path(), &layered(&number.to_string(), &[layer]))).collect();
    for pair in planted.chunks(2) {
        plant_metadata(root.path(), &pair[0], PARENT, pair[1].to_string().as_bytes());
    }
    let bad = planted.swap_remove(700);
    std::fs::write(root.join("imagedb/content/sha256").join(bad.hex()), "bad").unwrap();
    let layers = FakeLayers::with(&[layer]);
    let db = open(root.path(), layers.clone()).unwrap();
    assert_eq!(ids(&db.map()), sorted(planted));
    assert_eq!(layers.references(&layer), 1500);
    assert_eq!(db.problems().len(), 1);
}

#[test]
fn a_root_that_is_no_directory_is_an_error() {
    let root = TestRoot::in_memory("imagedb-restore");
    let file = root.join("file");
    std::fs::write(&file, "x").unwrap();
    fails(open(&file, Arc::new(NoLayers)), ErrorKind::Os(libc::ENOTDIR), "open image store");
    std::fs::create_dir(root.join("store")).unwrap();
    std::fs::write(root.join("store/imagedb"), "x").unwrap();
    let text = "failed to create storage backend";
    fails(open(&root.join("store"), Arc::new(NoLayers)), ErrorKind::Os(libc::ENOTDIR), text);
    // One that is not there is made, with what is above it.
    open(&root.join("new/image/overlay2"), Arc::new(NoLayers)).unwrap().close();
    assert!(root.join("new/image/overlay2/imagedb/content/sha256").is_dir());
}

/// Docker fails at all four: the others are listed, the damage is told, it can be made again and deleted.
#[test]
fn any_one_file_that_is_emptied_spoils_only_itself() {
    let layer = diff("base");
    let names = ["one", "two", "three"];
    let config = |name: &str| layered(name, &[layer]);
    let id = |name: &str| Digest::of(&config(name));
    let prepare = || {
        let store = Store::with(&[layer]);
        for name in names {
            store.create(&config(name)).unwrap();
            store.set_last_updated(&id(name)).unwrap();
            store.add_name(name, &id(name), false).unwrap();
        }
        store.set_parent(&id("two"), &id("one")).unwrap();
        store.set_built_locally(&id("three")).unwrap();
        store
    };
    let files: Vec<String> = {
        let store = prepare();
        tree(store.root.path()).into_iter().filter(|(_, mode)| *mode == 0o600).map(|(name, _)| name).collect()
    };
    assert_eq!(files.len(), 3 + 3 + 1 + 1 + 1, "{files:?}");
    for file in files {
        let mut store = prepare();
        store.close();
        std::fs::write(store.root.join(&file), "").unwrap();
        store.reopen();
        let damaged =
            names.into_iter().find(|name| file.contains("content") && file.contains(&id(name).hex()));
        for name in names.into_iter().filter(|name| Some(*name) != damaged) {
            assert_eq!(store.get_with_bytes(&id(name)).unwrap().1, config(name), "{file}");
            assert!(store.exists(&id(name)), "{file}");
        }
        // What is said of an image beside its config is looked at when it is asked for, but for its parent.
        let told = file.contains("content") || file.ends_with("parent") || file == "repositories.json";
        assert_eq!(store.problems().len(), usize::from(told), "{file}");
        if let Some(name) = damaged {
            assert!(!store.exists(&id(name)));
            store.create(&config(name)).unwrap();
        }
        for name in names {
            store.set_last_updated(&id(name)).unwrap();
            store.add_name(name, &id(name), true).unwrap();
        }
        store.set_parent(&id("two"), &id("one")).unwrap();
        assert_eq!(store.reopen().problems(), [], "{file}");
        assert_eq!((store.len(), store.children(&id("one"))), (3, vec![id("two")]), "{file}");
        std::fs::write(store.root.join(&file), "").unwrap();
        for name in names {
            store.delete(&id(name)).unwrap_or_else(|error| panic!("{file}: {}", error.report()));
        }
        assert_eq!(store.layers.references(&layer), 1, "{file}");
    }
}
