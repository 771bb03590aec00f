// SPDX-License-Identifier: MulanPSL-2.0
//! Opening the store: what is on disk, in two passes.

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use crate::digest::Digest;
use crate::error::{During, Error, ErrorKind, Result};
use crate::layer::Problem;
use crate::persist::{Ownership, StateDir, sweep_temporary};
use crate::sys::fs::{Dir, SmallFiles};

use super::backend::{Backend, Signature};
use super::change::Control;
use super::config::Config;
use super::index::{Entry, Index};
use super::layers::Layers;
use super::repositories::Repositories;
use super::{ImageDb, ImageDbOptions, PARENT};

const STATE: &str = ".isula-storage";

/// Images that are read by one thread: fewer are not worth one.
const SHARE: usize = 256;
/// Most threads that read.
const MOST_THREADS: usize = 4;

pub(super) fn open(options: ImageDbOptions) -> Result<ImageDb> {
    let path = options.root.clone();
    open_store(options).during(|| format!("open image store {}", path.display()))
}

fn open_store(options: ImageDbOptions) -> Result<ImageDb> {
    let ImageDbOptions { root: path, ownership, durability, layers } = options;
    if ownership == Ownership::Shared {
        return Err(Error::new(ErrorKind::Unsupported, "an image store of Docker's has one owner"));
    }
    let root = match (Dir::open(&path), ownership) {
        (Err(error), Ownership::Owner) if error.kind() == ErrorKind::NotFound => {
            Dir::create_all(&path, 0o700)?
        }
        (opened, _) => opened?,
    };
    let state = StateDir::open(&root, STATE, ownership, durability)?;
    let mut problems = Vec::new();
    let backend = match ownership {
        Ownership::ReadOnly => Backend::open_to_read(&root)?,
        Ownership::Owner | Ownership::Shared => {
            let backend = Backend::open(&root, durability)?;
            backend.tidy(&state)?;
            state.sweep_trash();
            sweep_temporary(&root);
            backend
        }
    };
    let repositories = Repositories::open(&root, &state, durability, &mut problems)?;
    let sweep = ownership != Ownership::ReadOnly;
    let index = restore(&backend, &*layers, sweep, &mut problems)?;
    for problem in &problems {
        log::warn!("image store {}: {}: {}", path.display(), problem.subject, problem.reason);
    }
    Ok(ImageDb {
        root: root.path().to_owned(),
        ownership,
        state,
        backend,
        layers,
        control: Mutex::new(Control::default()),
        index: RwLock::new(index),
        repositories,
        problems,
    })
}

fn problem(id: &Digest, reason: impl Into<String>) -> Problem {
    Problem { subject: format!("image {id}"), reason: reason.into(), quarantined: false }
}

/// Takes references; once nothing can fail any more they are the store's.
fn restore(
    backend: &Backend,
    layers: &dyn Layers,
    sweep: bool,
    problems: &mut Vec<Problem>,
) -> Result<Index> {
    let mut ids = backend.ids()?;
    ids.sort_unstable();
    let mut with_metadata = backend.ids_with_metadata()?;
    with_metadata.sort_unstable();
    let mut index = Index::default();
    for (id, read) in ids.iter().zip(read_all(backend, &ids)) {
        let (config, signature) = match read {
            Ok(read) => read,
            Err(error) => {
                problems.push(problem(id, format!("invalid image: {}", error.report())));
                continue;
            }
        };
        if let Some(chain_id) = &config.chain_id
            && let Err(error) = layers.retain(chain_id)
        {
            problems.push(problem(id, failed_layer(chain_id, error).report()));
            continue;
        }
        index.put(Entry { id: *id, config: Arc::new(config), verified: Mutex::new(signature) });
    }
    tie(backend, &mut index, &ids, &with_metadata, sweep, problems);
    Ok(index)
}

/// Why the layer of an image could not be had.
pub(super) fn failed_layer(chain_id: &Digest, error: Error) -> Error {
    let error = match error.kind() {
        ErrorKind::NotFound => error.context("layer does not exist"),
        _ => error,
    };
    error.context(format!("failed to get layer {chain_id}"))
}

type Read = Result<(Config, Signature)>;

/// Reads and verifies configs, in the order of the ids; with more than one thread when there are many.
fn read_all(backend: &Backend, ids: &[Digest]) -> Vec<Read> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS);
    let threads = threads.min(ids.len() / SHARE).max(1);
    if threads == 1 {
        return ids.iter().map(|id| read_one(backend, id)).collect();
    }
    let share = ids.len().div_ceil(threads);
    std::thread::scope(|scope| {
        let shares: Vec<_> = ids
            .chunks(share)
            .map(|ids| {
                let read = move || ids.iter().map(|id| read_one(backend, id)).collect::<Vec<_>>();
                (ids, std::thread::Builder::new().spawn_scoped(scope, read))
            })
            .collect();
        let mut all = Vec::with_capacity(ids.len());
        for (ids, thread) in shares {
            // No thread to be had, or one that panicked: this one does its work.
            match thread.ok().and_then(|thread| thread.join().ok()) {
                Some(read) => all.extend(read),
                None => all.extend(ids.iter().map(|id| read_one(backend, id))),
            }
        }
        all
    })
}

fn read_one(backend: &Backend, id: &Digest) -> Read {
    let (bytes, signature) = backend.get_with_signature(id)?;
    Ok((Config::parse(&bytes)?, signature))
}

/// The second pass: parents and children.
fn tie(
    backend: &Backend,
    index: &mut Index,
    ids: &[Digest],
    with_metadata: &[Digest],
    sweep: bool,
    problems: &mut Vec<Problem>,
) {
    let mut files = SmallFiles::default();
    for id in with_metadata {
        if index.get(id).is_none() {
            if ids.binary_search(id).is_err() {
                problems.push(problem(id, "there are metadata of it, but no config"));
            }
            continue;
        }
        let text = match backend.quick_metadata(&mut files, id, PARENT, sweep) {
            Some(Some(text)) => Ok(text),
            Some(None) => continue,
            None => backend.metadata_of(id, PARENT),
        };
        match text.and_then(|text| parse_parent(&text)) {
            Ok(parent) => index.set_parent(id, Some(parent)),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => problems.push(problem(id, format!("its parent: {}", error.report()))),
        }
    }
    for id in index.circles() {
        problems.push(problem(&id, "it is its own parent or forefather"));
    }
}

/// Readers trim white space.
pub(super) fn parse_parent(text: &[u8]) -> Result<Digest> {
    let text = String::from_utf8_lossy(text);
    Digest::parse(text.trim()).map_err(|error| error.with_kind(ErrorKind::Corrupt))
}
