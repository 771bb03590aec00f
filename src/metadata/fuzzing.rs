// SPDX-License-Identifier: MulanPSL-2.0
//! Entry point for fuzzing: files with any images, in memory, with what must hold whatever the input.

#![allow(clippy::panic, clippy::expect_used, reason = "a broken invariant is what a fuzzer looks for")]

use super::boltfile::{BoltFile, BucketMut, fuzzing as boltfile};
use super::database::{Database, IMAGES, Schema, V1, VERSION};
use super::images::{DIGEST, MEDIA_TYPE, SIZE};
use super::{
    Filters, ImageFile, NamespacedFile, NamespacedImage, OUR_VERSION, Target, gotime, is_not_found, varint,
};
use crate::error::Result;
use crate::time::Timestamp;

/// Most images of a list that are looked at one by one.
const MOST: usize = 50;
/// Most of them, and most namespaces, that are changed: each change is a commit.
const MOST_CHANGED: usize = 5;
/// Most that is put into a file.
const MOST_PLACED: usize = 300;

/// Takes the input as a file, or as what lies in one; whatever it is, images are read and changed.
pub fn images(input: &[u8]) {
    let Some((mode, rest)) = input.split_first() else { return };
    let made = match mode % 8 {
        0 => boltfile::in_memory(rest.to_vec()),
        4 => boltfile::sealed_in_memory(rest.to_vec()),
        kind => built(kind % 4, rest),
    };
    let Ok(file) = made else { return };
    let database = Database { file, path: "memory".into() };
    match database.schema() {
        Ok(Schema::Empty | Schema::Images) => plain(&ImageFile::of(database)),
        Ok(Schema::Namespaced { .. }) => namespaced(&NamespacedFile::of(database)),
        Ok(Schema::Other) | Err(_) => {}
    }
}

/// A file with anything where images are looked for.
fn built(kind: u8, input: &[u8]) -> Result<BoltFile> {
    let file = boltfile::in_memory(Vec::new())?;
    let mut writing = file.begin_write()?;
    {
        let mut root = writing.root_mut()?;
        let mut v1 = root.create_bucket(V1)?;
        match kind {
            1 => v1.create_bucket(IMAGES).map(|_| ())?,
            2 => v1.put(VERSION, &varint::encode(OUR_VERSION))?,
            _ => {}
        }
        let mut input = Input(input);
        for _ in 0..MOST_PLACED {
            if input.0.is_empty() {
                break;
            }
            input.place(&mut v1, usize::from(input.peek() % 5));
        }
    }
    writing.commit()?;
    Ok(file)
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn peek(&self) -> u8 {
        self.0.first().copied().unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        let byte = self.peek();
        self.0 = self.0.get(1..).unwrap_or_default();
        byte
    }

    fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte() % 32).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes
    }

    fn key(&mut self) -> &'a [u8] {
        const KEYS: [&[u8]; 14] = [
            IMAGES,
            b"ns",
            b"default",
            b"a",
            b"b",
            b"target",
            DIGEST,
            MEDIA_TYPE,
            SIZE,
            b"labels",
            b"annotations",
            b"createdat",
            b"updatedat",
            VERSION,
        ];
        let which = usize::from(self.byte() % 16);
        KEYS.get(which).copied().unwrap_or_else(|| self.bytes())
    }

    fn value(&mut self) -> Vec<u8> {
        match self.byte() % 6 {
            0 => format!("sha256:{:064x}", self.byte()).into_bytes(),
            1 => varint::encode(i64::from(self.byte()) - 8),
            2 => gotime::encode(Timestamp { seconds: i64::from(self.byte()), nanos: 0 }),
            // More than a page.
            3 => vec![self.byte(); 2_500],
            _ => self.bytes().to_vec(),
        }
    }

    /// Puts something into a bucket, or into one that lies so much deeper. What cannot be put is not there.
    fn place(&mut self, bucket: &mut BucketMut<'_>, depth: usize) {
        self.byte();
        let key = self.key();
        if depth == 0 {
            let value = self.value();
            drop(bucket.put(key, &value));
        } else if let Ok(mut inner) = bucket.create_bucket_if_not_exists(key) {
            self.place(&mut inner, depth - 1);
        }
    }
}

fn plain(file: &ImageFile) {
    let listed = file.list();
    let images = listed.as_deref().unwrap_or_default();
    assert!(images.is_sorted_by(|one, other| one.name < other.name), "lists are in order");
    for image in images.iter().take(MOST) {
        assert_eq!(file.get(&image.name).expect("what is listed can be had"), *image);
    }
    let Ok(mut writing) = file.begin_write() else { return };
    let target = Target { media_type: "m".to_owned(), digest: "d".to_owned(), size: -5 };
    let put = writing.put(b"new", &target);
    if put.is_ok() {
        assert_eq!(writing.get(b"new").expect("what was put is there").target, target);
    }
    for image in images {
        let gone = writing.delete(&image.name);
        assert!(image.name == b"new" || gone.is_ok(), "an image can be deleted");
    }
    if writing.commit().is_ok() && listed.is_ok() {
        let left = file.list().expect("a list of what was written");
        assert!(left.iter().all(|image| image.name == b"new"), "what was deleted is gone");
        assert!(images.iter().all(
            |image| is_not_found(&file.get(&image.name).expect_err("it is gone")) || image.name == b"new"
        ));
    }
}

fn namespaced(file: &NamespacedFile) {
    for namespace in file.namespaces().unwrap_or_default().iter().take(MOST) {
        let Ok(listing) = file.list(namespace, &Filters::default()) else { continue };
        for image in listing.images.iter().take(MOST) {
            assert_eq!(file.get(namespace, &image.name).expect("what is listed can be had"), *image);
        }
        for (name, _) in listing.problems.iter().take(MOST) {
            drop(file.get(namespace, name));
        }
        drop(file.begin().namespace_labels(namespace));
    }
    imported(file);
    changed(file);
}

/// Nothing half is taken over, and a second time nothing at all.
fn imported(from: &NamespacedFile) {
    let database =
        Database { file: boltfile::in_memory(Vec::new()).expect("a new file"), path: "ours".into() };
    let ours = NamespacedFile::of(database);
    ours.initialise().expect("a new file");
    let Ok(first) = ours.import_from(&from.begin(), None) else {
        assert_eq!(ours.namespaces().expect("namespaces"), [""; 0], "a failed import has left something");
        return;
    };
    let mut count = 0;
    for namespace in ours.namespaces().expect("namespaces") {
        let listing = ours.list(&namespace, &Filters::default()).expect("a list");
        assert!(listing.problems.is_empty(), "half an image: {:?}", listing.problems);
        count += listing.images.len();
    }
    assert_eq!(count, first.imported.len(), "what is told as imported is there");
    let second = ours.import_from(&from.begin(), None).expect("the same import");
    assert_eq!((second.imported.len(), second.present), (0, first.imported));
}

fn changed(file: &NamespacedFile) {
    let Ok(namespaces) = file.namespaces() else { return };
    let new = NamespacedImage {
        name: "new".to_owned(),
        target: Target { media_type: "m".to_owned(), digest: format!("sha256:{:064x}", 7), size: 1 },
        ..NamespacedImage::default()
    };
    for namespace in namespaces.iter().map(String::as_str).take(MOST_CHANGED).chain(["fresh"]) {
        let made = file.create(namespace, &new.clone().with_labels([("k", "v")]));
        if made.is_ok() {
            assert_eq!(file.get(namespace, "new").expect("it was made").target, new.target);
        }
        let before: Vec<String> = match file.list(namespace, &Filters::default()) {
            Ok(listing) => listing.images.into_iter().map(|image| image.name).collect(),
            Err(_) => continue,
        };
        for name in before.iter().take(MOST_CHANGED) {
            let image = NamespacedImage { name: name.clone(), ..new.clone() };
            if file.update(namespace, &image, &["target"]).is_ok() {
                assert_eq!(file.get(namespace, name).expect("it is there").target, new.target);
            }
            if file.delete(namespace, name, None).is_ok() {
                assert!(is_not_found(&file.get(namespace, name).expect_err("it is gone")));
            }
        }
        drop(file.delete_namespace(namespace));
    }
}
