// SPDX-License-Identifier: MulanPSL-2.0
//! The daemon's `storage-opts` for the overlay driver: `key=value`, keys in any case, split at the first `=`.
//!
//! ```text
//! overlay2.size, overlay2.basesize    size    default quota of container layers; the last one wins, 0 is none
//! overlay2.override_kernel_check      bool    taken, has no effect (as in the reference)
//! overlay2.skip_mount_home            bool    do not bind the driver's home on itself
//! overlay2.mountopt                   string  options of every mount, separated by commas
//! ```
//!
//! And those of this library, for every driver, which the reference does not know: bounds on each layer archive that is
//! unpacked from now on. What is beyond one is refused (`LimitExceeded`, EFBIG) and leaves nothing behind.
//!
//! ```text
//! layer.max_entries   number  entries                                                            10,000,000
//! layer.max_size      size    bytes uncompressed; compressed it may have twice as many at most   1 TiB
//! layer.max_ratio     number  uncompressed bytes for each compressed one, beyond the first 64 MiB    10,000
//! ```

use crate::archive::Limits;
use crate::error::{Error, Result};
use crate::units::Bytes;

/// Parsed options of the overlay driver.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OverlayOptions {
    /// Quota of container layers that name none.
    pub default_size: Option<Bytes>,
    /// Taken for compatibility, has no effect.
    pub override_kernel_check: bool,
    /// The home is not bound on itself.
    pub skip_mount_home: bool,
    /// Options of every mount, as they were given.
    pub mount_options: Option<String>,
}

impl OverlayOptions {
    /// Parses the options; the error names the one that is wrong.
    pub fn parse(options: &[String]) -> Result<Self> {
        let mut parsed = OverlayOptions::default();
        for option in options {
            let (key, value) = split(option)?;
            match key.to_ascii_lowercase().as_str() {
                "overlay2.size" | "overlay2.basesize" => {
                    let size = Bytes::parse(value).map_err(|error| error.context(wrong(option)))?;
                    parsed.default_size = (size.0 > 0).then_some(size);
                }
                "overlay2.override_kernel_check" => parsed.override_kernel_check = parse_bool(option, value)?,
                "overlay2.skip_mount_home" => parsed.skip_mount_home = parse_bool(option, value)?,
                "overlay2.mountopt" => parsed.mount_options = Some(value.to_owned()),
                _ => return Err(Error::invalid(format!("overlay2: unknown option: '{option}'"))),
            }
        }
        Ok(parsed)
    }
}

/// Takes the bounds on archives out of a storage's options; the rest is the driver's. The last of a kind wins.
pub fn take_limits(options: Vec<String>, limits: &mut Limits) -> Result<Vec<String>> {
    let mut rest = Vec::with_capacity(options.len());
    for option in options {
        let (key, value) = option.split_once('=').unwrap_or((&option, ""));
        match key.to_ascii_lowercase().as_str() {
            "layer.max_entries" => limits.entries = parse_count(&option, value)?,
            "layer.max_ratio" => limits.ratio = parse_count(&option, value)?,
            "layer.max_size" => {
                let size = Bytes::parse(value).map_err(|error| error.context(wrong(&option)))?;
                limits.stream = Bytes(at_least_one(&option, size.0)?);
            }
            _ => rest.push(option),
        }
    }
    Ok(rest)
}

fn parse_count(option: &str, value: &str) -> Result<u64> {
    let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
    let number = value.parse().ok().filter(|_| digits);
    let number =
        number.ok_or_else(|| Error::invalid(format!("{}: '{value}' is no number", wrong(option))))?;
    at_least_one(option, number)
}

fn at_least_one(option: &str, number: u64) -> Result<u64> {
    if number == 0 {
        return Err(Error::invalid(format!("{}: nothing could be unpacked", wrong(option))));
    }
    Ok(number)
}

/// Refuses every option, for a driver that has none.
pub fn refuse_all(driver: &str, options: &[String]) -> Result<()> {
    match options.first() {
        None => Ok(()),
        Some(option) => Err(Error::invalid(format!("{driver}: unknown option: '{option}'"))),
    }
}

fn wrong(option: &str) -> String {
    format!("storage option '{option}'")
}

fn split(option: &str) -> Result<(&str, &str)> {
    option
        .split_once('=')
        .ok_or_else(|| Error::invalid(format!("unable to parse key/value option: '{option}'")))
}

fn parse_bool(option: &str, value: &str) -> Result<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(Error::invalid(format!("{}: '{value}' is neither true nor false", wrong(option)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn parse(options: &[&str]) -> Result<OverlayOptions> {
        OverlayOptions::parse(&options.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn each_option_is_understood_whatever_the_case_of_its_key() {
        assert_eq!(parse(&[]).unwrap(), OverlayOptions::default());
        let all = parse(&[
            "overlay2.size=1G",
            "Overlay2.BaseSize=10m",
            "OVERLAY2.OVERRIDE_KERNEL_CHECK=T",
            "overlay2.skip_mount_home=1",
            "overlay2.mountopt=ro",
            "overlay2.mountopt=nodev,metacopy=on,context=\"a:b:c1,c2\"",
        ]);
        assert_eq!(
            all.unwrap(),
            OverlayOptions {
                default_size: Some(Bytes(10 << 20)),
                override_kernel_check: true,
                skip_mount_home: true,
                mount_options: Some("nodev,metacopy=on,context=\"a:b:c1,c2\"".to_owned()),
            }
        );
        assert_eq!(parse(&["overlay2.size=4k", "overlay2.size=0"]).unwrap().default_size, None);
    }

    #[test]
    fn bools_are_written_as_the_reference_takes_them() {
        for (text, value) in [
            ("1", true),
            ("t", true),
            ("T", true),
            ("true", true),
            ("TRUE", true),
            ("True", true),
            ("0", false),
            ("f", false),
            ("F", false),
            ("false", false),
            ("FALSE", false),
            ("False", false),
        ] {
            let option = format!("overlay2.skip_mount_home={text}");
            assert_eq!(parse(&[&option]).unwrap().skip_mount_home, value, "{text}");
        }
        for text in ["", "yes", "tRUE", "2", " 1", "true "] {
            let option = format!("overlay2.skip_mount_home={text}");
            assert!(parse(&[&option]).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_error_names_the_option() {
        let table = [
            ("nokey", "unable to parse key/value option: 'nokey'"),
            ("", "unable to parse key/value option: ''"),
            ("overlay.size=1", "overlay2: unknown option: 'overlay.size=1'"),
            ("overlay2.siz=1", "overlay2: unknown option: 'overlay2.siz=1'"),
            (
                "overlay2.size=x",
                "storage option 'overlay2.size=x': invalid size: 'x': it does not start with a digit",
            ),
            (
                "overlay2.skip_mount_home=perhaps",
                "storage option 'overlay2.skip_mount_home=perhaps': 'perhaps' is neither true nor false",
            ),
        ];
        for (option, message) in table {
            let error = parse(&[option]).unwrap_err();
            assert_eq!(error.report(), message);
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{option}");
        }
    }

    #[test]
    fn limits_are_taken_out_of_the_options() {
        let take = |options: &[&str]| {
            let mut limits = Limits::default();
            let options = options.iter().map(ToString::to_string).collect();
            take_limits(options, &mut limits).map(|rest| (limits, rest))
        };
        let usual = Limits::default();
        assert_eq!(
            take(&["overlay2.size=1G"]).unwrap(),
            (usual.clone(), vec!["overlay2.size=1G".to_owned()])
        );
        let (limits, rest) = take(&[
            "layer.max_entries=7",
            "a=b",
            "LAYER.max_size=2G",
            "layer.max_ratio=3",
            "layer.max_entries=8",
        ])
        .unwrap();
        assert_eq!(rest, ["a=b"]);
        assert_eq!(limits, Limits { entries: 8, stream: Bytes(2 << 30), ratio: 3, ..usual });
        for wrong in ["", "0", "-1", "+1", "x", "1.5", "99999999999999999999"] {
            for key in ["layer.max_entries", "layer.max_ratio"] {
                let option = format!("{key}={wrong}");
                let error = take(&[&option]).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{option}");
                assert!(error.report().contains(&option), "{}", error.report());
            }
        }
        for wrong in ["layer.max_size", "layer.max_size=0", "layer.max_size=big", "layer.max_entries"] {
            assert_eq!(take(&[wrong]).unwrap_err().kind(), ErrorKind::InvalidArgument, "{wrong}");
        }
    }
}
