// SPDX-License-Identifier: MulanPSL-2.0
//! What containerd asks of namespaces, images and labels.

use super::{Labels, NamespacedImage};
use crate::error::{Error, Result};
use crate::metadata::boltfile::{LONGEST_KEY, LONGEST_VALUE};
use crate::metadata::{Target, shown};

/// Longest name of a namespace.
const LONGEST_NAMESPACE: usize = 76;
/// Longest label, key and value together.
const LONGEST_LABEL: usize = 4096;

/// Letters and digits, single `-`, `.` and `_` between them.
pub(super) fn namespace(name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::invalid("namespace is required"));
    }
    let bytes = name.as_bytes();
    let is_separator = |byte: &u8| matches!(byte, b'-' | b'.' | b'_');
    let has_ends =
        [bytes.first(), bytes.last()].into_iter().flatten().all(|byte| byte.is_ascii_alphanumeric());
    let is_known = bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || is_separator(byte));
    let is_doubled =
        bytes.windows(2).any(|pair| matches!(pair, [a, b] if is_separator(a) && is_separator(b)));
    if name.len() > LONGEST_NAMESPACE || !has_ends || !is_known || is_doubled {
        return Err(Error::invalid(format!("{}: it is no name of a namespace", shown(bytes))));
    }
    // The file has the version of its schema in the same place.
    if name == "version" {
        return Err(Error::invalid("a namespace cannot have the name \"version\""));
    }
    Ok(())
}

pub(super) fn image(image: &NamespacedImage) -> Result<()> {
    if image.name.is_empty() {
        return Err(Error::invalid("image name must not be empty"));
    }
    labels(&image.labels)?;
    annotations(&image.annotations)?;
    target(&image.target)
}

pub(super) fn labels(labels: &Labels) -> Result<()> {
    for (key, value) in labels {
        if key.len() + value.len() > LONGEST_LABEL {
            let message =
                format!("label {}: more than {LONGEST_LABEL} bytes of key and value", shown(key.as_bytes()));
            return Err(Error::invalid(message));
        }
        if key.is_empty() {
            return Err(Error::invalid("a label without a key"));
        }
    }
    Ok(())
}

/// Containerd asks nothing of annotations: what the file itself asks of keys, before a part is written.
fn annotations(annotations: &Labels) -> Result<()> {
    for (key, value) in annotations {
        if key.is_empty() {
            return Err(Error::invalid("an annotation without a key"));
        }
        if key.len() > LONGEST_KEY || value.len() > LONGEST_VALUE {
            let message = format!(
                "annotation {}: more than {LONGEST_KEY} bytes of key, or {LONGEST_VALUE} of value",
                shown(key.as_bytes())
            );
            return Err(Error::invalid(message));
        }
    }
    Ok(())
}

fn target(target: &Target) -> Result<()> {
    digest(&target.digest)?;
    if target.media_type.len() > LONGEST_VALUE {
        return Err(Error::invalid(format!("target media type: more than {LONGEST_VALUE} bytes")));
    }
    if target.size <= 0 {
        return Err(Error::invalid(format!("target size {}: it must be greater than zero", target.size)));
    }
    if target.media_type.is_empty() {
        return Err(Error::invalid("target media type must be set"));
    }
    Ok(())
}

/// The algorithms that Go's `digest` package has.
fn digest(digest: &str) -> Result<()> {
    let length = |algorithm: &str| match algorithm {
        "sha256" => Some(64),
        "sha384" => Some(96),
        "sha512" => Some(128),
        _ => None,
    };
    let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let is_valid = digest
        .split_once(':')
        .is_some_and(|(algorithm, hex)| length(algorithm) == Some(hex.len()) && hex.bytes().all(is_hex));
    if is_valid {
        return Ok(());
    }
    Err(Error::invalid(format!("target digest {}: it is no digest", shown(digest.as_bytes()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn namespaces_have_the_names_that_containerd_takes() {
        for good in ["default", "k8s.io", "moby", "a", "A-1_b.c", &"a".repeat(76)] {
            assert!(namespace(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            "a-",
            ".",
            "a..b",
            "a-_b",
            "a/b",
            "../x",
            "a b",
            "é",
            "a\0",
            "version",
            &"a".repeat(77),
        ] {
            assert!(namespace(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn images_need_a_name_a_digest_a_size_and_a_media_type() {
        let good = NamespacedImage {
            name: "n".into(),
            target: Target { media_type: "m".into(), digest: format!("sha256:{}", "0".repeat(64)), size: 1 },
            ..NamespacedImage::default()
        };
        assert!(image(&good).is_ok());
        let bad = |change: &dyn Fn(&mut NamespacedImage)| {
            let mut bad = good.clone();
            change(&mut bad);
            image(&bad).unwrap_err().report()
        };
        assert_eq!(bad(&|image| image.name.clear()), "image name must not be empty");
        assert_eq!(bad(&|image| image.target.media_type.clear()), "target media type must be set");
        assert_eq!(bad(&|image| image.target.size = 0), "target size 0: it must be greater than zero");
        for digest in ["", "sha256:", "md5:00", &"0".repeat(64), &format!("sha256:{}", "A".repeat(64))] {
            assert!(bad(&|image| image.target.digest = digest.to_owned()).ends_with("it is no digest"));
        }
        let label = |length: usize| {
            move |image: &mut NamespacedImage| {
                image.labels.insert("key".to_owned(), "v".repeat(length - 3));
            }
        };
        assert!(bad(&label(4097)).contains("more than 4096 bytes"));
        let mut longest = good.clone();
        label(4096)(&mut longest);
        assert!(image(&longest).is_ok());
    }
}
