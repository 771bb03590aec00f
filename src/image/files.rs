// SPDX-License-Identifier: MulanPSL-2.0
//! Files of one image: its record and its big data.

use crate::error::{During, Error, ErrorKind, Result};
use crate::json;
use crate::record::image::ImageRecord;
use crate::reference;
use crate::sys::fs::Dir;

use super::{MANIFEST, MAX_BIG_DATA};

/// The record of an image.
pub(super) const RECORD: &str = "images.json";
pub(super) const DIR_MODE: u32 = 0o700;
pub(super) const FILE_MODE: u32 = 0o600;

/// Longest name of a file.
const MAX_FILE_NAME: usize = 255;

/// Largest text that is parsed at a start: one byte less than what the parser refuses.
const MAX_PARSED: u64 = json::MAX_TEXT as u64 - 1;

/// Key of the config of image `id`.
pub(super) fn config_key(id: &str) -> String {
    format!("sha256:{id}")
}

/// Name of the file that holds big data `key`; keys that would be something else or no file name are refused.
pub(super) fn file_name(key: &str) -> Result<String> {
    let name = reference::big_data_file_name(key);
    let why = if key.is_empty() {
        "it is empty"
    } else if matches!(key, "." | ".." | RECORD) {
        "it is the name of something else in the image's directory"
    } else if key.contains('\0') {
        "it contains a NUL byte"
    } else if name.contains('/') {
        "its encoded form contains a slash and can be no file name"
    } else if name.len() > MAX_FILE_NAME {
        "its file name would be longer than 255 bytes"
    } else {
        return Ok(name);
    };
    let shown: String = key.chars().take(80).collect();
    Err(Error::invalid(format!("big data key {shown:?} is not valid: {why}")))
}

/// Most bytes that may be stored under `key` of image `id`: what is parsed at a start must be readable then.
fn limit(id: &str, key: &str) -> u64 {
    if key == MANIFEST || key == config_key(id) { MAX_PARSED } else { MAX_BIG_DATA }
}

/// Refuses big data that could not be read again.
pub(super) fn check_size(id: &str, key: &str, data: &[u8]) -> Result<()> {
    let limit = limit(id, key);
    if u64::try_from(data.len()).is_ok_and(|len| len <= limit) {
        return Ok(());
    }
    let message = format!("big data {key:?} has {} bytes, the limit is {limit}", data.len());
    Err(Error::new(ErrorKind::LimitExceeded, message))
}

/// Reads the record in an image's directory.
pub(super) fn read_record(dir: &Dir) -> Result<ImageRecord> {
    ImageRecord::parse(&dir.read(RECORD, MAX_PARSED).map_err(too_large_is_corrupt)?)
}

/// Reads a text that is parsed at a start; absent: `None`.
pub(super) fn read_text(dir: &Dir, key: &str) -> Result<Option<Vec<u8>>> {
    match dir.read(file_name(key)?, MAX_PARSED) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(too_large_is_corrupt(error)),
    }
}

/// Reads big data.
pub(super) fn read_big_data(root: &Dir, id: &str, key: &str) -> Result<Vec<u8>> {
    let doing = || format!("read big data {key:?} of image {id}");
    let name = file_name(key)?;
    let dir = root.open_dir(id).during(doing)?;
    dir.read(name, MAX_BIG_DATA).during(doing)
}

fn too_large_is_corrupt(error: Error) -> Error {
    if error.kind() == ErrorKind::LimitExceeded { error.with_kind(ErrorKind::Corrupt) } else { error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_name_something_else_are_refused() {
        assert_eq!(file_name("manifest").unwrap(), "manifest");
        assert_eq!(file_name("Signature-1").unwrap(), "=U2lnbmF0dXJlLTE=");
        assert_eq!(file_name(".hidden").unwrap(), ".hidden");
        assert_eq!(file_name(&"a".repeat(255)).unwrap().len(), 255);
        assert_eq!(file_name(&"A".repeat(189)).unwrap().len(), 253);
        for bad in ["", ".", "..", "images.json", "aa?", "a\0b", &"a".repeat(256), &"A".repeat(191)] {
            assert_eq!(file_name(bad).unwrap_err().kind(), ErrorKind::InvalidArgument, "{bad:?}");
        }
        let error = file_name("aa?").unwrap_err();
        assert_eq!(
            error.report(),
            "big data key \"aa?\" is not valid: its encoded form contains a slash and can be no file name"
        );
    }

    #[test]
    fn what_is_parsed_at_a_start_has_the_limit_of_the_parser() {
        let id = "a".repeat(64);
        let large = vec![b' '; json::MAX_TEXT];
        assert!(check_size(&id, "other", &large).is_ok());
        for key in [MANIFEST, &config_key(&id)] {
            assert!(check_size(&id, key, &large[1..]).is_ok());
            assert_eq!(check_size(&id, key, &large).unwrap_err().kind(), ErrorKind::LimitExceeded, "{key}");
        }
    }
}
