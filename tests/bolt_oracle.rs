// SPDX-License-Identifier: MulanPSL-2.0
//! Bolt files beside Go's bbolt: the same changes have the same results, each reads what the other wrote, each
//! finds the other's files sound.
//!
//! `tests/bolt_oracle/main.go` is the other side. It needs Debian's `golang-go` and `golang-github-coreos-bbolt-dev`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod common;

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use common::TestRoot;
use isula_storage::error::{Error, ErrorKind, Result};
use isula_storage::metadata::boltfile::{
    Access, BoltFile, Bucket, BucketMut, Freelist, Options, Transaction,
};
use isula_storage::persist::Durability;
use isula_storage::sys::fs::Dir;

/// Where Debian's packages for Go lie.
const GO_PACKAGES: &str = "/usr/share/gocode";

/// Builds the other side, once; says why where it cannot.
fn program() -> Option<&'static Path> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let there = Path::new(GO_PACKAGES).join("src/go.etcd.io/bbolt").is_dir();
        if !there || Command::new("go").arg("version").output().is_err() {
            assert!(
                std::env::var_os("CI").is_none(),
                "this test needs Go and bbolt and must not be skipped here"
            );
            eprintln!("skipped: needs golang-go and golang-github-coreos-bbolt-dev");
            return None;
        }
        let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bolt_oracle");
        std::fs::create_dir_all(&out).unwrap();
        let program = out.join("oracle");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bolt_oracle/main.go");
        let status = Command::new("go")
            .args(["build", "-o"])
            .args([&program, &source])
            .envs([("GO111MODULE", "off"), ("GOPATH", GO_PACKAGES), ("GOFLAGS", "")])
            .env("GOCACHE", out.join("cache"))
            .status()
            .unwrap();
        assert!(status.success(), "go build");
        Some(program)
    });
    built.as_deref()
}

/// The other side.
struct Oracle {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Oracle {
    fn start() -> Option<Oracle> {
        let mut child =
            Command::new(program()?).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starts");
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        Some(Oracle { child, input, output })
    }

    fn ask(&mut self, command: &str) -> String {
        writeln!(self.input, "{command}").unwrap();
        let mut answer = String::new();
        self.output.read_line(&mut answer).unwrap();
        assert!(answer.ends_with('\n'), "no answer to {}", &command[..command.len().min(200)]);
        answer.trim_end().to_owned()
    }

    fn ok(&mut self, command: &str) {
        assert_eq!(self.ask(command), "ok", "{command}");
    }

    fn open(&mut self, path: &Path, setup: &Setup, mode: &str) {
        let freelist = if setup.freelist == Freelist::Stored { "stored" } else { "absent" };
        let Setup { page_size, kind, .. } = setup;
        self.ok(&format!("open {} {page_size} {freelist} {kind} {mode}", path.display()));
    }

    /// Number of items and a sum of everything, also of the order and the sequences.
    fn dump(&mut self) -> String {
        self.ok("begin read");
        let dump = self.ask("dump");
        self.ok("rollback");
        dump
    }
}

impl Drop for Oracle {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[derive(Clone, Copy)]
struct Setup {
    page_size: usize,
    freelist: Freelist,
    /// Kind of freelist that the other side has in memory.
    kind: &'static str,
    seed: u64,
    /// Changes in a transaction, at most.
    changes: usize,
    transactions: usize,
    /// How many keys and how long values are.
    keys: usize,
    longest: usize,
    /// Whether each side goes on with the other's file. Then a bucket is dropped only before anything else is changed:
    /// bbolt 1.3.6 passes over every other bucket within one that was changed in the same transaction, and their pages
    /// are lost.
    exchanged: bool,
}

impl Setup {
    fn options(&self) -> Options {
        Options {
            page_size: self.page_size,
            freelist: self.freelist,
            timeout: Some(Duration::ZERO),
            durability: Durability::None,
            ..Options::default()
        }
    }
}

struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

fn hex(bytes: &[u8]) -> String {
    if bytes.is_empty() {
        return "-".to_owned();
    }
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = |byte: &u8| [byte >> 4, byte & 15].map(|digit| char::from(DIGITS[usize::from(digit)]));
    bytes.iter().flat_map(digits).collect()
}

/// The same sum as the other side's.
fn dump(transaction: &Transaction) -> String {
    struct Sum(u64, usize);
    impl Sum {
        fn add(&mut self, line: &str) {
            for byte in line.bytes() {
                self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
            }
        }
        fn bucket(&mut self, bucket: &Bucket<'_>, indent: usize) {
            self.add(&format!("{indent} s {}\n", bucket.sequence()));
            for item in bucket.items() {
                let item = item.unwrap();
                self.1 += 1;
                let bare = |bytes: &[u8]| if bytes.is_empty() { String::new() } else { hex(bytes) };
                match &item.value {
                    // Values are one byte many times.
                    Some(value) => {
                        let byte = value.first().copied().unwrap_or(0);
                        let same = **value == *vec![byte; value.len()];
                        self.add(&format!("{indent} v {} {} {byte} {same}\n", bare(&item.key), value.len()));
                    }
                    None => {
                        self.add(&format!("{indent} b {}\n", bare(&item.key)));
                        self.bucket(&bucket.bucket(&item.key).unwrap().unwrap(), indent + 1);
                    }
                }
            }
        }
    }
    let mut sum = Sum(0xcbf2_9ce4_8422_2325, 0);
    sum.bucket(&transaction.root(), 0);
    format!("{} {:016x}", sum.1, sum.0)
}

fn dump_file(file: &BoltFile) -> String {
    let reading = file.begin();
    assert_eq!(reading.check(), [""; 0]);
    dump(&reading)
}

/// A change, with the names of the buckets that it is done in.
struct Change {
    path: Vec<Vec<u8>>,
    action: &'static str,
    key: Vec<u8>,
    length: usize,
    byte: u8,
}

impl Change {
    fn random(random: &mut Random, setup: &Setup, first: bool) -> Change {
        let name = |random: &mut Random| match random.below(30) {
            0 => vec![b'n'; 1 + random.below(setup.page_size)],
            _ => vec![b'A' + u8::try_from(random.below(4)).unwrap()],
        };
        let path: Vec<_> = (0..random.below(5)).map(|_| name(random)).collect();
        let action = match random.below(if path.is_empty() || first { 12 } else { 40 }) {
            0 if first || !setup.exchanged => "drop",
            0..=6 => "create",
            7..=10 => "ensure",
            11 => "seek",
            12 => "sequence",
            13 => "next",
            14..=20 => "delete",
            _ => "put",
        };
        let is_name = matches!(action, "drop" | "create" | "ensure");
        let key = match random.below(60) {
            // Its answer to a drop of this depends on whether the bucket around it is empty.
            0 if action != "drop" => Vec::new(),
            1 if !is_name => vec![b'k'; 32_767 + random.below(3)],
            2..=8 => name(random),
            _ if is_name => name(random),
            _ => {
                let number = random.below(setup.keys);
                format!("{:06x}{}", number.wrapping_mul(2_654_435_761) % 0x00ff_ffff, "x".repeat(number % 30))
                    .into_bytes()
            }
        };
        let length = match random.below(50) {
            0 => random.below(setup.longest * 20),
            1..=10 => random.below(setup.longest),
            _ => random.below(60),
        };
        Change { path, action, key, length, byte: u8::try_from(random.below(256)).unwrap() }
    }

    fn command(&self) -> String {
        let path: Vec<_> = self.path.iter().map(|name| hex(name)).collect();
        let path = if path.is_empty() { ".".to_owned() } else { path.join("/") };
        // As Go makes a string of a byte, it is one of ASCII.
        format!("{} {path} {} {} {:02x}", self.action, hex(&self.key), self.length, self.byte & 0x7f)
    }

    fn run(&self, bucket: &mut BucketMut<'_>, path: &[Vec<u8>]) -> String {
        if let [first, rest @ ..] = path {
            return match bucket.bucket(first).unwrap() {
                Some(mut bucket) => self.run(&mut bucket, rest),
                None => "no such path".to_owned(),
            };
        }
        let said = |result: Result<()>| result.map_or_else(|error| error.report(), |()| "ok".to_owned());
        match self.action {
            "put" => said(bucket.put(&self.key, &vec![self.byte & 0x7f; self.length])),
            "delete" => said(bucket.delete(&self.key)),
            "create" => said(bucket.create_bucket(&self.key).map(drop)),
            "ensure" => said(bucket.create_bucket_if_not_exists(&self.key).map(drop)),
            "drop" => said(bucket.delete_bucket(&self.key)),
            "sequence" => said(bucket.set_sequence(u64::try_from(self.length).unwrap())),
            "next" => bucket.next_sequence().map_or_else(|error| error.report(), |number| number.to_string()),
            "seek" => match bucket.view().cursor().seek(&self.key).unwrap() {
                None => "none".to_owned(),
                Some(item) => match &item.value {
                    None => format!("{} bucket", hex(&item.key)),
                    Some(value) => format!("{} {}", hex(&item.key), value.len()),
                },
            },
            other => panic!("{other}"),
        }
    }
}

/// The same random transactions on two files, one of each side, which are exchanged now and then.
fn compare(setup: &Setup) -> usize {
    let Some(mut oracle) = Oracle::start() else { return 0 };
    let root = TestRoot::in_memory("bolt-oracle");
    let dir = Dir::open(root.path()).unwrap();
    let names = ["one", "two"];
    let mut random = Random(setup.seed);
    let mut done = 0;
    let mut ours = 0;
    let mut file = BoltFile::open(&dir, names[ours], &setup.options()).unwrap();
    oracle.open(&root.join(names[1 - ours]), setup, "write");
    for number in 0..setup.transactions {
        let mut transaction = file.begin_write().unwrap();
        oracle.ok("begin write");
        for count in 0..=random.below(setup.changes) {
            let change = Change::random(&mut random, setup, count == 0);
            let command = change.command();
            let answer = change.run(&mut transaction.root_mut().unwrap(), &change.path);
            assert_eq!(answer, oracle.ask(&command), "{command}");
            done += 1;
        }
        if number % 4 == 1 {
            assert_eq!(dump(&transaction), oracle.ask("dump"), "before transaction {number} ends");
        }
        if random.below(6) == 0 {
            drop(transaction);
            oracle.ok("rollback");
        } else {
            transaction.commit().unwrap();
            oracle.ok("commit");
        }
        if number % 8 == 7 {
            let ours_says = dump_file(&file);
            assert_eq!(ours_says, oracle.dump(), "after transaction {number}");
            if setup.exchanged {
                assert_eq!(oracle.ask("check"), "ok", "after transaction {number}, seed {}", setup.seed);
            }
            drop(file);
            oracle.ok("close");
            oracle.open(&root.join(names[ours]), setup, "write");
            assert_eq!(oracle.ask("check"), "ok", "ours after transaction {number}, seed {}", setup.seed);
            assert_eq!(oracle.dump(), ours_says, "ours after transaction {number}");
            if setup.exchanged {
                ours = 1 - ours;
            } else {
                oracle.ok("close");
                oracle.open(&root.join(names[1 - ours]), setup, "write");
            }
            file = BoltFile::open(&dir, names[ours], &setup.options()).unwrap();
            assert_eq!(file.page_size(), setup.page_size);
            assert_eq!(dump_file(&file), ours_says, "exchanged after transaction {number}");
        }
    }
    drop(file);
    oracle.ok("close");
    for name in names {
        oracle.open(&root.join(name), setup, "read");
        let says = oracle.dump();
        oracle.ok("close");
        let file =
            BoltFile::open(&dir, name, &Options { access: Access::ReadOnly, ..setup.options() }).unwrap();
        assert_eq!(dump(&file.begin()), says);
    }
    done
}

const SETUP: Setup = Setup {
    page_size: 4096,
    freelist: Freelist::Stored,
    kind: "array",
    seed: 1,
    changes: 60,
    transactions: 40,
    keys: 300,
    longest: 1500,
    exchanged: true,
};

fn compare_all(setups: &[Setup]) {
    let done: usize = setups.iter().map(compare).sum();
    println!("{done} operations compared");
}

#[test]
fn random_transactions_have_the_same_results_on_both_sides() {
    let done: usize = (0..12)
        .map(|seed| {
            let freelist = if seed % 2 == 0 { Freelist::Stored } else { Freelist::Absent };
            let kind = if seed % 4 < 2 { "array" } else { "hashmap" };
            let exchanged = seed % 3 != 0;
            let setup = Setup { freelist, kind, exchanged, transactions: 160, changes: 110, ..SETUP };
            compare(&Setup { seed: seed + 100, ..setup })
        })
        .sum();
    assert!(done > 100_000 || program().is_none(), "{done}");
    println!("{done} operations compared");
}

#[test]
fn pages_of_all_sizes_are_written_and_read_by_both_sides() {
    let setups: Vec<_> = [1024, 2048, 8192, 16_384, 32_768, 65_536]
        .into_iter()
        .enumerate()
        .map(|(number, page_size)| {
            let freelist = if number % 2 == 0 { Freelist::Absent } else { Freelist::Stored };
            Setup { page_size, freelist, seed: 7, changes: 150, ..SETUP }
        })
        .collect();
    compare_all(&setups);
}

#[test]
fn many_keys_make_deep_trees_that_both_sides_read() {
    let many =
        Setup { page_size: 1024, changes: 3000, transactions: 24, keys: 20_000, longest: 200, ..SETUP };
    compare_all(&[many, Setup { freelist: Freelist::Absent, kind: "hashmap", seed: 3, ..many }]);
}

#[test]
fn huge_values_are_written_and_read_by_both_sides() {
    compare_all(&[Setup { changes: 20, transactions: 30, longest: 60_000, seed: 5, ..SETUP }]);
}

#[test]
fn buckets_far_within_each_other_are_read_by_both_sides() {
    let Some(mut oracle) = Oracle::start() else { return };
    let root = TestRoot::in_memory("bolt-oracle");
    let dir = Dir::open(root.path()).unwrap();
    for (depth, size) in [(100, 10), (100, 2000), (20, 900)] {
        let name = format!("{depth}-{size}");
        let file = BoltFile::open(&dir, &name, &SETUP.options()).unwrap();
        let mut transaction = file.begin_write().unwrap();
        fn deeper(mut bucket: BucketMut<'_>, left: usize, size: usize) {
            bucket.put(b"value", &vec![b'v'; size]).unwrap();
            bucket.set_sequence(u64::try_from(left).unwrap()).unwrap();
            if left > 0 {
                deeper(bucket.create_bucket(b"deeper").unwrap(), left - 1, size);
            }
        }
        deeper(transaction.root_mut().unwrap().create_bucket(b"top").unwrap(), depth, size);
        transaction.commit().unwrap();
        let says = dump_file(&file);
        drop(file);
        oracle.open(&root.join(&name), &SETUP, "write");
        oracle.ok("check");
        assert_eq!(oracle.dump(), says);
        let path = vec![hex(b"deeper"); depth].join("/");
        oracle.ok("begin write");
        oracle.ok(&format!("put {}/{path} {} 5000 61", hex(b"top"), hex(b"more")));
        oracle.ok("commit");
        let says = oracle.dump();
        oracle.ok("close");
        let file = BoltFile::open(&dir, &name, &SETUP.options()).unwrap();
        assert_eq!(dump_file(&file), says);
    }
}

/// A freelist of more than 65,535 pages has its count elsewhere.
#[test]
fn a_long_freelist_is_written_and_read_by_both_sides() {
    let Some(mut oracle) = Oracle::start() else { return };
    let root = TestRoot::in_memory("bolt-oracle");
    let dir = Dir::open(root.path()).unwrap();
    let setup = Setup { page_size: 1024, ..SETUP };
    let file = BoltFile::open(&dir, "db", &setup.options()).unwrap();
    let write = |file: &BoltFile, action: &dyn Fn(&mut BucketMut<'_>)| {
        let mut transaction = file.begin_write().unwrap();
        action(&mut transaction.root_mut().unwrap());
        transaction.commit().unwrap();
    };
    write(&file, &|root| {
        root.create_bucket(b"kept").unwrap().put(b"k", b"v").unwrap();
        root.create_bucket(b"huge").unwrap().put(b"k", &vec![1; 70_000 * 1024]).unwrap();
    });
    write(&file, &|root| root.delete_bucket(b"huge").unwrap());
    let says = dump_file(&file);
    drop(file);
    oracle.open(&root.join("db"), &setup, "write");
    oracle.ok("check");
    assert_eq!(oracle.dump(), says);
    // Its own commit writes such a list, too.
    oracle.ok("begin write");
    oracle.ok(&format!("put {} {} 2000 61", hex(b"kept"), hex(b"more")));
    oracle.ok("commit");
    let says = oracle.dump();
    oracle.ok("close");
    let file = BoltFile::open(&dir, "db", &setup.options()).unwrap();
    assert_eq!(dump_file(&file), says);
    let length = std::fs::metadata(root.join("db")).unwrap().len();
    write(&file, &|root| root.bucket(b"kept").unwrap().unwrap().put(b"k", &vec![1; 60_000 * 1024]).unwrap());
    assert_eq!(std::fs::metadata(root.join("db")).unwrap().len(), length, "free pages are used again");
    dump_file(&file);
}

#[test]
fn each_side_is_kept_out_by_the_others_lock() {
    let Some(mut oracle) = Oracle::start() else { return };
    let root = TestRoot::in_memory("bolt-oracle");
    let dir = Dir::open(root.path()).unwrap();
    let path = root.join("db");
    let reading = Options { access: Access::ReadOnly, ..SETUP.options() };
    let pid = oracle.child.id();
    let in_use = |result: Result<BoltFile>| {
        let error: Error = result.expect_err("in use");
        assert_eq!(error.kind(), ErrorKind::InUse);
        assert!(error.report().ends_with(&format!("in use by pid {pid}")), "{}", error.report());
    };

    oracle.open(&path, &SETUP, "write");
    in_use(BoltFile::open(&dir, "db", &SETUP.options()));
    in_use(BoltFile::open(&dir, "db", &reading));
    oracle.ok("close");
    oracle.open(&path, &SETUP, "read");
    in_use(BoltFile::open(&dir, "db", &SETUP.options()));
    drop(BoltFile::open(&dir, "db", &reading).unwrap());
    oracle.ok("close");

    let again = |mode| format!("open {} 4096 stored array {mode}", path.display());
    let file = BoltFile::open(&dir, "db", &SETUP.options()).unwrap();
    assert_eq!(oracle.ask(&again("write")), "timeout");
    assert_eq!(oracle.ask(&again("read")), "timeout");
    drop(file);
    let file = BoltFile::open(&dir, "db", &reading).unwrap();
    assert_eq!(oracle.ask(&again("write")), "timeout");
    oracle.ok(&again("read"));
    oracle.ok("close");
    drop(file);
    oracle.ok(&again("write"));
}
