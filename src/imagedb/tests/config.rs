// SPDX-License-Identifier: MulanPSL-2.0
//! Configs as Docker reads them.

use super::*;

#[test]
fn chain_ids_are_those_of_docker() {
    let parse = |diff_ids: &[&str]| {
        let diff_ids: Vec<_> = diff_ids.iter().map(|hex| Digest::from_hex(hex).unwrap()).collect();
        Config::parse(&layered("x", &diff_ids)).unwrap().chain_id.map(|id| id.hex())
    };
    assert_eq!(parse(&[]), None);
    let base = "b49e22e64e7bf531ba249686046a3956bc2b4ef5444b6e836241f57a699b78fe";
    assert_eq!(parse(&[base]).as_deref(), Some(base));
    let second = "a9f434bc9e48f1ae837a6ab9dfc37352343bcd0d40bf0cb667e8ff34fa4ec075";
    let chain = "53a41b9122fe80f65413593145a25c2380c8c7f8db21125f8892f8f6d5efa293";
    assert_eq!(parse(&[base, second]).as_deref(), Some(chain));
}

#[test]
fn a_config_without_anything_but_a_rootfs_is_one() {
    for text in
        [r#"{"rootfs":{}}"#, r#"{"ROOTFS":{"DIFF_IDS":null}}"#, r#"{"rootfs":{"type":"x"},"history":null}"#]
    {
        let config = Config::parse(text.as_bytes()).unwrap();
        assert_eq!((config.diff_ids, config.chain_id, config.history), (vec![], None, vec![]), "{text}");
    }
}

#[test]
fn every_member_that_docker_knows_has_its_type() {
    for member in [
        r#""id":1"#,
        r#""parent":[]"#,
        r#""comment":{}"#,
        r#""created":"x""#,
        r#""created":5"#,
        r#""container":true"#,
        r#""container_config":"x""#,
        r#""docker_version":20"#,
        r#""author":1"#,
        r#""config":[]"#,
        r#""architecture":1"#,
        r#""variant":1"#,
        r#""os":1"#,
        r#""Size":"5""#,
        r#""Size":1.5"#,
        r#""os.version":1"#,
        r#""os.features":"x""#,
        r#""history":{}"#,
        r#""history":[{"created":""}]"#,
        r#""history":[{"empty_layer":"true"}]"#,
        r#""config":{"Cmd":{}}"#,
        r#""config":{"Env":"x"}"#,
        r#""config":{"ExposedPorts":["80/tcp"]}"#,
        r#""config":{"Tty":1}"#,
        r#""config":{"StopTimeout":"5"}"#,
        r#""config":{"Healthcheck":{"Interval":"1s"}}"#,
        r#""container_config":{"Labels":[]}"#,
    ] {
        let text = format!(r#"{{"rootfs":{{}},{member}}}"#);
        fails(Config::parse(text.as_bytes()), ErrorKind::InvalidData, "read image config: parse JSON");
    }
    for fine in [
        r#""config":null"#,
        r#""config":{"Cmd":"sh","Entrypoint":["a"],"Healthcheck":{"Test":["CMD"],"Interval":1}}"#,
        r#""Size":5"#,
        r#""created":"0001-01-01T00:00:00Z""#,
        r#""moby.buildkit.buildinfo.v1":"eyJ9""#,
        r#""Size":-0"#,
        r#""other":[1e400,-1e-400,123456789012345678901234567890]"#,
        r#""created":"2020-01-02T3:04:05Z""#,
        r#""created":"2020-01-02T03:04:05,5+25:99""#,
        r#""history":[{"created":"2020-01-02T03:04:05.1234567890123Z"}]"#,
        r#""author":"\ud800""#,
    ] {
        let text = format!(r#"{{"rootfs":{{}},{fine}}}"#);
        Config::parse(text.as_bytes()).unwrap_or_else(|error| panic!("{fine}: {}", error.report()));
    }
}
