// SPDX-License-Identifier: MulanPSL-2.0
//! Docker's records of layers.

use super::*;

/// Writes the records of a chain, base first, with sizes 1, 2, 4 and so on; their chain IDs.
fn plant(root: &Path, diff_ids: &[Digest]) -> Vec<Digest> {
    let chain = crate::digest::chain_ids(diff_ids);
    for (place, (chain_id, diff_id)) in chain.iter().zip(diff_ids).enumerate() {
        let dir = root.join("layerdb/sha256").join(chain_id.hex());
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::write(dir.join("diff"), diff_id.to_string()).unwrap();
        std::fs::write(dir.join("size"), (1u64 << (place % 60)).to_string()).unwrap();
        std::fs::write(dir.join("cache-id"), diff("cache").hex()).unwrap();
        if place > 0 {
            std::fs::write(dir.join("parent"), chain[place - 1].to_string()).unwrap();
        }
    }
    chain
}

#[test]
fn a_layer_is_read_with_all_below_it() {
    let root = TestRoot::in_memory("imagedb-layerdb");
    let diff_ids = ["a", "b", "c"].map(diff);
    let chain = plant(root.path(), &diff_ids);
    let layers = DockerLayers::open(root.path()).unwrap();
    let wanted = DockerLayer {
        chain_id: chain[2],
        diff_id: diff_ids[2],
        parent: Some(chain[1]),
        cache_id: diff("cache").hex(),
        diff_size: 4,
        size: 7,
    };
    assert_eq!(*layers.get(&chain[2]).unwrap(), wanted);
    let base = layers.get(&chain[0]).unwrap();
    assert_eq!((base.parent, base.size, base.diff_size), (None, 1, 1));
    assert_eq!(layers.ids().unwrap(), sorted(chain));
    fails(layers.get(&diff("absent")), ErrorKind::NotFound, "read layer");
}

#[test]
fn a_damaged_record_is_told_from_an_absent_one() {
    for (file, content, kind, text) in [
        ("diff", Some("nonsense"), ErrorKind::Corrupt, "diff"),
        ("diff", None, ErrorKind::Corrupt, "diff"),
        ("size", None, ErrorKind::Corrupt, "size"),
        ("size", Some("5\n"), ErrorKind::Corrupt, "is no number"),
        ("size", Some("-5"), ErrorKind::Corrupt, "is no number"),
        ("size", Some(""), ErrorKind::Corrupt, "is no number"),
        ("cache-id", Some(""), ErrorKind::Corrupt, "cache-id"),
        ("cache-id", Some("../../etc"), ErrorKind::Corrupt, "cache-id"),
        ("cache-id", None, ErrorKind::Corrupt, "cache-id"),
        ("parent", Some("nonsense"), ErrorKind::Corrupt, "parent"),
        ("parent", None, ErrorKind::Corrupt, "make another chain ID"),
    ] {
        let root = TestRoot::in_memory("imagedb-layerdb");
        let chain = plant(root.path(), &["a", "b"].map(diff));
        let path = root.join("layerdb/sha256").join(chain[1].hex()).join(file);
        match content {
            Some(content) => std::fs::write(path, content).unwrap(),
            None => std::fs::remove_file(path).unwrap(),
        }
        let layers = DockerLayers::open(root.path()).unwrap();
        fails(layers.get(&chain[1]), kind, text);
        layers.get(&chain[0]).unwrap();
    }
    let root = TestRoot::in_memory("imagedb-layerdb");
    let chain = plant(root.path(), &["a", "b", "c"].map(diff));
    std::fs::remove_dir_all(root.join("layerdb/sha256").join(chain[0].hex())).unwrap();
    let layers = DockerLayers::open(root.path()).unwrap();
    fails(layers.get(&chain[2]), ErrorKind::NotFound, "read layer");
}

#[test]
fn a_tampered_diff_id_is_found_out() {
    let root = TestRoot::in_memory("imagedb-layerdb");
    let chain = plant(root.path(), &["a", "b"].map(diff));
    let path = root.join("layerdb/sha256").join(chain[1].hex()).join("diff");
    std::fs::write(path, diff("other").to_string()).unwrap();
    fails(
        DockerLayers::open(root.path()).unwrap().get(&chain[1]),
        ErrorKind::Corrupt,
        "make another chain ID",
    );
}

#[test]
fn a_store_over_dockers_layers_lists_images_and_removes_no_layer() {
    let root = TestRoot::in_memory("imagedb-layerdb");
    let diff_ids: Vec<_> = (0..300).map(|number| diff(&number.to_string())).collect();
    plant(root.path(), &diff_ids);
    let layers = || Arc::new(DockerLayers::open(root.path()).unwrap());
    let db = open(root.path(), layers()).unwrap();
    let id = db.create(&layered("x", &diff_ids)).unwrap();
    fails(db.create(&layered("y", &[diff("absent")])), ErrorKind::NotFound, "layer does not exist");
    let before = tree(&root.join("layerdb"));
    db.close();
    let db = open(root.path(), layers()).unwrap();
    assert_eq!(ids(&db.map()), [id]);
    assert_eq!(db.delete(&id).unwrap(), []);
    assert_eq!(tree(&root.join("layerdb")), before);
    let empty = TestRoot::in_memory("imagedb-layerdb");
    let none = DockerLayers::open(empty.path()).unwrap();
    assert_eq!(none.ids().unwrap(), []);
    fails(none.get(&diff("a")), ErrorKind::NotFound, "there are no layers");
}
