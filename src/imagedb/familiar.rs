// SPDX-License-Identifier: MulanPSL-2.0
//! Names of images as people write them and as Docker shows them: pure.
//!
//! Source: `distribution/reference` ("familiar" names).

use crate::digest::{Digest, HEX_LEN};
use crate::error::{Error, Result};
use crate::reference::{is_valid_name, tag_position};

const DEFAULT_HOST: &str = "docker.io";
const OLD_DEFAULT_HOST: &str = "index.docker.io";
const DEFAULT_NAMESPACE: &str = "library/";
const LOCAL_HOST: &str = "localhost";

/// A name, in its familiar form: without the default host and its `library/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Familiar {
    /// The repository.
    pub repository: String,
    /// The tag.
    pub tag: Option<String>,
    /// The digest.
    pub digest: Option<Digest>,
}

impl Familiar {
    /// Reads a name. What is none: `InvalidArgument`.
    pub fn parse(text: &str) -> Result<Familiar> {
        let shown = || text.chars().take(300).collect::<String>();
        let bad = |why: &str| Error::invalid(format!("invalid reference {:?}: {why}", shown()));
        if text.len() == HEX_LEN && crate::id::is_canonical(text) {
            return Err(bad("cannot specify 64-byte hexadecimal strings"));
        }
        let (rest, digest) = match text.split_once('@') {
            Some((rest, digest)) => {
                (rest, Some(Digest::parse(digest).map_err(|_| bad("no SHA-256 digest"))?))
            }
            None => (text, None),
        };
        let (name, tag) = match tag_position(rest) {
            Some(at) => (rest.get(..at).unwrap_or_default(), rest.get(at + 1..)),
            None => (rest, None),
        };
        let (host, path) = match name.split_once('/') {
            Some((host, path)) if host.contains(['.', ':']) || host == LOCAL_HOST => (host, path),
            _ => (DEFAULT_HOST, name),
        };
        let repository = match host {
            DEFAULT_HOST | OLD_DEFAULT_HOST => {
                // Only of what is directly in it: `library/a/b` is another name than `a/b`.
                path.strip_prefix(DEFAULT_NAMESPACE)
                    .filter(|rest| !rest.contains('/'))
                    .unwrap_or(path)
                    .to_owned()
            }
            host => format!("{host}/{path}"),
        };
        // The whole name counts, as it is with the host: what is familiar may not look like one.
        let whole = format!("{host}/{path}{}", tag.map(|tag| format!(":{tag}")).unwrap_or_default());
        if !is_valid_name(&whole) {
            return Err(bad("not a name of an image"));
        }
        Ok(Familiar { repository, tag: tag.map(str::to_owned), digest })
    }

    /// What `repositories.json` holds for it. Of tag and digest the digest counts; with neither the tag is `latest`.
    pub fn key(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => format!("{}@{digest}", self.repository),
            (None, Some(tag)) => format!("{}:{tag}", self.repository),
            (None, None) => format!("{}:latest", self.repository),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_familiar() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let with_digest = |name: &str| format!("{name}@{digest}");
        for (text, repository, key) in [
            ("busybox", "busybox", "busybox:latest"),
            ("busybox:1.0", "busybox", "busybox:1.0"),
            ("library/busybox", "busybox", "busybox:latest"),
            ("docker.io/library/busybox:x", "busybox", "busybox:x"),
            ("index.docker.io/busybox:x", "busybox", "busybox:x"),
            ("docker.io/user/app", "user/app", "user/app:latest"),
            ("user/app:v_1.2-3", "user/app", "user/app:v_1.2-3"),
            ("localhost/bb:v1", "localhost/bb", "localhost/bb:v1"),
            ("localhost:5000/bb", "localhost:5000/bb", "localhost:5000/bb:latest"),
            ("quay.io/library/a:1", "quay.io/library/a", "quay.io/library/a:1"),
            ("library/a/b", "library/a/b", "library/a/b:latest"),
            (&with_digest("busybox"), "busybox", &with_digest("busybox")),
            (&with_digest("docker.io/library/busybox:1.0"), "busybox", &with_digest("busybox")),
        ] {
            let name = Familiar::parse(text).unwrap_or_else(|error| panic!("{text}: {}", error.report()));
            assert_eq!((name.repository.as_str(), name.key().as_str()), (repository, key), "{text}");
            assert_eq!(Familiar::parse(&name.key()).unwrap().key(), name.key(), "{text}");
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let hex = "a".repeat(64);
        for bad in [
            "",
            ":",
            "@",
            "Busybox",
            "a b",
            "a/",
            "/a",
            "a//b",
            "../a",
            "a:",
            "a:.x",
            "a@",
            "a@sha256:abc",
            &format!("a@sha512:{hex}"),
            &hex,
            "a\0b",
            "é",
            &"a/".repeat(200),
        ] {
            assert!(Familiar::parse(bad).is_err(), "{bad}");
        }
    }
}
