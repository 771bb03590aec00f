// SPDX-License-Identifier: MulanPSL-2.0
//! Sizes of container layers: what the storage options ask for.

use crate::driver::{LayerKind, NewLayer};
use crate::error::{Error, ErrorKind, Result};
use crate::units::{BadSize, Bytes};

/// What the reference says when a size is asked for and the file system cannot limit it; shown to people.
pub(in super::super) const NOT_SUPPORTED: &str =
    "--storage-opt is supported only for overlay over xfs or ext4 with 'pquota' mount option";

/// The same of a layer that is not a container's; the reference only logs it.
const READ_ONLY_LAYER: &str = "--storage-opt size is only supported for ReadWrite Layers";

/// The smallest limit, one block.
const SMALLEST: u64 = 4096;

/// The limit that a new layer gets, by its storage options and the configured default.
pub(in super::super) fn requested_size(
    layer: &NewLayer<'_>,
    supported: bool,
    default: Option<Bytes>,
) -> Result<Option<Bytes>> {
    if layer.kind == LayerKind::ReadOnly {
        return match layer.storage_options.first() {
            None => Ok(None),
            Some(_) => Err(Error::invalid(READ_ONLY_LAYER)),
        };
    }
    if !supported {
        return match layer.storage_options {
            [] => Ok(None),
            _ => Err(not_supported()),
        };
    }
    // Only the first option counts: a key before `size` is refused, keys after it are never looked at.
    let invalid = |text: String| shown(ErrorKind::InvalidArgument, text);
    let large_enough = |size: Option<Bytes>| match size {
        Some(Bytes(size)) if size < SMALLEST => {
            Err(invalid(format!("Illegal storage quota size {size}, {SMALLEST} at least")))
        }
        size => Ok(size),
    };
    let Some((key, value)) = layer.storage_options.first() else {
        return large_enough(default);
    };
    if !key.eq_ignore_ascii_case("size") {
        return Err(invalid(format!("Unknown storage option {key}")));
    }
    let size = Bytes::parse_exact(value).map_err(|bad| {
        // The texts of EINVAL and ERANGE in the C locale.
        let why = match bad {
            BadSize::TooLarge => "Numerical result out of range",
            BadSize::NoDigit | BadSize::UnknownUnit | BadSize::Malformed => "Invalid argument",
        };
        invalid(format!("Invalid quota size: '{value}': {why}"))
    })?;
    large_enough(if size == Bytes(0) { default } else { Some(size) })
}

/// Nothing can be limited here.
pub(in super::super) fn not_supported() -> Error {
    shown(ErrorKind::Unsupported, NOT_SUPPORTED)
}

/// An error whose text the person who asked is shown as it is, in the words of the reference.
fn shown(kind: ErrorKind, text: impl Into<String>) -> Error {
    let text = text.into();
    Error::new(kind, text.clone()).for_people(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::LayerId;

    fn ask(
        kind: LayerKind,
        options: &[(&str, &str)],
        supported: bool,
        default: Option<Bytes>,
    ) -> Result<Option<Bytes>> {
        let id = LayerId::new("abc").unwrap();
        let options: Vec<_> = options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let layer = NewLayer { id: &id, parent: None, kind, storage_options: &options, mount_label: None };
        requested_size(&layer, supported, default)
    }

    #[test]
    fn without_project_quota_every_option_is_refused_in_the_words_of_the_reference() {
        use LayerKind::{ReadOnly, ReadWrite};
        assert_eq!(ask(ReadWrite, &[], false, None).unwrap(), None);
        assert_eq!(ask(ReadOnly, &[], false, None).unwrap(), None);
        for options in [[("size", "10G")], [("size", "x")], [("foo", "1")]] {
            let error = ask(ReadWrite, &options, false, None).unwrap_err();
            assert_eq!(
                error.report(),
                "--storage-opt is supported only for overlay over xfs or ext4 with 'pquota' mount option"
            );
            assert_eq!(error.shown(), Some(error.report().as_str()));
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            for supported in [false, true] {
                let error = ask(ReadOnly, &options, supported, None).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidArgument);
                assert_eq!(error.report(), "--storage-opt size is only supported for ReadWrite Layers");
                assert_eq!(error.shown(), None);
            }
        }
    }

    #[test]
    fn with_project_quota_the_first_option_decides() {
        let default = Some(Bytes(1 << 30));
        let rw = |options: &[(&str, &str)]| ask(LayerKind::ReadWrite, options, true, default);
        assert_eq!(rw(&[]).unwrap(), default);
        assert_eq!(rw(&[("size", "0")]).unwrap(), default);
        assert_eq!(rw(&[("SIZE", "4096")]).unwrap(), Some(Bytes(4096)));
        assert_eq!(rw(&[("size", "10G"), ("foo", "1")]).unwrap(), Some(Bytes(10 << 30)));
        assert_eq!(ask(LayerKind::ReadOnly, &[], true, default).unwrap(), None);
        let table = [
            (vec![("foo", "1"), ("size", "1G")], "Unknown storage option foo"),
            (vec![("size", "4095")], "Illegal storage quota size 4095, 4096 at least"),
            (vec![("size", "1")], "Illegal storage quota size 1, 4096 at least"),
            (vec![("size", "x")], "Invalid quota size: 'x': Invalid argument"),
            (vec![("size", "")], "Invalid quota size: '': Invalid argument"),
            (vec![("size", "-1")], "Invalid quota size: '-1': Invalid argument"),
            (vec![("Size", "1x")], "Invalid quota size: '1x': Invalid argument"),
            (
                vec![("size", "99999999999P")],
                "Invalid quota size: '99999999999P': Numerical result out of range",
            ),
        ];
        for (options, message) in table {
            let error = rw(&options).unwrap_err();
            assert_eq!((error.report().as_str(), error.shown()), (message, Some(message)));
            assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        }
        // A default is as good as if it had been asked for.
        for options in [&[][..], &[("size", "0")]] {
            let error = ask(LayerKind::ReadWrite, options, true, Some(Bytes(4095))).unwrap_err();
            assert_eq!(error.shown(), Some("Illegal storage quota size 4095, 4096 at least"));
        }
    }
}
