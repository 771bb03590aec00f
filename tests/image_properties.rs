// SPDX-License-Identifier: MulanPSL-2.0
//! Properties of names, records and documents, and the image store against a model of a few lines.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "tests"
)]

mod common;
mod images;

use std::collections::{BTreeMap, BTreeSet};

use common::TestRoot;
use images::{options, sample};
use isula_storage::error::ErrorKind;
use isula_storage::image::{ImageStore, ImageStoreOptions};
use isula_storage::persist::{Durability, Ownership};
use isula_storage::record::image::ImageRecord;
use isula_storage::record::layer::LayerRecord;
use isula_storage::record::mount_point::MountPointRecord;
use isula_storage::spec::config::ImageConfig;
use isula_storage::spec::docker_config::DockerConfig;
use isula_storage::spec::manifest::{Index, Kind, Manifest};
use isula_storage::spec::schema1::Schema1;
use isula_storage::{json, reference};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

fn text() -> impl Strategy<Value = String> {
    "[^\0]{0,12}"
}

fn record() -> impl Strategy<Value = ImageRecord> {
    let texts = (option::of(text()), option::of(text()), option::of(text()), option::of(text()));
    let lists = (vec(text(), 0..3), vec(text(), 0..2), vec(text(), 0..3));
    let maps = (option::of(vec((text(), any::<i64>()), 0..3)), option::of(vec((text(), text()), 0..3)));
    (texts, lists, maps, option::of(text()), option::of(text()), any::<u64>()).prop_map(
        |(
            (id, digest, layer, metadata),
            (names, mapped_layers, big_data_names),
            maps,
            created,
            loaded,
            size,
        )| {
            ImageRecord {
                id,
                digest,
                names,
                layer,
                mapped_layers,
                metadata,
                big_data_names,
                big_data_sizes: maps.0,
                big_data_digests: maps.1,
                created,
                loaded,
                size,
            }
        },
    )
}

/// Bytes that often come close to a document.
fn document() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        Just("{".to_owned()),
        Just("}".to_owned()),
        Just("[".to_owned()),
        Just("]".to_owned()),
        Just(",".to_owned()),
        Just(":".to_owned()),
        Just("\\ud800".to_owned()),
        Just("/*".to_owned()),
        Just("*/".to_owned()),
        Just("//".to_owned()),
        Just("\n".to_owned()),
        "\"(id|names|size|config|layers|rootfs|diff_ids|history|fsLayers|v1Compatibility|schemaVersion)\"",
        "-?[0-9]{1,22}(\\.[0-9])?",
        "\"[^\"]{0,4}\"",
    ];
    prop_oneof![vec(any::<u8>(), 0..60), vec(piece, 0..30).prop_map(|pieces| pieces.concat().into_bytes())]
}

fn valid_name() -> impl Strategy<Value = String> {
    "([a-zA-Z0-9]([a-zA-Z0-9-]{0,4}[a-zA-Z0-9])?(\\.[a-z0-9]{1,4}){0,2}(:[0-9]{1,5})?/)?\
     [a-z0-9]{1,5}((\\.|_|__|-{1,3})[a-z0-9]{1,3}){0,2}(/[a-z0-9]{1,5}){0,2}\
     (:[A-Za-z_0-9][A-Za-z_0-9.-]{0,10})?(@sha256:[a-f0-9]{64})?"
}

proptest! {
    #[test]
    fn a_record_is_read_as_it_was_written(record in record()) {
        let written = record.to_json().unwrap();
        let read = ImageRecord::parse(&written).unwrap();
        prop_assert_eq!(&read, &record);
        prop_assert_eq!(read.to_json().unwrap(), written);
    }

    #[test]
    fn no_document_does_harm(document in document()) {
        let image = ImageRecord::parse(&document);
        if let Ok(image) = image {
            prop_assert_eq!(ImageRecord::parse(&image.to_json().unwrap()).unwrap(), image);
        }
        if let Ok(layer) = LayerRecord::parse(&document) {
            prop_assert_eq!(LayerRecord::parse(&layer.to_json().unwrap()).unwrap(), layer);
        }
        if let Ok(mount) = MountPointRecord::parse(&document) {
            prop_assert_eq!(MountPointRecord::parse(&mount.to_json().unwrap()).unwrap(), mount);
        }
        if let Ok(config) = DockerConfig::parse(&document) {
            prop_assert_eq!(DockerConfig::parse(config.to_text().as_bytes()).unwrap(), config);
        }
        if let Ok(value) = json::parse(&document) {
            Kind::of(&value);
        }
        if let Ok(manifest) = Schema1::parse(&document)
            && let Ok(layers) = manifest.layers()
        {
            let diff_ids = vec![Some("sha256:d".to_owned()); layers.len()];
            drop(manifest.to_config(&layers, &diff_ids));
        }
        drop((ImageConfig::parse(&document), Manifest::parse(&document), Index::parse(&document)));
    }

    #[test]
    fn a_name_made_by_the_rules_is_valid_and_stays_so(name in valid_name()) {
        prop_assert!(reference::is_valid_name(&name), "{name}");
        let normal = reference::normalize(&name, Some("docker.io")).unwrap();
        prop_assert!(reference::is_valid_name(&normal), "{name} -> {normal}");
        prop_assert!(reference::tag_position(&normal).is_some());
        prop_assert_eq!(reference::is_digest_name(&name), reference::digest_position(&name).is_some());
    }

    #[test]
    fn a_name_with_a_character_that_no_name_has_is_not_valid(name in valid_name(), at in any::<usize>(), bad in "[ !$%é]") {
        let mut name = name;
        name.insert_str(at % (name.len() + 1), &bad);
        // After 32 digits nothing of a digest is looked at, as in the reference.
        let looked_at = reference::digest_position(&name).unwrap_or(name.len());
        prop_assert!(name.find(&bad).unwrap() > looked_at || !reference::is_valid_name(&name), "{name}");
    }

    #[test]
    fn no_text_does_harm_to_names(text in "\\PC{0,80}") {
        reference::is_valid_name(&text);
        reference::is_digest_name(&text);
        reference::digest_position(&text);
        reference::parse_user_group(&text);
        reference::without_tag(&text);
        drop(reference::normalize(&text, Some("docker.io")));
        let stripped = reference::strip_host(&text, Some("docker.io"));
        prop_assert!(text.ends_with(stripped));
    }

    #[test]
    fn two_keys_never_share_a_file(one in text(), two in text()) {
        let same = reference::big_data_file_name(&one) == reference::big_data_file_name(&two);
        prop_assert_eq!(same, one == two);
    }

    #[test]
    fn integers_survive_in_every_base(number in any::<i64>()) {
        let sign = if number < 0 { "-" } else { "" };
        let magnitude = number.unsigned_abs();
        prop_assert_eq!(reference::parse_integer(&number.to_string()), Some(number));
        prop_assert_eq!(reference::parse_integer(&format!("{sign}{magnitude:#x}")), Some(number));
        prop_assert_eq!(reference::parse_integer(&format!("{sign}0{magnitude:o}")), Some(number));
        prop_assert_eq!(reference::parse_integer(&format!("{number}x")), None);
    }
}

/// What can be done to a store of up to four images and five names.
#[derive(Debug, Clone)]
enum Act {
    Create(usize, BTreeSet<usize>),
    AddName(usize, usize),
    SetNames(usize, BTreeSet<usize>),
    Delete(usize),
    DeleteByName(usize),
    Load,
    Restart,
}

fn act() -> impl Strategy<Value = Act> {
    let names = || proptest::collection::btree_set(0..5usize, 0..4);
    prop_oneof![
        3 => (0..4usize, names()).prop_map(|(image, names)| Act::Create(image, names)),
        3 => (0..4usize, 0..5usize).prop_map(|(image, name)| Act::AddName(image, name)),
        3 => (0..4usize, names()).prop_map(|(image, names)| Act::SetNames(image, names)),
        1 => (0..4usize).prop_map(Act::Delete),
        1 => (0..5usize).prop_map(Act::DeleteByName),
        1 => Just(Act::Load),
        1 => Just(Act::Restart),
    ]
}

type Model = BTreeMap<usize, BTreeSet<usize>>;

fn name(number: usize) -> String {
    format!("name{number}:1")
}

fn holder(model: &Model, name: usize) -> Option<usize> {
    model.iter().find(|(_, names)| names.contains(&name)).map(|(image, _)| *image)
}

fn take_names(model: &mut Model, names: &BTreeSet<usize>) {
    model.values_mut().for_each(|held| held.retain(|name| !names.contains(name)));
}

/// Does it to both and compares what they say.
fn apply(store: &ImageStore, model: &mut Model, act: &Act) {
    let texts = |names: &BTreeSet<usize>| names.iter().map(|n| name(*n)).collect::<Vec<_>>();
    match act {
        Act::Create(image, names) => {
            let free = !model.contains_key(image) && names.iter().all(|name| holder(model, *name).is_none());
            let sample = sample(*image);
            let mut request = sample.request(&[]);
            request.names = texts(names);
            match store.create(&request) {
                Ok(_) => {
                    assert!(free);
                    store.set_big_data(&sample.id, &sample.config_key(), sample.config.as_bytes()).unwrap();
                    store.set_big_data(&sample.id, "manifest", sample.manifest.as_bytes()).unwrap();
                    model.insert(*image, names.clone());
                }
                Err(error) => assert!(!free && error.kind() == ErrorKind::AlreadyExists),
            }
        }
        Act::AddName(image, number) => {
            let result = store.add_name(&sample(*image).id, &name(*number));
            assert_eq!(result.is_ok(), model.contains_key(image));
            if result.is_ok() {
                take_names(model, &BTreeSet::from([*number]));
                model.get_mut(image).unwrap().insert(*number);
            }
        }
        Act::SetNames(image, names) => {
            let result = store.set_names(&sample(*image).id, &texts(names));
            assert_eq!(result.is_ok(), model.contains_key(image) && !names.is_empty());
            if result.is_ok() {
                take_names(model, names);
                model.insert(*image, names.clone());
            }
        }
        Act::Delete(image) => {
            assert_eq!(store.delete(&sample(*image).id).unwrap(), model.remove(image).is_some());
        }
        Act::DeleteByName(number) => {
            let image = holder(model, *number);
            assert_eq!(store.delete(&name(*number)).unwrap(), image.is_some());
            image.map(|image| model.remove(&image));
        }
        Act::Load => store.load().unwrap(),
        Act::Restart => {}
    }
}

fn compare(store: &ImageStore, model: &Model) {
    assert_eq!(store.count().unwrap(), model.len());
    for image in 0..4 {
        let sample = sample(image);
        assert_eq!(store.exists(&sample.id), model.contains_key(&image));
        if let Some(names) = model.get(&image) {
            assert_eq!(
                store.names(&sample.id[..12]).unwrap(),
                names.iter().map(|n| name(*n)).collect::<Vec<_>>()
            );
            assert_eq!(store.by_digest(&sample.manifest_digest()).unwrap().len(), 1);
            for number in names {
                let digest = format!("name{number}@{}", sample.manifest_digest());
                assert_eq!(store.lookup(&digest).unwrap().as_str(), sample.id);
            }
        }
    }
    for number in 0..5 {
        let found = store.lookup(&name(number)).ok().map(|id| id.to_string());
        assert_eq!(found, holder(model, number).map(|image| sample(image).id));
    }
    assert_eq!(store.problems(), []);
}

fn open(root: &TestRoot) -> ImageStore {
    let options = options(root.path(), Ownership::Owner);
    ImageStore::open(ImageStoreOptions { durability: Durability::None, ..options }).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { rng_seed: RngSeed::Fixed(1), ..ProptestConfig::with_cases(64) })]
    #[test]
    fn a_store_does_what_its_model_does(acts in vec(act(), 1..30)) {
        let root = TestRoot::in_memory("image-model");
        let (mut store, mut model) = (open(&root), Model::new());
        for act in &acts {
            if matches!(act, Act::Restart) {
                drop(store);
                store = open(&root);
            }
            apply(&store, &mut model, act);
            compare(&store, &model);
        }
        assert!(store.check().unwrap().is_empty());
    }
}
