// SPDX-License-Identifier: MulanPSL-2.0
//! The commands: open the storage, ask it, print.

use std::io;
use std::path::Path;

use isula_storage::error::{During, Error, ErrorKind};
use isula_storage::image::ImageSummary;
use isula_storage::layer::Layer;
use isula_storage::storage::{
    CommitOptions, ImageChange, ImportOptions, ImportReport, Ownership, Platform, Status, Storage,
    StorageOptions, WithoutImages,
};
use isula_storage::time::Timestamp;
use isula_storage::units::Bytes;
use serde_json::{Value, json};

use crate::args::{Args, Command, QuarantineCommand};
use crate::care;
use crate::containerd;
use crate::failure::Failure;
use crate::meter::{self, Meter};
use crate::{archive, docker, print, self_help};

type Outcome = Result<(), Failure>;

const NO_STORE: &str = "There is no store: give its directory with --root, or import an image to make one.";

pub(crate) fn run(args: Args) -> Outcome {
    let ownership = match &args.command {
        Command::Completion { shell } => return Ok(self_help::completion(*shell)?),
        Command::Man { dir } => return Ok(self_help::manual(dir)?),
        Command::Containerd { command } => return containerd::run(&args, command),
        Command::Docker { command } => return docker::run(&args, command),
        Command::Images { .. }
        | Command::Layers { .. }
        | Command::Inspect { .. }
        | Command::Export { .. }
        | Command::Diff { .. }
        | Command::Status
        | Command::Check { .. }
        | Command::Repair { dry_run: true, .. }
        | Command::Quarantine { command: QuarantineCommand::List } => Ownership::ReadOnly,
        Command::Import { .. }
        | Command::Mount { .. }
        | Command::Umount { .. }
        | Command::Rmi { .. }
        | Command::Commit { .. }
        | Command::Repair { dry_run: false, .. }
        | Command::Quarantine { .. } => Ownership::Owner,
    };
    // Only an import makes a store: elsewhere a mistake in --root would leave one behind.
    if !matches!(args.command, Command::Import { .. }) && !Storage::exists(&args.root, &args.driver)? {
        let error = Error::not_found(format!("open {}: there is no storage", args.root.display()));
        return Err(Failure::from(error).or_try(ErrorKind::NotFound, NO_STORE));
    }
    let storage = Storage::open(StorageOptions {
        driver: args.driver.clone(),
        driver_options: args.storage_opts.clone(),
        ownership,
        default_host: Some(args.default_host.clone()).filter(|host| !host.is_empty()),
        ..StorageOptions::new(&args.root, &args.run_root)
    })
    .map_err(|error| Failure::from(error).or_try(ErrorKind::NotFound, NO_STORE))?;
    let outcome = dispatch(&storage, &args);
    let closed = storage.close();
    outcome?;
    Ok(closed?)
}

fn dispatch(storage: &Storage, args: &Args) -> Outcome {
    match &args.command {
        Command::Import { source, names, heal, platform } => import(
            storage,
            args,
            source,
            ImportOptions {
                names: names.clone(),
                platform: platform.as_deref().map(Platform::parse).transpose()?,
                heal: *heal,
                progress: None,
            },
        ),
        Command::Images { no_trunc } => images(storage, args, *no_trunc),
        Command::Layers { no_trunc } => layers(storage, args, *no_trunc),
        Command::Inspect { name } => inspect(storage, name),
        Command::Mount { name } => {
            let id = storage.find_layer_or_image(name)?;
            let path = storage.layers().mount(id.as_str())?;
            if args.json {
                return Ok(print::json(&json!({ "layer": id.as_str(), "path": path }))?);
            }
            Ok(print::lines([path.display().to_string()])?)
        }
        Command::Umount { name, force } => {
            let id = storage.find_layer_or_image(name)?;
            storage.layers().unmount(id.as_str(), *force)?;
            if args.json {
                return Ok(print::json(&json!({ "layer": id.as_str() }))?);
            }
            Ok(())
        }
        Command::Rmi { names } => rmi(storage, args, names),
        Command::Export { layer, output } => archive::write(args, output, |out| storage.export(layer, out)),
        Command::Diff { layer, parent, tar, output } => {
            archive::diff(storage, args, layer, parent.as_deref(), tar.then_some(output))
        }
        Command::Commit { container, name, author, message, changes, gzip } => {
            let options = CommitOptions {
                names: name.iter().cloned().collect(),
                author: author.clone(),
                message: message.clone(),
                changes: changes.iter().map(|text| ImageChange::parse(text)).collect::<Result<_, _>>()?,
                compress: *gzip,
                created: None,
            };
            archive::commit(storage, args, container, &options)
        }
        Command::Status => status(storage, args),
        Command::Check { deep } => care::check(storage, args, *deep),
        Command::Repair { dry_run, remove_orphans, even_without_images } => {
            let without_images = match even_without_images {
                true => WithoutImages::Allow,
                false => WithoutImages::Refuse,
            };
            let asked = care::Repair { dry_run: *dry_run, orphans: *remove_orphans, without_images };
            care::repair(storage, args, asked)
        }
        Command::Quarantine { command } => care::quarantine(storage, args, command),
        Command::Completion { .. }
        | Command::Man { .. }
        | Command::Docker { .. }
        | Command::Containerd { .. } => Ok(()),
    }
}

fn import(storage: &Storage, args: &Args, source: &Path, options: ImportOptions<'_>) -> Outcome {
    let interrupted = meter::interrupts().during(|| "watch for interrupts")?;
    let meter = Meter::new(args.quiet || args.json, interrupted);
    let mut told = |progress: &_| meter.tell(progress);
    let options = ImportOptions { progress: Some(&mut told), ..options };
    let imported = if source == Path::new("-") {
        storage.import_stream(Box::new(io::stdin()), options)
    } else {
        storage.import(source, options)
    };
    meter.clear();
    let report = imported?;
    if args.json {
        return Ok(print::json(&import_json(&report))?);
    }
    if args.quiet {
        return Ok(print::lines(report.images.iter().map(|image| image.id.to_string()))?);
    }
    for warning in &report.warnings {
        eprintln!("isula-storage: warning: {warning}");
    }
    Ok(print::lines(report.images.iter().map(|image| {
        let new = image.layers.iter().filter(|layer| !layer.existed).count();
        let names = if image.names.is_empty() { "without a name".to_owned() } else { image.names.join(", ") };
        let layers = format!("{} layers, {new} new", image.layers.len());
        let existed = if image.existed { "; the image was there before" } else { "" };
        format!("{}  {names}  ({layers}{existed})", image.id)
    }))?)
}

fn import_json(report: &ImportReport) -> Value {
    let images = report.images.iter().map(|image| {
        let layers = image.layers.iter().map(
            |layer| json!({ "id": layer.id.as_str(), "existed": layer.existed, "archive_size": layer.size }),
        );
        json!({
            "id": image.id.as_str(),
            "names": image.names,
            "existed": image.existed,
            "layers": layers.collect::<Vec<_>>(),
        })
    });
    json!({ "images": images.collect::<Vec<_>>(), "warnings": report.warnings })
}

fn images(storage: &Storage, args: &Args, whole: bool) -> Outcome {
    let images = storage.images().summaries()?;
    if args.json {
        return Ok(print::json(&images.iter().map(image_json).collect())?);
    }
    if args.quiet {
        return Ok(print::lines(images.iter().map(|image| print::short(&image.id, whole).to_owned()))?);
    }
    let now = Timestamp::now();
    let rows: Vec<[String; 4]> = images
        .iter()
        .map(|image| {
            let tags =
                if image.repo_tags.is_empty() { "<none>".to_owned() } else { image.repo_tags.join(", ") };
            [
                print::short(&image.id, whole).to_owned(),
                tags,
                Bytes(image.size).to_string(),
                print::age(image.created.as_deref(), now),
            ]
        })
        .collect();
    Ok(print::table(["IMAGE ID", "TAGS", "SIZE", "CREATED"], &rows)?)
}

fn image_json(image: &ImageSummary) -> Value {
    json!({
        "id": image.id,
        "tags": image.repo_tags,
        "digests": image.repo_digests,
        "top_layer": image.top_layer,
        "size": image.size,
        "created": image.created,
        "loaded": image.loaded,
    })
}

fn layers(storage: &Storage, args: &Args, whole: bool) -> Outcome {
    let layers = storage.layers().list();
    let limits = if args.quiet { Vec::new() } else { limits(storage, &layers)? };
    if args.json {
        let json = layers.iter().zip(&limits).map(|(layer, limit)| with_limit(layer_json(layer), *limit));
        return Ok(print::json(&json.collect())?);
    }
    if args.quiet {
        return Ok(print::lines(
            layers.iter().map(|layer| print::short(layer.id.as_str(), whole).to_owned()),
        )?);
    }
    let rows: Vec<[String; 6]> = layers
        .iter()
        .zip(limits)
        .map(|(layer, limit)| {
            let parent = layer.parent.as_ref().map_or("-", |parent| print::short(parent.as_str(), whole));
            let size = u64::try_from(layer.uncompressed_size).unwrap_or(0);
            [
                print::short(layer.id.as_str(), whole).to_owned(),
                parent.to_owned(),
                if layer.writable { "container" } else { "image" }.to_owned(),
                if layer.writable { "-".to_owned() } else { Bytes(size).to_string() },
                limit.map_or_else(|| "-".to_owned(), |limit| limit.to_string()),
                layer.mount_count.to_string(),
            ]
        })
        .collect();
    Ok(print::table(["LAYER ID", "PARENT", "KIND", "SIZE", "LIMIT", "MOUNTS"], &rows)?)
}

fn layer_json(layer: &Layer) -> Value {
    json!({
        "id": layer.id.as_str(),
        "parent": layer.parent.as_ref().map(|parent| parent.as_str()),
        "names": layer.names,
        "writable": layer.writable,
        "mount_count": layer.mount_count,
        "mount_point": layer.mount_point,
        "compressed_digest": layer.compressed_digest,
        "compressed_size": layer.compressed_size,
        "uncompressed_digest": layer.uncompressed_digest,
        "uncompressed_size": layer.uncompressed_size,
        "created": layer.created,
    })
}

/// The limits of layers; a layer may be gone by now.
fn limits(storage: &Storage, layers: &[Layer]) -> Result<Vec<Option<Bytes>>, Error> {
    let limits = layers.iter().map(|layer| match storage.layers().limit(&layer.id) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        limit => limit,
    });
    limits.collect()
}

/// Only a layer that has a limit is told to have one.
fn with_limit(mut layer: Value, limit: Option<Bytes>) -> Value {
    if let (Value::Object(members), Some(limit)) = (&mut layer, limit) {
        members.insert("limit".to_owned(), json!(limit.0));
    }
    layer
}

fn inspect(storage: &Storage, name: &str) -> Outcome {
    match storage.find_image(name) {
        Ok(id) => inspect_image(storage, id.as_str()),
        Err(error) if error.kind() == ErrorKind::NotFound => inspect_layer(storage, name),
        Err(error) => Err(error.into()),
    }
}

fn inspect_image(storage: &Storage, id: &str) -> Outcome {
    let details = storage.image_details(id)?;
    let record = &details.record;
    let config = details.config.as_deref().map(serde_json::from_slice::<Value>);
    let sizes = record.big_data_sizes.iter().flatten();
    Ok(print::json(&json!({
        "kind": "image",
        "id": record.id,
        "digest": record.digest,
        "names": record.names,
        "created": record.created,
        "loaded": record.loaded,
        "size": record.size,
        "big_data": sizes.map(|(key, size)| json!({ "key": key, "size": size })).collect::<Vec<_>>(),
        "layers": details.layers.iter().map(layer_json).collect::<Vec<_>>(),
        "config": config.and_then(Result::ok),
        "problems": details.problems,
    }))?)
}

fn inspect_layer(storage: &Storage, name: &str) -> Outcome {
    let details = match storage.layer_details(name) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let error = Error::not_found(format!("inspect {name}: no such image or layer"));
            return Err(Failure::from(error).or_try(
                ErrorKind::NotFound,
                "isula-storage images and isula-storage layers list what is there.",
            ));
        }
        other => other?,
    };
    let data: serde_json::Map<String, Value> =
        details.data.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    let mut value = with_limit(layer_json(&details.layer), details.limit);
    if let Value::Object(members) = &mut value {
        members.insert("kind".to_owned(), json!("layer"));
        members.insert("holds".to_owned(), json!(details.holds));
        members.insert("data".to_owned(), Value::Object(data));
        members.insert("images".to_owned(), json!(details.images));
        members.insert("children".to_owned(), json!(details.children));
        if let Some((path, usage)) = &details.usage {
            let usage = json!({ "path": path, "bytes": usage.bytes.0, "inodes": usage.inodes.0 });
            members.insert("usage".to_owned(), usage);
        }
    }
    Ok(print::json(&value)?)
}

fn rmi(storage: &Storage, args: &Args, names: &[String]) -> Outcome {
    let mut removals = Vec::new();
    let mut failed = None;
    for name in names {
        match storage.remove_image(name).during(|| format!("remove {name}")) {
            Ok(removal) => removals.push(removal),
            Err(error) => {
                let failure = Failure::from(error)
                    .or_try(ErrorKind::NotFound, "isula-storage images lists what is there.");
                failed = Some(failure);
                break;
            }
        }
    }
    if args.json {
        let removals = removals.iter().map(|removal| {
            json!({
                "image": removal.image.as_str(),
                "untagged": removal.untagged,
                "deleted": removal.deleted,
                "layers": removal.layers.iter().map(|id| id.as_str()).collect::<Vec<_>>(),
            })
        });
        print::json(&removals.collect())?;
    } else {
        for removal in &removals {
            if args.quiet {
                print::lines([removal.image.to_string()])?;
                continue;
            }
            print::lines(removal.untagged.iter().map(|name| format!("untagged {name}")))?;
            if removal.deleted {
                print::lines([format!("deleted image {}", removal.image)])?;
            }
            print::lines(removal.layers.iter().map(|id| format!("deleted layer {id}")))?;
        }
    }
    failed.map_or(Ok(()), Err)
}

fn status(storage: &Storage, args: &Args) -> Outcome {
    let status = storage.status()?;
    if args.json {
        return Ok(print::json(&status_json(storage, &status))?);
    }
    let mut lines = vec![
        format!("root           {}", storage.root().display()),
        format!("driver         {}", status.driver.driver_name),
        format!("file system    {}", status.driver.backing_fs),
    ];
    lines.extend(status.driver.status.lines().map(|line| format!("  {line}")));
    lines.extend([
        format!("images         {}", status.images),
        format!("image layers   {}, {}", status.image_layers, status.layer_bytes),
        format!("containers     {}", status.container_layers),
        format!("mounted        {}", status.mounted),
        format!("image records  {}", status.image_records.bytes),
        format!("problems       {}", status.problems.len()),
    ]);
    lines.extend(status.problems.iter().map(|problem| {
        let aside = if problem.quarantined { " (put aside)" } else { "" };
        format!("  {}: {}{aside}", problem.subject, problem.reason)
    }));
    lines.push(format!("quarantine     {}", status.quarantined.len()));
    lines.extend(status.quarantined.iter().map(|entry| {
        format!("  {} from {}, {}: {}", entry.name, entry.from.display(), entry.time, entry.reason)
    }));
    Ok(print::lines(lines)?)
}

fn status_json(storage: &Storage, status: &Status) -> Value {
    let problems = status.problems.iter().map(|problem| {
        json!({ "subject": problem.subject, "reason": problem.reason, "quarantined": problem.quarantined })
    });
    let quarantined = status.quarantined.iter().map(|entry| {
        json!({
            "name": entry.name,
            "from": entry.from,
            "reason": entry.reason,
            "time": entry.time,
            "path": entry.path,
        })
    });
    json!({
        "root": storage.root(),
        "driver": status.driver.driver_name,
        "file_system": status.driver.backing_fs,
        "driver_status": status.driver.status.lines().collect::<Vec<_>>(),
        "images": status.images,
        "image_layers": status.image_layers,
        "container_layers": status.container_layers,
        "mounted": status.mounted,
        "layer_bytes": status.layer_bytes.0,
        "image_record_bytes": status.image_records.bytes.0,
        "problems": problems.collect::<Vec<_>>(),
        "quarantine": quarantined.collect::<Vec<_>>(),
    })
}
