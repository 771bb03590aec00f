// SPDX-License-Identifier: MulanPSL-2.0
//! containerd-style image metadata: what an image's name points to, in a bolt file.
//!
//! Two schemas, which never share a file; each is recognised, and refused by the store of the other.
//!
//! ```text
//! ImageFile           v1/images/<name>/{digest, mediatype, size}                                  containerd in April 2017
//! NamespacedFile      v1/version                                                                  containerd today
//!                     v1/<namespace>/labels/<key>
//!                     v1/<namespace>/images/<name>/{createdat, updatedat}
//!                                                  target/{digest, mediatype, size}
//!                                                  labels/<key>, annotations/<key>
//! ```
//!
//! `size` and `version` are signed varints (zigzag), times are those of Go's `Time.MarshalBinary`, everything else is text.
//!
//! Concurrency and crash safety are those of [`boltfile`]: one transaction writes, any number read, each sees one state;
//! a commit is durable when it returns; other processes are excluded by a lock on the file. No call holds a lock between
//! transactions.
//!
//! Files from elsewhere may hold anything: what is read is bounded by the length of the file.

pub mod boltfile;
mod budget;
mod database;
#[doc(hidden)]
pub mod fuzzing;
mod gotime;
mod images;
mod namespaced;
mod varint;

#[cfg(test)]
mod images_tests;

pub use boltfile::{Access, Freelist, Options};
pub use database::{Schema, schema_of};
pub use images::{Image, ImageFile, ImageTransaction};
pub use namespaced::{
    Filters, ImportReport, Labels, Listing, NEWEST_VERSION, NamespacedFile, NamespacedImage,
    NamespacedTransaction, OUR_VERSION,
};

use crate::error::{Error, ErrorKind};

/// What a name of an image points to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Target {
    /// What the blob is.
    pub media_type: String,
    /// Its digest.
    pub digest: String,
    /// Its size in bytes.
    pub size: i64,
}

/// Why an image could not be had, or made, however much has been said around it. A file that is missing is neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// There is no image of this name, or no place for images: the file was not initialised.
    #[error("images: not found")]
    NotFound,
    /// There is one already.
    #[error("images: exists")]
    Exists,
}

impl ImageError {
    /// What is behind an error, if it is one of these.
    pub fn behind(error: &Error) -> Option<ImageError> {
        let mut cause: &(dyn std::error::Error + 'static) = error;
        loop {
            if let Some(found) = cause.downcast_ref::<ImageError>() {
                return Some(*found);
            }
            cause = cause.source()?;
        }
    }

    /// The error for one image.
    fn of(self, message: String) -> Error {
        let kind = match self {
            ImageError::NotFound => ErrorKind::NotFound,
            ImageError::Exists => ErrorKind::AlreadyExists,
        };
        Error::with_source(kind, message, self)
    }
}

/// Whether an error is for a missing image.
pub fn is_not_found(error: &Error) -> bool {
    ImageError::behind(error) == Some(ImageError::NotFound)
}

/// Whether an error is for an image that is there already.
pub fn is_exists(error: &Error) -> bool {
    ImageError::behind(error) == Some(ImageError::Exists)
}

/// Longest part of a name that messages show.
const SHOWN: usize = 200;

/// A name for messages: it may be any bytes.
pub(crate) fn shown(name: &[u8]) -> String {
    let part = name.get(..SHOWN).unwrap_or(name);
    let dots = if part.len() < name.len() { "…" } else { "" };
    match std::str::from_utf8(part) {
        Ok(text) if !text.chars().any(char::is_control) => format!("{text:?}{dots}"),
        _ => format!("\"{}\"{dots}", part.escape_ascii()),
    }
}
