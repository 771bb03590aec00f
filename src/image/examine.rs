// SPDX-License-Identifier: MulanPSL-2.0
//! What one directory of the store holds. Reads only.
//!
//! | directory holds | outcome |
//! |---|---|
//! | no record | nothing: left where it is |
//! | a record, but no manifest or no config | incomplete: left where it is, an image only for those who say so |
//! | manifest, record or config that does not parse, a record of another id | doubtful: to be put aside |
//! | manifest of schema 1 without config | to be converted |
//! | something that could not be read | left where it is |
//! | manifest, record and config | an image |

use std::borrow::Cow;

use crate::error::{Error, ErrorKind, Result};
use crate::id::ImageId;
use crate::json;
use crate::record::image::ImageRecord;
use crate::spec::docker_config::DockerConfig;
use crate::spec::manifest::Kind;
use crate::sys::fs::{Dir, SmallFiles};

use super::index::Config;
use super::{MANIFEST, files};

/// An image as found on disk.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) id: ImageId,
    pub(super) record: ImageRecord,
    pub(super) config: Config,
}

/// What a directory holds.
#[derive(Debug)]
pub(super) enum Content {
    Image(Box<Found>),
    /// A manifest of schema 1 that is not converted yet.
    Schema1(Box<Found>, Vec<u8>),
    /// An image that lacks something. What.
    Incomplete(Box<Found>, &'static str),
    /// Left by an interrupted creation or deletion, or not readable now. Why.
    Nothing(Cow<'static, str>),
    /// Unreadable for good, or contradicting itself. Why.
    Doubtful(String),
}

/// Looks into the directory of image `id`. Errors mean that this process could not look at all and say nothing about
/// the image.
pub(super) fn examine(root: &Dir, id: &ImageId, sweep: bool) -> Result<Content> {
    let dir = root.open_dir(id.as_str());
    let content = dir.and_then(|dir| {
        if sweep {
            crate::persist::sweep_temporary(&dir);
        }
        look(&dir, id)
    });
    match content {
        Err(error) if is_out_of_resources(&error) => Err(error),
        Err(error) if is_doubtful(&error) => Ok(Content::Doubtful(error.report())),
        Err(error) => Ok(Content::Nothing(error.report().into())),
        Ok(content) => Ok(content),
    }
}

/// An image with which all is well and that has nothing to be swept; of anything else [`examine`] has to tell.
pub(super) fn examine_quickly(root: &Dir, id: &ImageId, files: &mut SmallFiles) -> Option<Box<Found>> {
    let mut dir = files.open_dir(root, id.as_str())?;
    if dir.names().iter().any(|name| name.starts_with('.')) {
        return None;
    }
    let record = ImageRecord::parse(dir.read(files::RECORD)?).ok()?;
    check_id(&record, id).ok()?;
    let kind = Kind::of(&json::parse(dir.read(MANIFEST)?).ok()?);
    let config = dir.read(&files::file_name(&files::config_key(id.as_str())).ok()?)?;
    if kind != Kind::Image {
        DockerConfig::parse(config).ok()?;
    }
    match Config::read(config) {
        Config::Broken(_) => None,
        config => Some(Box::new(Found { id: id.clone(), record, config })),
    }
}

/// What lies on the disk is wrong, as opposed to: it could not be read now.
fn is_doubtful(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::InvalidData | ErrorKind::LimitExceeded)
}

fn is_out_of_resources(error: &Error) -> bool {
    matches!(error.errno(), libc::EMFILE | libc::ENFILE | libc::ENOMEM)
}

fn look(dir: &Dir, id: &ImageId) -> Result<Content> {
    let record = match files::read_record(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Ok(Content::Nothing("it has no record: its deletion was interrupted".into()));
        }
        other => other?,
    };
    check_id(&record, id)?;
    let config = files::read_text(dir, &files::config_key(id.as_str()))?;
    let found = |record, config| Box::new(Found { id: id.clone(), record, config });
    let Some(manifest) = files::read_text(dir, MANIFEST)? else {
        let config = config.map_or(Config::Missing, |config| Config::read(&config));
        let what = "it has no manifest: its creation was interrupted";
        return Ok(Content::Incomplete(found(record, config), what));
    };
    let kind = Kind::of(&json::parse(&manifest).map_err(|error| error.context("read manifest"))?);
    let Some(config) = config else {
        let found = found(record, Config::Missing);
        return Ok(match kind {
            Kind::Other(1) => Content::Schema1(found, manifest),
            _ => Content::Incomplete(found, "it has no config: its creation was interrupted"),
        });
    };
    if kind != Kind::Image {
        DockerConfig::parse(&config)?;
    }
    match Config::read(&config) {
        Config::Broken(why) => Err(Error::corrupt(why.as_ref())),
        config => Ok(Content::Image(found(record, config))),
    }
}

fn check_id(record: &ImageRecord, id: &ImageId) -> Result<()> {
    match record.id.as_deref() {
        Some(recorded) if recorded == id.as_str() => Ok(()),
        Some(other) => {
            let other: String = other.chars().take(80).collect();
            Err(Error::corrupt(format!("its record is of another image, {other}")))
        }
        None => Err(Error::corrupt("its record has no id")),
    }
}
