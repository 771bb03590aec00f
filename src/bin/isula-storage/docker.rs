// SPDX-License-Identifier: MulanPSL-2.0
//! `isula-storage docker`: looks into the image store of a Docker daemon, and changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use isula_storage::digest::Digest;
use isula_storage::error::{During, Error, Result};
use isula_storage::imagedb::{AnyLayers, DockerLayers, Image, ImageDb, ImageDbOptions, Layers};
use isula_storage::storage::{Durability, Ownership};
use isula_storage::time::Timestamp;
use isula_storage::units::Bytes;
use serde_json::{Value, json};

use crate::args::{Args, DockerCommand};
use crate::failure::Failure;
use crate::print;

/// The store, and the daemon's layers where it has some.
struct Opened {
    db: ImageDb,
    layers: Option<Arc<DockerLayers>>,
}

pub(crate) fn run(args: &Args, command: &DockerCommand) -> std::result::Result<(), Failure> {
    match command {
        DockerCommand::Images { root, no_trunc } => images(args, &open(root)?, *no_trunc)?,
        DockerCommand::Search { root, term } => {
            let id = open(root)?.db.search(term)?;
            if args.json {
                print::json(&json!({ "id": id.to_string() }))?;
            } else {
                print::lines([id.to_string()])?;
            }
        }
        DockerCommand::Tree { root, no_trunc } => tree(args, &open(root)?, *no_trunc)?,
    }
    Ok(())
}

fn open(root: &Path) -> Result<Opened> {
    let root = image_root(root).during(|| format!("open {}", root.display()))?;
    let layers =
        if root.join("layerdb").is_dir() { Some(Arc::new(DockerLayers::open(&root)?)) } else { None };
    let db = ImageDb::open(ImageDbOptions {
        root,
        ownership: Ownership::ReadOnly,
        durability: Durability::Full,
        layers: match &layers {
            Some(layers) => Arc::clone(layers) as Arc<dyn Layers>,
            None => Arc::new(AnyLayers),
        },
    })?;
    Ok(Opened { db, layers })
}

/// The directory above `imagedb`: what was given, or the one of the only graph driver in a daemon's data directory.
fn image_root(root: &Path) -> Result<PathBuf> {
    if is_dir(&root.join("imagedb"))? {
        return Ok(root.to_owned());
    }
    let drivers = root.join("image");
    let mut found = Vec::new();
    if is_dir(&drivers)? {
        for entry in std::fs::read_dir(&drivers).during(|| format!("list {}", drivers.display()))? {
            let driver = entry.during(|| format!("list {}", drivers.display()))?.path();
            if is_dir(&driver.join("imagedb"))? {
                found.push(driver);
            }
        }
    }
    match (found.pop(), found.is_empty()) {
        (Some(only), true) => Ok(only),
        (Some(_), false) => {
            Err(Error::invalid("it holds the images of several graph drivers: name one of them"))
        }
        (None, _) => Err(Error::not_found("there is no directory imagedb")),
    }
}

/// What may not be looked at is not what is not there.
fn is_dir(path: &Path) -> Result<bool> {
    match std::fs::metadata(path) {
        Ok(found) => Ok(found.is_dir()),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(false)
        }
        Err(error) => Err(error).during(|| format!("look at {}", path.display())),
    }
}

impl Opened {
    /// Size of an image's layers in bytes, where it is known.
    fn size(&self, image: &Image) -> Option<u64> {
        match &image.config.chain_id {
            None => Some(0),
            Some(chain_id) => Some(self.layers.as_ref()?.get(chain_id).ok()?.size),
        }
    }

    fn describe(&self, image: &Image) -> Value {
        json!({
            "id": image.id.to_string(),
            "names": self.db.names(&image.id),
            "parent": image.parent.map(|parent| parent.to_string()),
            "children": texts(&self.db.children(&image.id)),
            "created": image.config.created,
            "architecture": image.config.architecture,
            "os": image.config.os,
            "chain_id": image.config.chain_id.map(|chain_id| chain_id.to_string()),
            "layers": image.config.diff_ids.len(),
            "size": self.size(image),
            "last_updated": self.db.last_updated(&image.id).ok().flatten().and_then(Timestamp::to_utc_text),
            "built_locally": self.db.is_built_locally(&image.id).unwrap_or(false),
        })
    }
}

fn texts(ids: &[Digest]) -> Vec<String> {
    ids.iter().map(Digest::to_string).collect()
}

fn shown(id: &Digest, whole: bool) -> String {
    print::short(&id.hex(), whole).to_owned()
}

fn names(db: &ImageDb, image: &Image) -> String {
    let names = db.names(&image.id);
    // Names that are none are kept as they are found.
    if names.is_empty() { "<none>".to_owned() } else { print::plain(&names.join(", ")) }
}

fn images(args: &Args, opened: &Opened, no_trunc: bool) -> Result<()> {
    let images = opened.db.map();
    if args.json {
        return print::json(&images.iter().map(|image| opened.describe(image)).collect());
    }
    if args.quiet {
        return print::lines(images.iter().map(|image| shown(&image.id, no_trunc)));
    }
    let now = Timestamp::now();
    let row = |image: &Image| {
        let parent = image.parent.map_or_else(|| "-".to_owned(), |parent| shown(&parent, no_trunc));
        let size = opened.size(image).map_or_else(|| "unknown".to_owned(), |size| Bytes(size).to_string());
        let age = print::age(image.config.created.as_deref(), now);
        [shown(&image.id, no_trunc), names(&opened.db, image), parent, size, age]
    };
    let rows: Vec<_> = images.iter().map(row).collect();
    print::table(["IMAGE ID", "NAMES", "PARENT", "SIZE", "CREATED"], &rows)
}

/// Images below their parents, each with its depth. One whose parent is not there is a root; so is the first of those that
/// are their own forefathers.
fn in_order(images: &[Image]) -> Vec<(&Image, usize)> {
    let known: BTreeMap<Digest, &Image> = images.iter().map(|image| (image.id, image)).collect();
    let mut children: BTreeMap<Digest, Vec<&Image>> = BTreeMap::new();
    for image in images {
        if let Some(parent) = image.parent {
            children.entry(parent).or_default().push(image);
        }
    }
    let is_root = |image: &&Image| image.parent.is_none_or(|parent| !known.contains_key(&parent));
    let mut order = Vec::with_capacity(images.len());
    let mut seen = BTreeSet::new();
    for root in images.iter().filter(is_root).chain(images) {
        let mut stack = vec![(root, 0)];
        while let Some((image, depth)) = stack.pop() {
            if !seen.insert(image.id) {
                continue;
            }
            order.push((image, depth));
            let below = children.get(&image.id).into_iter().flatten().rev();
            stack.extend(below.map(|child| (*child, depth + 1)));
        }
    }
    order
}

fn tree(args: &Args, opened: &Opened, no_trunc: bool) -> Result<()> {
    let images = opened.db.map();
    let order = in_order(&images);
    if args.json {
        let line = |(image, depth): &(&Image, usize)| {
            let mut value = opened.describe(image);
            if let Some(members) = value.as_object_mut() {
                members.insert("depth".to_owned(), json!(depth));
            }
            value
        };
        return print::json(&order.iter().map(line).collect());
    }
    print::lines(order.iter().map(|(image, depth)| {
        let indent = "  ".repeat((*depth).min(100));
        let id = shown(&image.id, no_trunc);
        if args.quiet {
            format!("{indent}{id}")
        } else {
            format!("{indent}{id}   {}", names(&opened.db, image))
        }
    }))
}
