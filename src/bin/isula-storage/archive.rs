// SPDX-License-Identifier: MulanPSL-2.0
//! The commands that make archives of layers, and images of containers.

use std::fs;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::Path;

use isula_storage::digest::Digest;
use isula_storage::error::{During, Error, ErrorKind, Result};
use isula_storage::storage::{Change, ChangeKind, CommitOptions, Storage};
use isula_storage::units::Bytes;
use serde_json::{Value, json};

use crate::args::Args;
use crate::failure::Failure;
use crate::print;

type Outcome = std::result::Result<(), Failure>;

const BUFFER: usize = 128 << 10;
const NOT_IN_AN_ARCHIVE: &str = "No layer archive can say this: rename or remove it in the container.";

/// Lists changes, or writes them as an archive to `output`.
pub(crate) fn diff(
    storage: &Storage,
    args: &Args,
    layer: &str,
    parent: Option<&str>,
    output: Option<&std::path::PathBuf>,
) -> Outcome {
    if let Some(output) = output {
        let written = write(args, output, |out| {
            storage.diff(layer, parent, out).map(|diffed| (diffed.diff_id, diffed.tar_size))
        });
        return written.map_err(|failure| failure.or_try(ErrorKind::InvalidData, NOT_IN_AN_ARCHIVE));
    }
    let changes = storage.changes(layer, parent)?;
    if args.json {
        return Ok(print::json(&changes.iter().map(change_json).collect())?);
    }
    Ok(print::lines(changes.iter().map(|change| {
        let letter = match change.kind {
            ChangeKind::Added => 'A',
            ChangeKind::Modified => 'C',
            ChangeKind::Deleted => 'D',
        };
        format!("{letter} /{}", shown(&change.path))
    }))?)
}

fn change_json(change: &Change) -> Value {
    let kind = match change.kind {
        ChangeKind::Added => "added",
        ChangeKind::Modified => "modified",
        ChangeKind::Deleted => "deleted",
    };
    match std::str::from_utf8(&change.path) {
        Ok(path) => json!({ "kind": kind, "path": path }),
        // As bytes: JSON has no other way to say it.
        Err(_) => json!({ "kind": kind, "path": shown(&change.path), "path_bytes": change.path }),
    }
}

/// A path on one line: what is no text, or would do something to a terminal, is escaped.
fn shown(path: &[u8]) -> String {
    match std::str::from_utf8(path) {
        Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
        _ => path.escape_ascii().to_string(),
    }
}

/// Makes an image of a container.
pub(crate) fn commit(storage: &Storage, args: &Args, container: &str, options: &CommitOptions) -> Outcome {
    let made = storage.commit(container, options).map_err(|error| {
        Failure::from(error)
            .or_try(ErrorKind::InUse, "Stop or pause what writes to the container, and try again.")
            .or_try(ErrorKind::InvalidData, NOT_IN_AN_ARCHIVE)
    })?;
    if args.json {
        return Ok(print::json(&json!({
            "id": made.image.as_str(),
            "names": made.names,
            "layer": made.layer.as_str(),
            "diff_id": made.diff.diff_id.to_string(),
            "size": made.diff.content_size.0,
            "entries": made.diff.entries,
            "skipped": made.diff.skipped,
        }))?);
    }
    if args.quiet {
        return Ok(print::lines([made.image.to_string()])?);
    }
    let names = if made.names.is_empty() { "without a name".to_owned() } else { made.names.join(", ") };
    Ok(print::lines([format!("{}  {names}  ({} in a new layer)", made.image, made.diff.content_size)])?)
}

/// Writes an archive to standard output or a file.
pub(crate) fn write(
    args: &Args,
    output: &Path,
    archive: impl FnOnce(&mut dyn Write) -> Result<(Digest, Bytes)>,
) -> Outcome {
    if output == Path::new("-") {
        let stdout = io::stdout();
        if stdout.is_terminal() {
            return Err(Error::invalid("a tar is not for a terminal: give a file with -o, or a pipe").into());
        }
        let mut out = BufWriter::with_capacity(BUFFER, stdout.lock());
        archive(&mut out)?;
        return Ok(out.flush().during(|| "write to standard output")?);
    }
    let named = || format!("write {}", output.display());
    // A device, a pipe or a link to one, such as /dev/null, is written to: a file must not take its place.
    if fs::metadata(output).is_ok_and(|found| !found.is_file() && !found.is_dir()) {
        let special = fs::File::options().write(true).open(output).during(named)?;
        let mut out = BufWriter::with_capacity(BUFFER, special);
        archive(&mut out)?;
        return Ok(out.flush().during(named)?);
    }
    let dir = output.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Under its name only when it is whole and verified.
    let mut file =
        tempfile::Builder::new().prefix(".isula-storage-export-").tempfile_in(dir).during(named)?;
    let mut out = BufWriter::with_capacity(BUFFER, file.as_file_mut());
    let (digest, size) = archive(&mut out)?;
    out.flush().during(named)?;
    drop(out);
    file.persist(output).map_err(|error| error.error).during(named)?;
    if args.json {
        return Ok(print::json(&json!({ "digest": digest.to_string(), "size": size.0, "file": output }))?);
    }
    if args.quiet {
        return Ok(());
    }
    Ok(print::lines([format!("{digest}  {size}  {}", output.display())])?)
}
