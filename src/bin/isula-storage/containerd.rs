// SPDX-License-Identifier: MulanPSL-2.0
//! `isula-storage containerd`: looks into files of containerd-style image metadata; nothing is written.

use std::path::Path;
use std::time::Duration;

use isula_storage::error::{Error, ErrorKind, Result};
use isula_storage::metadata::{
    Access, Filters, ImageFile, Labels, NamespacedFile, NamespacedImage, Options, Schema, schema_of,
};
use isula_storage::time::Timestamp;
use isula_storage::units::Bytes;
use serde_json::{Map, Value, json};

use crate::args::{Args, ContainerdCommand};
use crate::failure::Failure;
use crate::print;

const IN_USE: &str =
    "containerd keeps its file locked while it runs: stop it first, or look at a copy of the file.";
const NO_METADATA: &str = "What is looked for is containerd's meta.db, or a file that the library made.";
const DAMAGED: &str =
    "The other images of the file are not affected. Go's bbolt has a tool to check the file itself.";
const NO_BOLT: &str = "If it is containerd's meta.db, or a file that the library made, it is damaged: Go's bbolt has a tool to \
                       check it, and a copy from before may be whole.";

pub(crate) fn run(args: &Args, command: &ContainerdCommand) -> Result<(), Failure> {
    let ContainerdCommand::Images { file, namespace, filters } = command;
    // What is known is about the file as a whole.
    let (told, count) = images(args, file, namespace.as_deref(), filters).map_err(|error| {
        Failure::from(error)
            .or_try(ErrorKind::InUse, IN_USE)
            .or_try(ErrorKind::InvalidData, NO_METADATA)
            .or_try(ErrorKind::Corrupt, NO_BOLT)
    })?;
    match told.as_slice() {
        [] => Ok(()),
        problems => {
            if !args.json {
                for problem in problems {
                    eprintln!("isula-storage: {problem}");
                }
            }
            let message = format!("{}: {count} of the images cannot be read", file.display());
            Err(Failure::damaged(message).or_try(ErrorKind::Corrupt, DAMAGED))
        }
    }
}

/// An image of either schema.
struct Row {
    /// `None`: the file has none.
    namespace: Option<String>,
    name: Vec<u8>,
    image: NamespacedImage,
}

/// Prints the images; what could not be read is the result.
fn images(
    args: &Args,
    file: &Path,
    namespace: Option<&str>,
    filters: &[String],
) -> Result<(Vec<String>, u64)> {
    let options = Options { access: Access::ReadOnly, timeout: Some(Duration::ZERO), ..Options::default() };
    let filters = Filters::parse(filters)?;
    let (mut rows, mut problems, mut unreadable) = (Vec::new(), Vec::new(), 0);
    let schema = schema_of(file, &options)?;
    if schema == Schema::Images {
        if namespace.is_some() {
            let message = format!("open {}: there are no namespaces in it", file.display());
            return Err(Error::invalid(message));
        }
        for found in ImageFile::open(file, &options)?.list()? {
            let name = String::from_utf8_lossy(&found.name).into_owned();
            let image = NamespacedImage { name, target: found.target, ..NamespacedImage::default() };
            if filters.choose(&image) {
                rows.push(Row { namespace: None, name: found.name, image });
            }
        }
    } else {
        let file = NamespacedFile::open(file, &options)?.begin();
        for found in file.namespaces()?.into_iter().filter(|name| namespace.is_none_or(|one| one == name)) {
            let listing = file.list(&found, &filters)?;
            unreadable += listing.unreadable;
            problems.extend(
                listing.problems.iter().map(|(_, error)| format!("namespace {found}: {}", error.report())),
            );
            rows.extend(listing.images.into_iter().map(|image| Row {
                namespace: Some(found.clone()),
                name: image.name.clone().into_bytes(),
                image,
            }));
        }
    }
    if args.json {
        let images: Vec<Value> = rows.iter().map(value).collect();
        let (schema, version) = match schema {
            Schema::Namespaced { version } => ("namespaces", Some(version)),
            _ => ("images", None),
        };
        print::json(
            &json!({ "schema": schema, "version": version, "images": images, "problems": problems }),
        )?;
    } else if args.quiet {
        print::lines(rows.iter().map(name))?;
    } else {
        table(&rows)?;
    }
    Ok((problems, unreadable))
}

/// A name may be any bytes; a terminal shows none that would change it.
fn name(row: &Row) -> String {
    match std::str::from_utf8(&row.name) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => row.name.escape_ascii().to_string(),
    }
}

fn value(row: &Row) -> Value {
    let labels = |labels: &Labels| json!(labels);
    let time = |time: Option<Timestamp>| time.and_then(Timestamp::to_utc_text);
    let image = &row.image;
    let mut value = Map::new();
    let mut add = |key: &str, of: Value| drop(value.insert(key.to_owned(), of));
    add("name", json!(image.name));
    if std::str::from_utf8(&row.name).is_err() {
        add("name_bytes", json!(row.name));
    }
    add("digest", json!(image.target.digest));
    add("media_type", json!(image.target.media_type));
    add("size", json!(image.target.size));
    if let Some(namespace) = &row.namespace {
        add("namespace", json!(namespace));
        add("labels", labels(&image.labels));
        add("annotations", labels(&image.annotations));
        add("created", json!(time(image.created)));
        add("updated", json!(time(image.updated)));
    }
    Value::Object(value)
}

fn table(rows: &[Row]) -> Result<()> {
    let now = Timestamp::now();
    let cells: Vec<[String; 6]> = rows
        .iter()
        .map(|row| {
            let target = &row.image.target;
            let updated = row.image.updated.and_then(Timestamp::to_utc_text);
            [
                row.namespace.clone().unwrap_or_else(|| "-".to_owned()),
                name(row),
                print::plain(&target.digest),
                u64::try_from(target.size).map_or_else(|_| "-".to_owned(), |size| Bytes(size).to_string()),
                updated.map_or_else(|| "-".to_owned(), |updated| print::age(Some(&updated), now)),
                print::plain(&target.media_type),
            ]
        })
        .collect();
    print::table(["NAMESPACE", "NAME", "DIGEST", "TARGET SIZE", "UPDATED", "TYPE"], &cells)
}
