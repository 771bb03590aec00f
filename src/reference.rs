// SPDX-License-Identifier: MulanPSL-2.0
//! Image names: tags, digest references, default host and tag; the users of image configs; names of big data files.
//! Pure; the default host is always an argument, never global.
//!
//! Source: what iSulad's own helpers do, [`crate::record`]s hold names in exactly this form.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::digest::{Digest, HEX_LEN};
use crate::error::{Error, ErrorKind, Result};

/// Tag of a name that has none.
pub const DEFAULT_TAG: &str = "latest";
/// Longest valid name in bytes.
pub const MAX_NAME: usize = 255;
/// Longest name that [`default_tag`] makes, in bytes: a C path without its NUL.
const MAX_PATH: usize = 4095;
/// Namespace that is not shown in names of the default host.
const OFFICIAL: &str = "library/";
const DIGEST_MARK: &str = "@sha256:";
const MAX_TAG: usize = 128;
const MIN_DIGEST: usize = 32;

/// Adds `:latest` when the last component has neither tag nor digest. The result is limited to 4095 bytes
/// (`LimitExceeded`).
pub fn default_tag(name: &str) -> Result<String> {
    let last = name.rsplit('/').find(|part| !part.is_empty()).unwrap_or_default();
    let tagged = if last.contains(':') { name.to_owned() } else { format!("{name}:{DEFAULT_TAG}") };
    if tagged.len() > MAX_PATH {
        let message = format!("image name of {} bytes is too long", name.len());
        return Err(Error::new(ErrorKind::LimitExceeded, message));
    }
    Ok(tagged)
}

/// Removes the default host if the name starts with it, then `library/` if the rest starts with that; each once.
/// Without a default host names stay as they are.
pub fn strip_host<'a>(name: &'a str, default_host: Option<&str>) -> &'a str {
    let Some(host) = default_host else { return name };
    let rest = name.strip_prefix(host).and_then(|rest| rest.strip_prefix('/')).unwrap_or(name);
    rest.strip_prefix(OFFICIAL).unwrap_or(rest)
}

/// The name as records hold it: with a tag, without the default host and `library/`.
pub fn normalize(name: &str, default_host: Option<&str>) -> Result<String> {
    let tagged = default_tag(name)?;
    Ok(strip_host(&tagged, default_host).to_owned())
}

/// Where the `:` of the tag is; `None` without a tag. Of a digest reference it is the colon inside the digest.
pub fn tag_position(name: &str) -> Option<usize> {
    let colon = name.rfind(':')?;
    let tag = name.get(colon..)?;
    (!tag.contains('/')).then_some(colon)
}

/// The name without its tag; of a digest reference everything before the colon inside the digest.
pub fn without_tag(name: &str) -> &str {
    tag_position(name).and_then(|colon| name.get(..colon)).unwrap_or(name)
}

/// Where the `@` of a digest reference is: the last one, if what follows begins like `@sha256:<32 or more hex>`.
pub fn digest_position(name: &str) -> Option<usize> {
    let at = name.rfind('@')?;
    let (algorithm, rest) = name.get(at + 1..)?.split_once(':')?;
    let digits = rest.bytes().take_while(|&byte| is_lower_alphanumeric(byte)).count();
    let fits = !algorithm.is_empty() && algorithm.bytes().all(is_lower_alphanumeric) && digits >= MIN_DIGEST;
    fits.then_some(at)
}

/// Whether a stored name is a digest (`repository@sha256:<64 characters>`); everything else is a tag.
pub fn is_digest_name(name: &str) -> bool {
    let tail = DIGEST_MARK.len() + HEX_LEN;
    name.len() > tail
        && name
            .as_bytes()
            .get(name.len() - tail..)
            .is_some_and(|tail| tail.starts_with(DIGEST_MARK.as_bytes()))
}

/// Whether a name is valid: at most 255 bytes, an optional host with an optional port, lower-case path components
/// separated by `.`, `_`, `__` or dashes, an optional tag, an optional digest.
pub fn is_valid_name(name: &str) -> bool {
    if name.len() > MAX_NAME {
        return false;
    }
    let rest = if name.contains('@') {
        digest_position(name).and_then(|at| name.get(..at))
    } else {
        match tag_position(name).map(|colon| name.split_at(colon)) {
            None => Some(name),
            Some((rest, tag)) => is_valid_tag(tag.trim_start_matches(':')).then_some(rest),
        }
    };
    rest.is_some_and(|rest| is_valid_repository(rest) || is_tagged_repository(rest))
}

/// A name may carry a tag before its digest.
fn is_tagged_repository(name: &str) -> bool {
    let Some((repository, tag)) = tag_position(name).map(|colon| name.split_at(colon)) else { return false };
    is_valid_tag(tag.trim_start_matches(':')) && is_valid_repository(repository)
}

fn is_valid_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|byte| word(byte) || matches!(byte, b'.' | b'-'))
}

fn is_valid_repository(name: &str) -> bool {
    let is_path = |path: &str| path.split('/').all(is_path_component);
    is_path(name) || name.split_once('/').is_some_and(|(host, path)| is_host(host) && is_path(path))
}

fn is_host(text: &str) -> bool {
    let (host, port) = text.split_once(':').unwrap_or((text, "0"));
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    host.split('.').all(is_label) && !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_path_component(text: &str) -> bool {
    let mut rest = text.as_bytes();
    loop {
        let word = rest.iter().take_while(|&&byte| is_lower_alphanumeric(byte)).count();
        rest = rest.get(word..).unwrap_or_default();
        if word == 0 {
            return false;
        }
        if rest.is_empty() {
            return true;
        }
        let separator = match rest {
            [b'_', b'_', ..] => 2,
            [b'.' | b'_', ..] => 1,
            _ => rest.iter().take_while(|&&byte| byte == b'-').count(),
        };
        if separator == 0 {
            return false;
        }
        rest = rest.get(separator..).unwrap_or_default();
    }
}

fn is_lower_alphanumeric(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

/// The digest a person means: 64 hex digits are `sha256:` and these, a digest stays; everything else is a name and is
/// normalised.
pub fn parse_digest(text: &str, default_host: Option<&str>) -> Result<String> {
    if let Ok(digest) = Digest::from_hex(text).or_else(|_| Digest::parse(text)) {
        return Ok(digest.to_string());
    }
    normalize(text, default_host)
}

/// File name of a piece of big data: the key itself if it has only `a`-`z`, `0`-`9` and `.`, else `=` and its base64
/// with padding. Standard alphabet: `/` can occur in the result for a few keys.
pub fn big_data_file_name(key: &str) -> String {
    if key.bytes().all(|byte| is_lower_alphanumeric(byte) || byte == b'.') {
        key.to_owned()
    } else {
        format!("={}", STANDARD.encode(key))
    }
}

/// Splits `user:group` of an image config at the first `:`; empty parts are `None`.
pub fn parse_user_group(text: &str) -> (Option<&str>, Option<&str>) {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    (Some(user).filter(|user| !user.is_empty()), group.filter(|group| !group.is_empty()))
}

/// A whole number as C's `strtoll` with base 0 reads it: `16`, `0x10`, `020`; `None` when something follows it or it
/// does not fit.
pub fn parse_integer(text: &str) -> Option<i64> {
    let text = text.trim_start_matches([' ', '\t', '\n', '\u{b}', '\u{c}', '\r']);
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, text.get(1..)?),
        b'+' => (false, text.get(1..)?),
        _ => (false, text),
    };
    let (digits, radix) = match digits.as_bytes() {
        [b'0', b'x' | b'X', _, ..] => (digits.get(2..)?, 16),
        [b'0', _, ..] => (digits.get(1..)?, 8),
        _ => (digits, 10),
    };
    if !digits.bytes().all(|byte| char::from(byte).is_digit(radix)) {
        return None; // from_str_radix would take a second sign
    }
    let magnitude = i128::from(u64::from_str_radix(digits, radix).ok()?);
    i64::try_from(if negative { -magnitude } else { magnitude }).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const HUB: Option<&str> = Some("docker.io");

    fn hex(len: usize) -> String {
        "a1".repeat(len / 2)
    }

    #[test]
    fn a_name_without_tag_gets_the_default_one() {
        let digest = format!("a@sha256:{}", hex(64));
        let table = [
            ("", ":latest"),
            ("foo/", "foo/:latest"),
            ("busybox", "busybox:latest"),
            ("busybox:1", "busybox:1"),
            ("h:5000/x", "h:5000/x:latest"),
            ("h:5000/x:2", "h:5000/x:2"),
            ("foo:1/", "foo:1/"),
            (&digest, &digest),
        ];
        for (name, wanted) in table {
            assert_eq!(default_tag(name).unwrap(), wanted, "{name}");
        }
        assert!(default_tag(&"x".repeat(4088)).is_ok());
        assert_eq!(default_tag(&"x".repeat(4089)).unwrap_err().kind(), ErrorKind::LimitExceeded);
    }

    #[test]
    fn the_default_host_is_stripped_once() {
        let table = [
            ("docker.io/library/busybox", "busybox"),
            ("docker.io/library/library/busybox", "library/busybox"),
            ("library/busybox", "busybox"),
            ("docker.io/foo/bar", "foo/bar"),
            ("docker.iox/foo", "docker.iox/foo"),
            ("quay.io/library/x", "quay.io/library/x"),
            ("docker.io", "docker.io"),
        ];
        for (name, wanted) in table {
            assert_eq!(strip_host(name, HUB), wanted, "{name}");
            assert_eq!(strip_host(name, None), name);
        }
    }

    #[test]
    fn names_are_normalised() {
        let table = [
            ("docker.io/library/busybox", "busybox:latest"),
            ("library/busybox:1", "busybox:1"),
            ("docker.io/foo/bar", "foo/bar:latest"),
            ("h:5000/x", "h:5000/x:latest"),
        ];
        for (name, wanted) in table {
            assert_eq!(normalize(name, HUB).unwrap(), wanted, "{name}");
        }
        assert_eq!(normalize("docker.io/x", None).unwrap(), "docker.io/x:latest");
    }

    #[test]
    fn tags_and_digests_are_found() {
        let digest = format!("a@sha256:{}", hex(64));
        assert_eq!(tag_position("a:1"), Some(1));
        assert_eq!(tag_position("h:5000/x"), None);
        assert_eq!(tag_position("h:5000/x:2"), Some(8));
        assert_eq!(tag_position("a"), None);
        assert_eq!(tag_position(&digest), Some(8), "the colon inside the digest");
        assert_eq!(without_tag("h:5000/x:2"), "h:5000/x");
        assert_eq!(without_tag("h:5000/x"), "h:5000/x");
        assert_eq!(digest_position(&digest), Some(1));
        assert_eq!(digest_position(&format!("a@b@sha256:{}", hex(32))), Some(3));
        assert_eq!(digest_position(&format!("a@md5:{}Z", hex(32))), Some(1), "not anchored at the end");
        for none in [
            "a:1",
            "a@",
            "a@sha256",
            &format!("a@sha256:{}", hex(30)),
            &format!("a@Sha256:{}", hex(64)),
            &format!("a@:{}", hex(64)),
        ] {
            assert_eq!(digest_position(none), None, "{none}");
        }
    }

    #[test]
    fn stored_names_are_tags_or_digests() {
        assert!(is_digest_name(&format!("a@sha256:{}", hex(64))));
        assert!(is_digest_name(&format!("a@sha256:{}", "Z".repeat(64))), "the characters are not looked at");
        for tag in [
            "a:1",
            "",
            &format!("@sha256:{}", hex(64)),
            &format!("a@sha256:{}", hex(62)),
            &format!("a@sha512:{}", hex(64)),
        ] {
            assert!(!is_digest_name(tag), "{tag}");
        }
        assert!(!is_digest_name(&format!("aä@sha256:{}ä", hex(64))), "no character boundary at the cut");
    }

    #[test]
    fn valid_names() {
        let digest = format!("@sha256:{}", hex(64));
        for good in [
            "a",
            "busybox",
            "a:1",
            "a:_x.-Y",
            "a/b/c",
            "h.io/a",
            "H.io:5000/a_b",
            "h:5000/a:1",
            "a__b",
            "a---b",
            "a.b",
            "1/2",
            "Host/x",
            &format!("a:{}", "x".repeat(128)),
            &format!("a{digest}"),
            &format!("a:1{digest}"),
            &format!("h:5000/a:1{digest}"),
            &"a".repeat(255),
            "a:1:2",
        ] {
            assert!(is_valid_name(good), "{good}");
        }
        for bad in [
            "",
            ":1",
            "A",
            "a:",
            "a:-",
            "a:.x",
            "a/",
            "/a",
            "a//b",
            "a___b",
            "a._b",
            "a-_b",
            "-a",
            "a-",
            "a.",
            "a b",
            "a/B",
            "-h/a",
            "h-.io/a",
            "h..io/a",
            "h:x/a",
            "h:/a",
            "ä",
            "a@",
            "a@sha256:12",
            "../a",
            "Host",
            &format!("a:{}", "x".repeat(129)),
            &format!("A{digest}"),
            &digest,
            &"a".repeat(256),
        ] {
            assert!(!is_valid_name(bad), "{bad}");
        }
    }

    #[test]
    fn digests_are_completed() {
        let full = format!("sha256:{}", hex(64));
        assert_eq!(parse_digest(&hex(64), HUB).unwrap(), full);
        assert_eq!(parse_digest(&full, HUB).unwrap(), full);
        assert_eq!(parse_digest("docker.io/library/x", HUB).unwrap(), "x:latest");
    }

    #[test]
    fn big_data_keys_become_file_names() {
        let config = "sha256:11ecebd34f10939e545d04d93fb8d09ac0c252c3c1e4bcf55a34694d2bcd5142";
        let encoded = "=c2hhMjU2OjExZWNlYmQzNGYxMDkzOWU1NDVkMDRkOTNmYjhkMDlhYzBjMjUyYzNjMWU0YmNmNTVhMzQ2OTRkMmJjZDUxNDI=";
        let table = [
            ("manifest", "manifest"),
            ("", ""),
            (".", "."),
            ("images.json", "images.json"),
            ("Signature-1", "=U2lnbmF0dXJlLTE="),
            ("aa?", "=YWE/"),
            (config, encoded),
        ];
        for (key, wanted) in table {
            assert_eq!(big_data_file_name(key), wanted, "{key}");
        }
    }

    #[test]
    fn users_and_groups() {
        let table = [
            ("", None, None),
            ("u", Some("u"), None),
            ("u:g", Some("u"), Some("g")),
            (":g", None, Some("g")),
            ("u:", Some("u"), None),
            ("u:g:h", Some("u"), Some("g:h")),
        ];
        for (text, user, group) in table {
            assert_eq!(parse_user_group(text), (user, group), "{text}");
        }
    }

    #[test]
    fn integers_are_read_as_c_does() {
        let table = [
            ("0", Some(0)),
            ("16", Some(16)),
            ("0x10", Some(16)),
            ("0X1f", Some(31)),
            ("020", Some(16)),
            ("-0x10", Some(-16)),
            ("+5", Some(5)),
            (" 5", Some(5)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("9223372036854775808", None),
            ("08", None),
            ("0x", None),
            ("0xg", None),
            ("", None),
            (" ", None),
            ("-", None),
            ("--5", None),
            ("+-5", None),
            ("5 ", None),
            ("5a", None),
            ("root", None),
        ];
        for (text, wanted) in table {
            assert_eq!(parse_integer(text), wanted, "{text}");
        }
    }
}
