// SPDX-License-Identifier: MulanPSL-2.0
//! `repositories.json` against what is known of Docker's reference store.

use super::*;

const FILE: &str = "repositories.json";

fn image(number: u8) -> Digest {
    diff(&number.to_string())
}

fn text(store: &Store) -> String {
    std::fs::read_to_string(store.root.join(FILE)).unwrap()
}

fn by_digest(repository: &str, number: u8) -> String {
    format!("{repository}@{}", image(number))
}

#[test]
fn a_new_store_has_a_file_without_names() {
    let store = Store::new();
    assert_eq!(text(&store), r#"{"Repositories":{}}"#);
    let mode = std::fs::metadata(store.root.join(FILE)).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
}

#[test]
fn a_file_with_seven_names_is_written_again_byte_for_byte() {
    let [one, two] = [image(1), image(2)];
    let saved = format!(
        "{{\"Repositories\":{{\"busybox\":{{\"busybox:latest\":\"{one}\"}},\"jess/hollywood\":\
         {{\"jess/hollywood:latest\":\"{two}\"}},\"registry\":{{\"registry:latest\":\"{one}\"}},\
         \"registry:5000/foobar\":{{\"registry:5000/foobar:HEAD\":\"{two}\",\"registry:5000/foobar:alternate\":\"{one}\",\
         \"registry:5000/foobar:latest\":\"{one}\",\"registry:5000/foobar@{two}\":\"{one}\"}}}}}}"
    );
    let mut store = Store::new();
    std::fs::write(store.root.join(FILE), &saved).unwrap();
    store.reopen();
    assert_eq!(store.problems(), []);
    let all = store.all_names();
    assert_eq!(all.len(), 7);
    for name in &all {
        assert_eq!(store.by_name(&name.name).unwrap(), name.image, "{}", name.name);
    }
    store.add_name("zzz", &one, false).unwrap();
    store.delete_name("zzz").unwrap();
    assert_eq!(text(&store), saved);
    // Made anew in another order.
    let again = Store::new();
    for name in all.iter().rev() {
        again.add_name(&name.name, &name.image, false).unwrap();
    }
    assert_eq!(text(&again), saved);
}

#[test]
fn names_are_added_found_and_deleted() {
    let mut store = Store::new();
    store.add_name("busybox", &image(1), false).unwrap();
    store.add_name("username/repo:v1", &image(1), false).unwrap();
    store.add_name("username/repo:v2", &image(2), false).unwrap();
    store.add_name(&by_digest("username/repo", 9), &image(2), false).unwrap();
    for _ in 0..2 {
        assert_eq!(store.by_name("docker.io/library/busybox:latest").unwrap(), image(1));
        assert_eq!(store.names(&image(1)), ["busybox:latest", "username/repo:v1"]);
        assert_eq!(store.names(&image(2)), ["username/repo:v2".to_owned(), by_digest("username/repo", 9)]);
        assert_eq!(store.names(&image(3)), [""; 0]);
        let in_repository = store.names_in("username/repo").unwrap();
        let names: Vec<_> = in_repository.iter().map(|name| (name.name.clone(), name.image)).collect();
        let wanted = [
            ("username/repo:v1".to_owned(), image(1)),
            ("username/repo:v2".to_owned(), image(2)),
            (by_digest("username/repo", 9), image(2)),
        ];
        assert_eq!(names, wanted);
        assert_eq!(store.names_in("nothing").unwrap(), []);
        store.reopen();
    }
    store.delete_name("username/repo:v1").unwrap();
    store.delete_name(&by_digest("username/repo", 9)).unwrap();
    store.delete_name("busybox:latest").unwrap();
    assert_eq!(
        text(&store),
        format!(r#"{{"Repositories":{{"username/repo":{{"username/repo:v2":"{}"}}}}}}"#, image(2))
    );
    store.delete_name("username/repo:v2").unwrap();
    assert_eq!(text(&store), r#"{"Repositories":{}}"#);
}

#[test]
fn the_same_name_for_the_same_image_is_fine() {
    let store = Store::new();
    for name in ["a:1".to_owned(), by_digest("a", 1)] {
        for force in [false, true, false] {
            store.add_name(&name, &image(1), force).unwrap();
        }
    }
}

#[test]
fn a_tag_of_another_image_is_taken_by_force_only() {
    let store = Store::new();
    store.add_name("a:1", &image(1), false).unwrap();
    let text = format!("conflict: tag a:1 is already set to image {}", image(1));
    fails(store.add_name("a:1", &image(2), false), ErrorKind::AlreadyExists, &text);
    assert_eq!(store.by_name("a:1").unwrap(), image(1));
    store.add_name("a:1", &image(2), true).unwrap();
    assert_eq!(store.by_name("a:1").unwrap(), image(2));
    assert_eq!(store.names(&image(1)), [""; 0]);
}

#[test]
fn a_digest_of_another_image_is_never_taken() {
    let store = Store::new();
    let name = by_digest("a", 9);
    store.add_name(&name, &image(1), false).unwrap();
    for force in [false, true] {
        fails(store.add_name(&name, &image(2), force), ErrorKind::AlreadyExists, "cannot overwrite digest");
    }
    assert_eq!(store.by_name(&name).unwrap(), image(1));
}

#[test]
fn of_a_tag_and_a_digest_the_digest_counts() {
    let store = Store::new();
    let both = format!("a:1@{}", image(9));
    store.add_name(&both, &image(1), false).unwrap();
    assert_eq!(store.names(&image(1)), [by_digest("a", 9)]);
    assert_eq!(store.by_name(&both).unwrap(), image(1));
    fails(store.by_name("a:1"), ErrorKind::NotFound, "reference does not exist");
}

#[test]
fn a_repository_named_like_an_algorithm_is_refused() {
    let store = Store::new();
    for name in [
        "sha256",
        "sha256:tag",
        "docker.io/library/sha256:x",
        &format!("sha256:{}", image(1).hex()),
        &by_digest("sha256", 1),
    ] {
        let text = "refusing to create an ambiguous tag using digest algorithm as name";
        fails(store.add_name(name, &image(1), false), ErrorKind::InvalidArgument, text);
    }
    fails(
        store.add_name(&image(1).hex(), &image(1), true),
        ErrorKind::InvalidArgument,
        "64-byte hexadecimal",
    );
    assert_eq!(text(&store), r#"{"Repositories":{}}"#);
}

#[test]
fn deleting_what_is_absent_is_not_found() {
    let store = Store::new();
    store.add_name("a:1", &image(1), false).unwrap();
    for name in ["a", "a:2", "b:1", &by_digest("a", 1)] {
        fails(store.delete_name(name), ErrorKind::NotFound, "reference does not exist");
        fails(store.by_name(name), ErrorKind::NotFound, "reference does not exist");
    }
    assert_eq!(store.names(&image(1)), ["a:1"]);
}

#[test]
fn a_name_of_an_image_that_is_gone_stays() {
    let mut store = Store::new();
    let id = store.create(&bare("x")).unwrap();
    store.add_name("a:1", &id, false).unwrap();
    store.delete(&id).unwrap();
    assert_eq!(store.reopen().by_name("a:1").unwrap(), id);
}

#[test]
fn an_unreadable_file_is_put_aside_and_begun_anew() {
    for bad in [
        &b""[..],
        b"{",
        b"[]",
        b"5",
        b"{\"Repositories\":5}",
        b"{\"Repositories\":[]}",
        b"\xff",
        b"{} x",
        b"{\"x\":01}",
        b"{\"x\":1e400,\"y\":01}",
        b"{\"x\":1e400",
    ] {
        let mut store = Store::new();
        let id = store.create(&bare("x")).unwrap();
        store.close();
        std::fs::write(store.root.join(FILE), bad).unwrap();
        {
            // Whoever only reads leaves it where it is.
            let db = open_as(store.root.path(), store.layers.clone(), Ownership::ReadOnly).unwrap();
            assert_eq!((db.len(), db.problems().len(), db.problems()[0].quarantined), (1, 1, false));
            assert_eq!(std::fs::read(store.root.join(FILE)).unwrap(), bad);
        }
        let db = store.reopen();
        assert_eq!((db.len(), db.problems().len()), (1, 1));
        let problem = &db.problems()[0];
        assert_eq!((problem.subject.as_str(), problem.quarantined), (FILE, true), "{}", problem.reason);
        let aside = db.state.quarantined().unwrap();
        assert_eq!(std::fs::read(&aside[0].path).unwrap(), bad);
        db.add_name("a", &id, false).unwrap();
        assert_eq!(store.reopen().problems(), []);
        assert_eq!(store.names(&id), ["a:latest"]);
    }
}

#[test]
fn entries_that_are_not_understood_are_kept() {
    let mut store = Store::new();
    let strange = format!(r#""a":{{"A b":"sha512:x","a:1":"{}"}}"#, image(1));
    std::fs::write(store.root.join(FILE), format!("{{\"Repositories\":{{{strange}}}}}\n")).unwrap();
    store.reopen();
    assert_eq!(store.all_names().len(), 1);
    store.add_name("b:1", &image(2), false).unwrap();
    assert_eq!(text(&store), format!(r#"{{"Repositories":{{{strange},"b":{{"b:1":"{}"}}}}}}"#, image(2)));
}

#[test]
fn a_file_with_null_in_it_is_one_without_names() {
    for nothing in
        [r#"{"Repositories":null}"#, "{}", "null", r#"{"Repositories":{"a":null,"b":{"b:1":null}}}"#]
    {
        let mut store = Store::new();
        std::fs::write(store.root.join(FILE), nothing).unwrap();
        store.reopen();
        assert_eq!((store.problems().len(), store.all_names().len()), (0, 0), "{nothing}");
    }
}

#[test]
fn names_are_read_as_go_reads_them() {
    let id = image(1);
    for (text, names) in [
        (format!(r#"{{"repositories":{{"a":{{"a:1":"{id}"}}}}}}"#), vec!["a:1"]),
        (format!(r#"{{"REPOſITORIEſ":{{"a":{{"a:1":"{id}"}}}},"other":[1e400]}}"#), vec!["a:1"]),
        (format!(r#"{{"Repositories":{{"a":{{"a:1":"{id}","a:2":null}},"b":null}}}}"#), vec!["a:1"]),
        (format!(r#"{{"Repositories":{{"a":{{"a:0":"{id}"}},"a":{{"a:1":"{id}"}}}}}}"#), vec!["a:1"]),
        (
            format!(r#"{{"Repositories":{{"a":{{"a:1":"{id}"}}}},"repositories":{{"b":{{"b:1":"{id}"}}}}}}"#),
            vec!["a:1", "b:1"],
        ),
        (format!(r#"{{"Repositories":{{"a":{{"a:1":"{id}","\ud800":"x"}}}}}}"#), vec!["a:1"]),
        (
            format!(r#"{{"x":1e400,"y":{{"\"-1":-1E+999}},"Repositories":{{"a":{{"a:1":"{id}"}}}}}}"#),
            vec!["a:1"],
        ),
    ] {
        let mut store = Store::new();
        std::fs::write(store.root.join(FILE), &text).unwrap();
        store.reopen();
        assert_eq!(
            (store.problems(), store.names(&id)),
            (&[][..], names.iter().map(|name| (*name).to_owned()).collect()),
            "{text}"
        );
    }
}

#[test]
fn an_odd_entry_does_not_take_the_others_with_it() {
    let id = image(1);
    for odd in [
        r#""b":{"b:1":5}"#,
        r#""b":{"b:1":1e400}"#,
        r#""b:1":-1e+400"#,
        r#""b":{"b:1":{}}"#,
        r#""b:1":[]"#,
        r#""b:1":"text""#,
        r#""b":{"b:1":[1],"b:2":null}"#,
    ] {
        let saved = format!(r#"{{"Repositories":{{"a":{{"a:1":"{id}"}},{odd},"c":{{"c:1":"{id}"}}}}}}"#);
        let mut store = Store::new();
        store.close();
        std::fs::write(store.root.join(FILE), &saved).unwrap();
        {
            let db = open_as(store.root.path(), store.layers.clone(), Ownership::ReadOnly).unwrap();
            assert_eq!((db.problems().len(), db.names(&id).len()), (1, 2), "{odd}");
            assert_eq!(text_of(store.root.path()), saved);
        }
        let db = store.reopen();
        assert_eq!(db.names(&id), ["a:1", "c:1"], "{odd}");
        let problem = &db.problems()[0];
        assert_eq!((db.problems().len(), problem.subject.as_str(), problem.quarantined), (1, FILE, true));
        assert!(problem.reason.ends_with(r#"were left out: "b:1""#), "{}", problem.reason);
        // The file as it was is in the quarantine; what is at its place is one that a daemon takes.
        let aside = db.state.quarantined().unwrap();
        assert_eq!(std::fs::read_to_string(&aside[0].path).unwrap(), saved);
        assert_eq!(
            text_of(db.root()),
            format!(r#"{{"Repositories":{{"a":{{"a:1":"{id}"}},"c":{{"c:1":"{id}"}}}}}}"#)
        );
        assert_eq!(store.reopen().problems(), []);
    }
}

fn text_of(root: &Path) -> String {
    std::fs::read_to_string(root.join(FILE)).unwrap()
}

#[test]
fn a_file_that_the_disk_does_not_give_stays_where_it_is() {
    for errno in [libc::EIO, libc::EMFILE, libc::ENOMEM] {
        let mut store = Store::new();
        let id = store.create(&bare("x")).unwrap();
        store.add_name("a:1", &id, false).unwrap();
        let saved = text(&store);
        store.close();
        let fail = move |step: &str| match step {
            "read names" => Err(Error::new(ErrorKind::Os(errno), "injected")),
            _ => Ok(()),
        };
        crate::persist::with_hook(fail, || {
            let db = store.reopen();
            assert_eq!((db.len(), db.all_names().len(), db.problems().len()), (1, 0, 1));
            assert!(!db.problems()[0].quarantined);
            fails(db.add_name("b:1", &id, false), ErrorKind::Latched, "names take no changes");
            assert_eq!(db.state.quarantined().unwrap().len(), 0);
        });
        assert_eq!(text(&store), saved);
        store.reopen();
        assert_eq!((store.problems(), store.names(&id)), (&[][..], vec!["a:1".to_owned()]));
    }
}

#[test]
fn more_than_the_next_start_would_read_is_refused_and_kept() {
    use super::super::repositories::{LIMIT, MOST_MEMBERS};
    let long = usize::try_from(LIMIT).unwrap() - 250;
    let many =
        (0..MOST_MEMBERS - 3).map(|number| format!("\"{number}\":\"x\"")).collect::<Vec<_>>().join(",");
    for (entries, room) in [(format!(r#""old":"{}""#, "x".repeat(long)), 2), (many, 0)] {
        let mut store = Store::new();
        let id = store.create(&bare("x")).unwrap();
        store.add_name("a:1", &id, false).unwrap();
        store.close();
        let full = format!(r#"{{"Repositories":{{"a":{{{entries}}}}}}}"#);
        std::fs::write(store.root.join(FILE), full).unwrap();
        assert_eq!(store.reopen().problems(), []);
        for number in 0..room {
            store.add_name(&format!("a:{number}"), &id, false).unwrap();
        }
        let before = text(&store);
        fails(store.add_name("b:1", &id, false), ErrorKind::LimitExceeded, "would have more than");
        assert_eq!((text(&store), store.names(&id).len()), (before, room));
        store.add_name("a:0", &id, true).unwrap();
        // One byte or member too many, by hand: nothing of it is lost.
        let too_much = match room {
            0 => text(&store).replacen('{', r#"{"x":0,"#, 1),
            _ => text(&store) + &" ".repeat(300),
        };
        store.close();
        std::fs::write(store.root.join(FILE), &too_much).unwrap();
        let db = store.reopen();
        assert_eq!((db.problems().len(), db.problems()[0].quarantined), (1, false));
        fails(db.add_name("b:1", &id, false), ErrorKind::Latched, "names take no changes");
        assert_eq!(text(&store), too_much);
    }
}

#[test]
fn names_that_cannot_be_mended_do_not_keep_the_store_from_opening() {
    let odd = format!(r#"{{"Repositories":{{"a":{{"a:1":"{}","a:2":5}}}}}}"#, image(1));
    for saved in [None, Some("{"), Some(odd.as_str())] {
        for steps in 0..3 {
            let mut store = Store::new();
            let id = store.create(&bare("x")).unwrap();
            store.close();
            match saved {
                Some(saved) => std::fs::write(store.root.join(FILE), saved).unwrap(),
                None => std::fs::remove_file(store.root.join(FILE)).unwrap(),
            }
            let mut left = None;
            let fail = move |step: &str| {
                match &mut left {
                    None if step == "read names" => left = Some(steps),
                    None => {}
                    Some(0) => return Err(Error::new(ErrorKind::Os(libc::ENOSPC), "injected")),
                    Some(left) => *left -= 1,
                }
                Ok(())
            };
            crate::persist::with_hook(fail, || {
                let db = store.reopen();
                let at = format!("{saved:?}, {steps}: {:?}", db.problems());
                assert_eq!((db.len(), db.all_names().len()), (1, usize::from(saved == Some(&*odd))), "{at}");
                let last = db.problems().last().expect(&at);
                assert!(last.subject == FILE && last.reason.starts_with("names take no changes: "), "{at}");
                fails(db.add_name("b:1", &id, false), ErrorKind::Latched, "names take no changes");
            });
            let names = store.reopen().all_names().len();
            assert_eq!(names, usize::from(saved == Some(&*odd)));
            store.add_name("b:1", &id, false).unwrap();
        }
    }
}

#[test]
fn what_is_no_file_is_put_aside() {
    let mut store = Store::new();
    store.close();
    std::fs::remove_file(store.root.join(FILE)).unwrap();
    std::fs::create_dir(store.root.join(FILE)).unwrap();
    assert!(store.reopen().problems()[0].quarantined);
    assert_eq!(text(&store), r#"{"Repositories":{}}"#);
}
