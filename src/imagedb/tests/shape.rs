// SPDX-License-Identifier: MulanPSL-2.0
//! JSON as Go reads it.

use super::*;

static MEMBERS: &[Member] = &[
    ("text", Shape::Text),
    ("time", Shape::Time),
    ("flag", Shape::Flag),
    ("number", Shape::Number),
    ("texts", Shape::Texts),
    ("either", Shape::TextOrTexts),
    ("map", Shape::TextMap),
    ("keys", Shape::Keys),
    ("object", Shape::Object(&[("a", Shape::Text), ("sk", Shape::Text)])),
    ("objects", Shape::Objects(&[("a", Shape::Text)])),
];

fn member(text: &str, name: &str) -> Node {
    let mut node = read(text.as_bytes(), MEMBERS).unwrap_or_else(|error| panic!("{text}: {error}"));
    let at = MEMBERS.iter().position(|(known, _)| *known == name).unwrap();
    node.members().unwrap().swap_remove(at)
}

fn text(value: &str) -> Node {
    Node::Text(value.into())
}

fn texts(values: &[&str]) -> Node {
    Node::Texts(values.iter().map(|value| (*value).into()).collect())
}

#[test]
fn names_are_matched_without_regard_to_case() {
    for name in ["text", "TEXT", "Text", "tEXt"] {
        assert_eq!(member(&format!(r#"{{"{name}":"x"}}"#), "text"), text("x"), "{name}");
    }
    let object = |a: Node, sk: Node| Node::Object(vec![a, sk]);
    assert_eq!(member(r#"{"object":{"\u017f\u212a":"x"}}"#, "object"), object(Node::Absent, text("x")));
    assert_eq!(member(r#"{"text ":"x","téxt":"y"}"#, "text"), Node::Absent);
}

#[test]
fn the_later_of_duplicates_wins_and_objects_are_merged() {
    assert_eq!(member(r#"{"text":"1","TEXT":"2"}"#, "text"), text("2"));
    assert_eq!(member(r#"{"texts":["1"],"texts":["2","3"]}"#, "texts"), texts(&["2", "3"]));
    assert_eq!(
        member(r#"{"object":{"a":"1"},"object":{"sk":"2"}}"#, "object"),
        Node::Object(vec![text("1"), text("2")])
    );
    let map = member(r#"{"map":{"a":"1","b":"2","a":"3"},"map":{"c":"4","b":"5"}}"#, "map");
    let pairs = [("a", "3"), ("b", "5"), ("c", "4")].map(|(key, value)| (key.into(), value.into()));
    assert_eq!(map, Node::Map(pairs.to_vec()));
}

#[test]
fn null_keeps_scalars_and_empties_the_rest() {
    assert_eq!(member(r#"{"text":"1","text":null}"#, "text"), text("1"));
    assert_eq!(member(r#"{"flag":true,"flag":null}"#, "flag"), Node::Flag(true));
    assert_eq!(member(r#"{"texts":["1"],"texts":null}"#, "texts"), Node::Absent);
    assert_eq!(member(r#"{"object":{"a":"1"},"object":null}"#, "object"), Node::Absent);
    assert_eq!(member(r#"{"texts":["1",null]}"#, "texts"), texts(&["1", ""]));
    let empty = Node::Object(vec![Node::Absent]);
    assert_eq!(member(r#"{"objects":[null,{}]}"#, "objects"), Node::Objects(vec![empty.clone(), empty]));
}

#[test]
fn a_value_of_another_type_is_an_error_that_names_the_member() {
    for bad in [
        r#"{"text":5}"#,
        r#"{"text":["x"]}"#,
        r#"{"time":"yesterday"}"#,
        r#"{"time":""}"#,
        r#"{"flag":"true"}"#,
        r#"{"number":1.0}"#,
        r#"{"number":"1"}"#,
        r#"{"number":9223372036854775808}"#,
        r#"{"texts":"x"}"#,
        r#"{"texts":[1]}"#,
        r#"{"either":5}"#,
        r#"{"either":{}}"#,
        r#"{"map":[]}"#,
        r#"{"map":{"a":1}}"#,
        r#"{"keys":{"a":1}}"#,
        r#"{"object":[]}"#,
        r#"{"objects":{}}"#,
        r#"{"objects":["x"]}"#,
    ] {
        let error = read(bad.as_bytes(), MEMBERS).unwrap_err().to_string();
        let name = bad.split('"').nth(1).unwrap();
        assert!(error.contains(&format!("member {name:?}")), "{bad}: {error}");
    }
    assert_eq!(member(r#"{"either":"x"}"#, "either"), texts(&["x"]));
    assert_eq!(member(r#"{"keys":{"a":{},"b":null,"c":{"x":[1]}}}"#, "keys"), texts(&["a", "b", "c"]));
    assert_eq!(member(r#"{"number":-5}"#, "number"), Node::Number(-5));
}

#[test]
fn numbers_that_go_takes_are_taken() {
    assert_eq!(member(r#"{"number":-0}"#, "number"), Node::Number(0));
    assert_eq!(member(r#"{"x":1e400,"y":[-1E+999],"text":"y"}"#, "text"), text("y"));
    assert!(read(br#"{"number":1e400}"#, MEMBERS).is_err());
    assert!(read(br#"{"number":0.5}"#, MEMBERS).is_err());
}

#[test]
fn what_is_no_unicode_is_replaced_as_go_does() {
    let table: [(&[u8], &str); 8] = [
        (b"\xff", "\u{fffd}"),
        (br"\ud800", "\u{fffd}"),
        (br"\udfff!", "\u{fffd}!"),
        (br"\ud83d\ude00", "\u{1f600}"),
        (br"\ud83dx\ude00", "\u{fffd}x\u{fffd}"),
        (br"\ud83d\ud83d\ude00", "\u{fffd}\u{1f600}"),
        (br"\\ud800", r"\ud800"),
        (br"\u00e9\n", "é\n"),
    ];
    for (json, value) in table {
        let document = [br#"{"text":""#, json, br#""}"#].concat();
        let mut node = read(&document, MEMBERS).unwrap();
        assert_eq!(node.members().unwrap()[0], text(value), "{}", json.escape_ascii());
    }
}

#[test]
fn elements_that_would_fill_the_memory_are_refused() {
    let many = |name: &str, element: &str, count: usize| {
        let (open, close) = if matches!(name, "map" | "keys") { ('{', '}') } else { ('[', ']') };
        let elements = vec![element; count].join(",");
        format!(r#"{{"{name}":{open}{elements}{close}}}"#)
    };
    for (name, element) in
        [("texts", "null"), ("either", r#""""#), ("objects", "{}"), ("map", r#""":"""#), ("keys", r#""":{}"#)]
    {
        assert!(read(many(name, element, MOST_ELEMENTS).as_bytes(), MEMBERS).is_ok(), "{name}");
        let error = read(many(name, element, MOST_ELEMENTS + 1).as_bytes(), MEMBERS).unwrap_err();
        assert!(error.to_string().contains("more than 65536 elements"), "{error}");
    }
    // What is not wanted takes no memory.
    assert!(read(many("x", "{}", 3 * MOST_ELEMENTS).as_bytes(), MEMBERS).is_ok());
}

#[test]
fn a_map_that_is_taken_up_again_is_counted_again() {
    for (name, value) in [("map", r#""v""#), ("keys", "{}")] {
        let entries = (0..60_000).map(|number| format!("\"{number}\":{value}")).collect::<Vec<_>>().join(",");
        let document = |times: usize| {
            let again = format!(r#","{name}":{{}}"#).repeat(times);
            format!(r#"{{"{name}":{{{entries}}}{again}}}"#)
        };
        assert!(read(document(0).as_bytes(), MEMBERS).is_ok(), "{name}");
        let error = read(document(1000).as_bytes(), MEMBERS).unwrap_err();
        assert!(error.to_string().contains("more than 65536 elements"), "{error}");
        let few = format!(r#"{{"{name}":{{"a":{value}}},"{name}":{{}},"{name}":{{"b":{value}}}}}"#);
        assert!(read(few.as_bytes(), MEMBERS).is_ok(), "{name}");
    }
}

#[test]
fn what_is_skipped_has_to_be_well_formed_and_not_too_deep() {
    assert_eq!(member(r#"{"x":[{"a":1.5e3},[],null,true,"é"],"text":"y"}"#, "text"), text("y"));
    for bad in [
        &br#"{"x":[}"#[..],
        br#"{"x":1e}"#,
        br#"{"x":01}"#,
        br#"{"x":"\uD8"}"#,
        b"{\"x\":1\xff}",
        br#"{"x":1}x"#,
        b"{} {}",
        b"[]",
        b"",
    ] {
        assert!(read(bad, MEMBERS).is_err(), "{}", String::from_utf8_lossy(bad));
    }
    for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
        let nested = |levels: usize| format!(r#"{{"x":{}1{}}}"#, open.repeat(levels), close.repeat(levels));
        assert!(read(nested(126).as_bytes(), MEMBERS).is_ok());
        assert!(read(nested(128).as_bytes(), MEMBERS).is_err());
        assert!(read(nested(1_000_000).as_bytes(), MEMBERS).is_err());
        // Within a text they are no levels, and what was closed is none any more.
        let marks = open.get(..1).unwrap_or_default().repeat(200);
        let flat = format!(r#"{{"x":"\"{marks}","y":[{}0],"text":"y"}}"#, "[],".repeat(200));
        assert_eq!(member(&flat, "text"), text("y"));
    }
}
