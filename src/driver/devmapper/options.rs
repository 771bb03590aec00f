// SPDX-License-Identifier: MulanPSL-2.0
//! The daemon's `storage-opts` for this driver: `key=value`, keys in lower case only, split at the first `=`.
//!
//! ```text
//! dm.thinpooldev                            name     the thin pool, which somebody has made; a leading /dev/mapper/ is cut
//! dm.fs                                     ext4     and nothing else
//! dm.min_free_space                         0-99 %   of the pool that must be free for a new layer; 0 %: not looked at   10 %
//! dm.basesize                               size     of the base device; larger than before: it grows                    10 GiB
//! dm.mkfsarg                                text     one argument of mkfs.ext4; may be repeated
//! dm.mountopt, devicemapper.mountopt        string   options of every mount, separated by commas; the last wins
//! ```

use crate::error::{Error, Result};
use crate::sys::dm;
use crate::units::Bytes;

/// Size of the base device where nobody says.
const BASE_SIZE: Bytes = Bytes(10 << 30);
const MIN_FREE: u8 = 10;
const NODES: &str = "/dev/mapper/";

/// Parsed options.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Options {
    /// Name of the thin pool.
    pub(super) pool: String,
    /// How much of the pool must be free for a new layer, in percent.
    pub(super) min_free: u8,
    /// Size of the base device, if the daemon's options name one.
    pub(super) base_size: Option<Bytes>,
    /// Arguments of mkfs.ext4.
    pub(super) mkfs: Vec<String>,
    /// Options of every mount.
    pub(super) mount: Vec<String>,
}

impl Options {
    /// Parses the options; the error names the one that is wrong.
    pub(super) fn parse(options: &[String]) -> Result<Options> {
        let mut pool = None;
        let mut parsed = Options {
            pool: String::new(),
            min_free: MIN_FREE,
            base_size: None,
            mkfs: Vec::new(),
            mount: Vec::new(),
        };
        for option in options {
            let (key, value) = option
                .split_once('=')
                .ok_or_else(|| wrong(format!("Unable to parse key/value option: '{option}'")))?;
            match key {
                "dm.thinpooldev" => pool = Some(pool_name(value)?),
                "dm.fs" if value == "ext4" => {}
                "dm.fs" => return Err(wrong(format!("Invalid filesystem: '{value}': not supported"))),
                "dm.min_free_space" => parsed.min_free = percent(value)?,
                "dm.basesize" => parsed.base_size = Some(base_size(value)?),
                "dm.mkfsarg" if value.is_empty() => return Err(wrong("Invalid dm.mkfsarg value")),
                "dm.mkfsarg" => parsed.mkfs.push(value.to_owned()),
                "dm.mountopt" | "devicemapper.mountopt" if value.is_empty() => {
                    return Err(wrong("Invalid dm.mountopt or devicemapper.mountopt value"));
                }
                "dm.mountopt" | "devicemapper.mountopt" => parsed.mount = vec![value.to_owned()],
                _ => return Err(wrong(format!("devicemapper: unknown option: '{key}'"))),
            }
        }
        parsed.pool = pool.ok_or_else(|| {
            wrong("devicemapper: no thin pool: name one that exists by the storage option dm.thinpooldev")
        })?;
        Ok(parsed)
    }

    /// Size of a base device that is made now.
    pub(super) fn new_base_size(&self) -> Bytes {
        self.base_size.unwrap_or(BASE_SIZE)
    }
}

fn pool_name(value: &str) -> Result<String> {
    let name = value.strip_prefix(NODES).unwrap_or(value);
    if name.is_empty() {
        return Err(wrong("Invalid thinpool device, it must not be empty"));
    }
    if !dm::is_name(name) {
        let text = format!("Invalid thinpool device: '{value}': give its name, or its path below {NODES}");
        return Err(wrong(text));
    }
    Ok(name.to_owned())
}

fn percent(value: &str) -> Result<u8> {
    let digits = value.strip_suffix('%').filter(|digits| !digits.is_empty());
    let digits = digits.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let number = digits.and_then(|digits| digits.parse().ok()).filter(|percent| *percent < 100);
    number.ok_or_else(|| wrong(format!("Invalid min free space: '{value}'")))
}

fn base_size(value: &str) -> Result<Bytes> {
    let size = Bytes::parse_exact(value).map_err(|_| wrong(format!("Invalid size: '{value}'")))?;
    match size {
        Bytes(0) => Err(wrong("dm.basesize is lower than zero")),
        size => Ok(whole_blocks(size)),
    }
}

/// What of a device of this size a file system takes: a device has whole sectors, a file system whole blocks. The
/// reference writes sizes down as they were given.
pub(super) fn whole_blocks(size: Bytes) -> Bytes {
    Bytes(size.0 - size.0 % BLOCK)
}

/// The largest block that mkfs.ext4 takes by itself.
const BLOCK: u64 = 4096;

/// The size that a new layer is to have, by its storage options; `None`: that of its parent.
pub(super) fn layer_size(storage_options: &[(String, String)]) -> Result<Option<Bytes>> {
    let mut size = None;
    for (key, value) in storage_options {
        if !key.eq_ignore_ascii_case("size") {
            return Err(wrong(format!("Unknown option {key}")));
        }
        let bytes = Bytes::parse_exact(value).map_err(|_| wrong(format!("Invalid size: '{value}'")))?;
        size = (bytes.0 > 0).then_some(whole_blocks(bytes));
    }
    Ok(size)
}

/// An error in the words of the reference, which the person who asked is shown.
fn wrong(text: impl Into<String>) -> Error {
    let text = text.into();
    Error::invalid(text.clone()).for_people(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(options: &[&str]) -> Result<Options> {
        Options::parse(&options.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn every_option_is_understood() {
        let least = parse(&["dm.thinpooldev=pool"]).unwrap();
        assert_eq!((least.pool.as_str(), least.min_free, least.base_size), ("pool", 10, None));
        assert_eq!(least.new_base_size(), Bytes(10 << 30));
        let all = parse(&[
            "dm.thinpooldev=/dev/mapper/vg-thin--pool",
            "dm.fs=ext4",
            "dm.min_free_space=0%",
            "dm.basesize=2.5G",
            "dm.mkfsarg=-O",
            "dm.mkfsarg=^has_journal, really",
            "dm.mountopt=nodev",
            "devicemapper.mountopt=noatime,discard",
        ]);
        assert_eq!(
            all.unwrap(),
            Options {
                pool: "vg-thin--pool".into(),
                min_free: 0,
                base_size: Some(Bytes(5 << 29)),
                mkfs: vec!["-O".into(), "^has_journal, really".into()],
                mount: vec!["noatime,discard".into()],
            }
        );
    }

    #[test]
    fn a_wrong_option_is_refused_in_the_words_of_the_reference() {
        let table = [
            ("dm.thinpooldev=", "Invalid thinpool device, it must not be empty"),
            ("dm.thinpooldev=/dev/mapper/", "Invalid thinpool device, it must not be empty"),
            ("dm.fs=xfs", "Invalid filesystem: 'xfs': not supported"),
            ("dm.min_free_space=10", "Invalid min free space: '10'"),
            ("dm.min_free_space=100%", "Invalid min free space: '100%'"),
            ("dm.min_free_space=+1%", "Invalid min free space: '+1%'"),
            ("dm.min_free_space=%", "Invalid min free space: '%'"),
            ("dm.basesize=x", "Invalid size: 'x'"),
            ("dm.basesize=9999999P", "Invalid size: '9999999P'"),
            ("dm.basesize=0", "dm.basesize is lower than zero"),
            ("dm.mkfsarg=", "Invalid dm.mkfsarg value"),
            ("dm.mountopt=", "Invalid dm.mountopt or devicemapper.mountopt value"),
            ("devicemapper.mountopt=", "Invalid dm.mountopt or devicemapper.mountopt value"),
            ("dm.foo=1", "devicemapper: unknown option: 'dm.foo'"),
            ("DM.fs=ext4", "devicemapper: unknown option: 'DM.fs'"),
            ("nokey", "Unable to parse key/value option: 'nokey'"),
        ];
        for (option, text) in table {
            let error = parse(&["dm.thinpooldev=pool", option]).unwrap_err();
            assert_eq!((error.report().as_str(), error.shown()), (text, Some(text)), "{option}");
        }
        assert!(parse(&["dm.thinpooldev=/dev/vg/lv"]).is_err());
    }

    #[test]
    fn a_pool_has_to_be_named() {
        let error = parse(&[]).unwrap_err();
        assert!(error.report().contains("dm.thinpooldev"), "{}", error.report());
    }

    #[test]
    fn a_layers_size_is_the_only_option_of_a_layer() {
        let size = |options: &[(&str, &str)]| {
            let options: Vec<_> = options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            layer_size(&options)
        };
        assert_eq!(size(&[]).unwrap(), None);
        assert_eq!(size(&[("Size", "20G")]).unwrap(), Some(Bytes(20 << 30)));
        assert_eq!(size(&[("size", "0")]).unwrap(), None);
        assert!(size(&[("size", "1x")]).is_err());
        assert_eq!(size(&[("foo", "1")]).unwrap_err().report(), "Unknown option foo");
    }
}
