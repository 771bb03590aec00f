// SPDX-License-Identifier: MulanPSL-2.0
//! Every input that a fuzz target has found worth keeping, replayed.
//!
//! A target is a directory of `fuzz/corpus` and its function; one that has no function here fails the test, so that
//! none is forgotten. A crash found by fuzzing is fixed together with its input in the corpus.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "../fuzz/bodies.rs"]
mod bodies;

use std::path::Path;

use isula_storage::archive::fuzzing;
use isula_storage::metadata::{self, boltfile};

fn target(name: &str) -> fn(&[u8]) {
    match name {
        "tar_reader" => |input| {
            fuzzing::tar_reader(input);
            fuzzing::tar_reader_signed(input);
        },
        "tar_split" => fuzzing::tar_split,
        "decompression" => fuzzing::decompression,
        "unpacking" => bodies::unpacking,
        "records" => bodies::records,
        "bolt_file" => boltfile::fuzzing::file,
        "bolt_changes" => boltfile::fuzzing::changes,
        "references" => bodies::references,
        "documents" => bodies::documents,
        "docker_images" => bodies::docker_images,
        "docker_store" => bodies::docker_store,
        "image_metadata" => metadata::fuzzing::images,
        other => panic!("the fuzz target {other} is not replayed"),
    }
}

#[test]
fn the_corpus_of_every_fuzz_target_is_replayed() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let mut replayed = 0;
    for directory in std::fs::read_dir(corpus).unwrap() {
        let directory = directory.unwrap().path();
        let run = target(directory.file_name().unwrap().to_str().unwrap());
        let mut files = 0;
        for input in std::fs::read_dir(&directory).unwrap() {
            let input = std::fs::read(input.unwrap().path()).unwrap();
            run(&input);
            // Cut and damaged variants reach the errors.
            for cut in 1..8 {
                run(&input[..input.len() * cut / 8]);
                let mut damaged = input.clone();
                if let Some(byte) = damaged.get_mut(input.len() * cut / 8) {
                    *byte ^= 1 << (cut % 8);
                }
                run(&damaged);
            }
            files += 1;
        }
        assert!(files > 0, "{} is empty", directory.display());
        replayed += files;
    }
    assert!(replayed > 0);
}
