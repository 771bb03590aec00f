// SPDX-License-Identifier: MulanPSL-2.0
//! What the documents promise must be there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn sources(dir: &Path, into: &mut String) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&fs::read_to_string(&path).unwrap());
        }
    }
}

/// Names of tests: functions that follow a `#[test]`.
fn tests() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut text = String::new();
    sources(&root.join("src"), &mut text);
    sources(&root.join("tests"), &mut text);
    text.lines()
        .filter_map(|line| line.trim_start().trim_start_matches("pub ").strip_prefix("fn "))
        .filter_map(|rest| rest.split(['(', '<']).next())
        .map(str::to_owned)
        .collect()
}

/// The names of tests in the last cell of a row.
fn tests_of(row: &str) -> Vec<&str> {
    let cell = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
    let names: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
    assert!(!names.is_empty(), "a row without a test: {row}");
    names
}

#[test]
fn every_known_problem_of_the_reference_has_a_row_with_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/known-problems-of-the-reference.md")).unwrap();
    let tests = tests();
    let rows: Vec<&str> =
        text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| no. |")).collect();
    let missing: Vec<&str> =
        rows.iter().flat_map(|row| tests_of(row)).filter(|name| !tests.contains(*name)).collect();
    assert!(missing.is_empty(), "tests that do not exist: {missing:#?}");
    let numbers: Vec<String> = rows.iter().map(|row| row.split(' ').nth(1).unwrap().to_owned()).collect();
    let windows = (1..=8).map(|number| format!("W{number}"));
    let design = ["A3", "A6"].map(str::to_owned);
    let bugs = (1..=21).map(|number| format!("B{number}"));
    let images = (1..=31).map(|number| number.to_string());
    let expected: Vec<String> = windows.chain(design).chain(bugs).chain(images).collect();
    assert_eq!(numbers, expected);
}

#[test]
fn every_row_of_the_compatibility_table_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/compatibility.md")).unwrap();
    let tests = tests();
    let mut rows = 0;
    let mut missing = Vec::new();
    for line in text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| place")) {
        rows += 1;
        let names = tests_of(line);
        missing.extend(names.into_iter().filter(|name| !tests.contains(name.rsplit("::").next().unwrap())));
    }
    assert!(rows > 40, "only {rows} rows were read");
    assert!(missing.is_empty(), "tests that do not exist: {missing:#?}");
}

/// Names of functions that follow a `#[test]` in the files of one directory.
fn tests_in(dir: &Path) -> BTreeSet<String> {
    let mut text = String::new();
    sources(dir, &mut text);
    let mut lines = text.lines().map(str::trim_start);
    let mut found = BTreeSet::new();
    while lines.any(|line| line == "#[test]") {
        let name = lines.next().unwrap().strip_prefix("fn ").unwrap();
        found.insert(name.split('(').next().unwrap().to_owned());
    }
    found
}

#[test]
fn every_clause_about_hostile_input_names_its_tests_and_each_of_the_suite_has_a_clause() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/testing.md")).unwrap();
    let rows = text.lines().skip_while(|line| *line != "| clause | tests |").skip(2);
    let rows: Vec<&str> = rows.take_while(|line| line.starts_with("| ")).collect();
    assert!(rows.len() > 35, "only {} rows were read", rows.len());
    let named: BTreeSet<String> = rows.iter().flat_map(|row| tests_of(row)).map(str::to_owned).collect();
    let tests = tests();
    let missing: Vec<&String> = named.difference(&tests).collect();
    assert!(missing.is_empty(), "tests that do not exist: {missing:#?}");
    // What others of the suite start, and is nothing by itself.
    let helpers = ["fights_for_ids", "makes_a_layer_under_a_quota"];
    let suite = tests_in(&root.join("tests/hostile"));
    let left: Vec<&String> =
        suite.difference(&named).filter(|name| !helpers.contains(&name.as_str())).collect();
    assert!(left.is_empty(), "tests without a clause: {left:#?}");
}

#[test]
fn every_weakness_of_the_reference_s_devicemapper_driver_names_its_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/testing.md")).unwrap();
    let rows = text.lines().skip_while(|line| *line != "| weakness | tests |").skip(2);
    let rows: Vec<&str> = rows.take_while(|line| line.starts_with("| ")).collect();
    let numbered =
        rows.iter().filter_map(|row| row.trim_start_matches("| ").split_once(". ")?.0.parse::<u32>().ok());
    assert!(numbered.eq(1..=14), "{rows:#?}");
    let tests = tests();
    let missing: Vec<&str> =
        rows.iter().flat_map(|row| tests_of(row)).filter(|name| !tests.contains(*name)).collect();
    assert!(missing.is_empty(), "tests that do not exist: {missing:#?}");
}
