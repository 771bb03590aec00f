// SPDX-License-Identifier: MulanPSL-2.0
//! Making images: each row of the table, and what is better on purpose.

use super::*;

#[test]
fn create_keeps_the_bytes_and_returns_their_digest() {
    let layers = [diff("base")];
    let store = Store::with(&layers);
    for config in [
        bare("plain"),
        layered("with a layer", &layers),
        // Duplicate keys, unknown keys, any order, any white space.
        br#" { "x" : [1,2] , "rootfs":{"diff_ids":null,"type":"x"},"comment":"1","comment":"2" } "#.to_vec(),
    ] {
        let id = store.create(&config).unwrap();
        assert_eq!(id, Digest::of(&config));
        let (image, bytes) = store.get_with_bytes(&id).unwrap();
        assert_eq!((image.id, image.parent, &bytes), (id, None, &config));
        assert_eq!(std::fs::read(store.content(&id)).unwrap(), config);
    }
    assert_eq!(store.len(), 3);
}

#[test]
fn creating_twice_is_one_image_with_one_reference() {
    let layer = diff("base");
    let store = Store::with(&[layer]);
    let config = layered("x", &[layer]);
    let id = store.create(&config).unwrap();
    assert_eq!(store.create(&config).unwrap(), id);
    assert_eq!((store.len(), store.layers.references(&layer)), (1, 2));
}

#[test]
fn create_takes_its_layer_by_chain_id() {
    let diffs = [
        Digest::from_hex("643a3f3368bb6157351905a5d56cc5432917034473228bae895f0c77cd21e839").unwrap(),
        Digest::from_hex("cabccd48ce5a59fd17425e39280c66953b2d3df9234064ad99d8fc9b5638b886").unwrap(),
    ];
    let chain = Digest::from_hex("8723d40f385ceb3b90cf5ea67be39d528b6539a80e551f4b19f27e44f2a4c348").unwrap();
    let store = Store::with(&[chain]);
    let id = store.create(&layered("x", &diffs)).unwrap();
    assert_eq!(store.get(&id).unwrap().config.chain_id, Some(chain));
    assert_eq!(store.layers.references(&chain), 2);
}

#[test]
fn an_image_without_layers_never_asks_for_one() {
    let store = Store::new();
    let id = store.create(&bare("x")).unwrap();
    assert_eq!(store.get(&id).unwrap().config.chain_id, None);
    assert_eq!(store.delete(&id).unwrap(), []);
    assert_eq!(store.layers.calls(), [""; 0]);
}

#[test]
fn a_history_of_more_layers_than_there_are_is_refused_before_anything_is_written() {
    let layer = diff("base");
    let store = Store::with(&[layer]);
    let before = tree(store.root.path());
    let config = |history: &str| {
        format!(r#"{{"rootfs":{{"diff_ids":["{layer}"]}},"history":[{history}]}}"#).into_bytes()
    };
    let refused = store.create(&config(r#"{},{"created_by":"x"}"#));
    fails(refused, ErrorKind::InvalidData, "too many non-empty layers in History section");
    assert_eq!(tree(store.root.path()), before);
    assert_eq!(store.layers.calls(), [""; 0]);
    // Entries of empty layers are free, and there may be fewer entries than layers.
    for fine in [r#"{},{"empty_layer":true},{"empty_layer":true}"#, r#"{"empty_layer":true}"#, ""] {
        store.create(&config(fine)).unwrap();
    }
}

/// Every failed create leaves the tree as it was and no reference.
fn create_leaves_nothing(store: &Store, config: &[u8], kind: ErrorKind, text: &str) {
    let before = tree(store.root.path());
    fails(store.create(config), kind, text);
    assert_eq!(tree(store.root.path()), before);
    let id = Digest::of(config);
    fails(store.get(&id), ErrorKind::NotFound, "failed to get digest");
    fails(store.search(&id.hex()), ErrorKind::NotFound, "No such image");
    assert_eq!(store.len(), store.map().len());
}

#[test]
fn create_without_its_layer_leaves_nothing() {
    let mut store = Store::new();
    let chain = diff("absent");
    let text = format!("failed to get layer {chain}: layer does not exist");
    create_leaves_nothing(&store, &layered("x", &[chain]), ErrorKind::NotFound, &text);
    store.layers.state.lock().retain_fails = true;
    let text = format!("failed to get layer {chain}: the layer store is broken");
    create_leaves_nothing(&store, &layered("x", &[chain]), ErrorKind::Os(libc::EIO), &text);
    assert_eq!(store.reopen().problems(), []);
    assert_eq!(store.len(), 0);
}

#[test]
fn create_without_a_rootfs_is_an_error_that_leaves_nothing() {
    let store = Store::new();
    for config in [
        "{}",
        "null",
        " null ",
        r#"{"rootfs":null}"#,
        r#"{"rootfs":{},"rootfs":null}"#,
        r#"{"comment":"abc"}"#,
    ] {
        let text = "invalid image JSON, no RootFS key";
        create_leaves_nothing(&store, config.as_bytes(), ErrorKind::InvalidData, text);
    }
}

#[test]
fn create_of_garbage_is_an_error_that_leaves_nothing() {
    let store = Store::new();
    fails(store.create(b""), ErrorKind::InvalidArgument, "invalid empty data");
    let deep = format!(r#"{{"rootfs":{{}},"x":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    let open = "{\"a\":".repeat(1_000_000);
    for config in [
        &b"invalid"[..],
        b"[]",
        b"5",
        b"\"rootfs\"",
        b"{\"rootfs\":{}",
        b"{\"rootfs\":{}}x",
        b"\0",
        b"{\"rootfs\":{}}\0",
        b"{\"rootfs\":{},\"comment\":\"\0\"}",
        b"\xef\xbb\xbf{\"rootfs\":{}}",
        b"{\"rootfs\":[]}",
        b"{\"rootfs\":{\"diff_ids\":{}}}",
        b"{\"rootfs\":{\"diff_ids\":[5]}}",
        b"{\"rootfs\":{\"diff_ids\":[null]}}",
        b"{\"rootfs\":{\"diff_ids\":[\"sha256:abc\"]}}",
        b"{\"rootfs\":{\"diff_ids\":[\"../../etc\"]}}",
        b"{\"rootfs\":{},\"created\":\"yesterday\"}",
        b"{\"rootfs\":{},\"config\":{\"Labels\":{\"a\":1}}}",
        deep.as_bytes(),
        open.as_bytes(),
    ] {
        create_leaves_nothing(&store, config, ErrorKind::InvalidData, "read image config");
    }
}

#[test]
fn create_of_100_mib_is_an_error_that_leaves_nothing() {
    let store = Store::new();
    let mut config = br#"{"rootfs":{},"comment":""#.to_vec();
    config.resize(100 << 20, b'x');
    create_leaves_nothing(&store, &config, ErrorKind::LimitExceeded, "the limit is 10485760");
    let mut fits = br#"{"rootfs":{},"comment":""#.to_vec();
    fits.resize(MAX_CONFIG - 2, b'x');
    fits.extend(b"\"}");
    let id = store.create(&fits).unwrap();
    assert_eq!(store.get_with_bytes(&id).unwrap().1.len(), MAX_CONFIG);
}

#[test]
fn create_for_another_operating_system_is_an_error_that_leaves_nothing() {
    let store = Store::new();
    let config = br#"{"os":"windows","rootfs":{}}"#;
    create_leaves_nothing(
        &store,
        config,
        ErrorKind::Unsupported,
        "unsupported image operating system \"windows\"",
    );
    store.create(br#"{"os":"linux","rootfs":{}}"#).unwrap();
    store.create(br#"{"os":"Linux","rootfs":{}}"#).unwrap();
    store.create(br#"{"os":"LINUX","rootfs":{}}"#).unwrap();
    store.create(br#"{"os":"","rootfs":{}}"#).unwrap();
}

#[test]
fn create_writes_a_damaged_config_again() {
    let layer = diff("base");
    let store = Store::with(&[layer]);
    let config = layered("x", &[layer]);
    let id = store.create(&config).unwrap();
    for damage in [Some("damaged"), None] {
        match damage {
            Some(text) => std::fs::write(store.content(&id), text).unwrap(),
            None => std::fs::remove_file(store.content(&id)).unwrap(),
        }
        assert_eq!(store.create(&config).unwrap(), id);
        assert_eq!(store.get_with_bytes(&id).unwrap().1, config);
        assert_eq!(store.layers.references(&layer), 2);
    }
}
