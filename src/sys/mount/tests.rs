// SPDX-License-Identifier: MulanPSL-2.0
#![allow(clippy::disallowed_methods, reason = "tests plant files")]

use super::*;
use crate::sys::testing::{TestRoot, loop_ext4, mounts_below, need_root};
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;

/// What this kernel can be asked for; older ones are a machine of their own to test on.
fn methods() -> Vec<MountMethod> {
    match takes_many_lowers() {
        true => vec![MountMethod::Auto, MountMethod::Fsopen, MountMethod::Legacy],
        false => vec![MountMethod::Auto, MountMethod::Legacy],
    }
}

/// A driver's home with `count` layers `0`, `1`, …, each with its short link `l/<number>`, a file of its own and the
/// file `who` with its number; and a layer `top` to be mounted.
fn home(path: &Path, count: usize, link: impl Fn(usize) -> String) -> (Dir, Vec<PathBuf>) {
    std::fs::create_dir_all(path.join("l")).unwrap();
    let mut lowers = Vec::new();
    for n in 0..count {
        std::fs::create_dir_all(path.join(format!("{n}/diff"))).unwrap();
        std::fs::write(path.join(format!("{n}/diff/file{n}")), b"").unwrap();
        std::fs::write(path.join(format!("{n}/diff/who")), n.to_string()).unwrap();
        symlink(format!("../{n}/diff"), path.join("l").join(link(n))).unwrap();
        lowers.push(PathBuf::from("l").join(link(n)));
    }
    for sub in ["diff", "work", "merged"] {
        std::fs::create_dir_all(path.join("top").join(sub)).unwrap();
    }
    (Dir::open(path).unwrap(), lowers)
}

fn overlay<'a>(home: &'a Dir, lowers: &[PathBuf]) -> Overlay<'a> {
    Overlay {
        home,
        lowers: lowers.to_vec(),
        upper: Some("top/diff".into()),
        work: Some("top/work".into()),
        options: Vec::new(),
        label: None,
    }
}

fn merged() -> &'static Path {
    Path::new("top/merged")
}

/// Options of the mount on `path` and of its superblock, as the kernel shows them.
fn shown(path: &Path) -> (String, String) {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table.lines().find(|line| line.split(' ').nth(4) == path.to_str()).expect("mounted");
    let mut fields = line.split(' ');
    (fields.nth(5).unwrap().to_owned(), line.rsplit(' ').next().unwrap().to_owned())
}

#[test]
fn layers_lie_on_each_other_and_the_upper_takes_what_is_written() {
    if !need_root() {
        return;
    }
    for method in methods() {
        let root = TestRoot::in_memory("mount");
        let (home, lowers) = home(root.path(), 3, |n| format!("LINK{n}"));
        mount_overlay(&overlay(&home, &lowers), merged(), method).unwrap();
        let at = root.join(merged());
        assert_eq!(std::fs::read(at.join("who")).unwrap(), b"0", "{method:?}: topmost first");
        for n in 0..3 {
            assert!(at.join(format!("file{n}")).exists());
        }
        std::fs::write(at.join("new"), b"x").unwrap();
        assert!(root.join("top/diff/new").exists());
        let (_, superblock) = shown(&at);
        let base = root.path().display();
        if method == MountMethod::Legacy || !takes_many_lowers() {
            assert!(superblock.contains(&format!("lowerdir={base}/l/LINK0:{base}/l/LINK1")), "{superblock}");
        } else {
            assert!(superblock.contains(&format!("lowerdir+={base}/l/LINK0,")), "{superblock}");
        }
        assert!(superblock.contains(&format!("upperdir={base}/top/diff,")), "{superblock}");
        assert!(is_mount_point(home.as_fd(), merged()).unwrap());
        assert!(unmount(&at).unwrap());
        assert!(!is_mount_point(home.as_fd(), merged()).unwrap());
        assert!(!unmount(&at).unwrap());
        assert!(!at.join("who").exists());
    }
}

#[test]
fn five_hundred_lowers_mount_whatever_the_length_of_their_paths() {
    if !need_root() {
        return;
    }
    if !takes_many_lowers() {
        eprintln!("skipped: needs Linux 6.7");
        return;
    }
    for (link_length, depth) in [(26, 0), (200, 0), (26, 3)] {
        let root = TestRoot::in_memory("mount");
        let base = (0..depth).fold(root.path().to_owned(), |path, _| path.join("p".repeat(150)));
        let (home, lowers) = home(&base, 501, |n| format!("{n:0>link_length$}"));
        let at = base.join(merged());
        for method in [MountMethod::Auto, MountMethod::Fsopen] {
            mount_overlay(&overlay(&home, &lowers[..500]), merged(), method).unwrap();
            assert_eq!(std::fs::read(at.join("who")).unwrap(), b"0");
            assert!((0..500).all(|n| at.join(format!("file{n}")).exists()));
            assert!(unmount(&at).unwrap());
        }
        let error = mount_overlay(&overlay(&home, &lowers), merged(), MountMethod::Auto).unwrap_err();
        assert!(error.report().contains("500"), "the kernel's own words: {}", error.report());
        let error = mount_overlay(&overlay(&home, &lowers), merged(), MountMethod::Legacy).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LimitExceeded);
        assert!(!is_mount_point(home.as_fd(), merged()).unwrap());
    }
}

#[test]
fn mount_2_takes_relative_paths_when_absolute_ones_do_not_fit_and_the_process_stays_where_it_is() {
    if !need_root() {
        return;
    }
    let here = std::env::current_dir().unwrap();
    let root = TestRoot::in_memory("mount");
    let base = root.join("b".repeat(100));
    let (home, lowers) = home(&base, 128, |n| format!("{n:0>26}"));
    mount_overlay(&overlay(&home, &lowers), merged(), MountMethod::Legacy).unwrap();
    assert!((0..128).all(|n| base.join(merged()).join(format!("file{n}")).exists()));
    let (_, superblock) = shown(&base.join(merged()));
    assert!(superblock.contains("lowerdir=l/00000000000000000000000000:l/"), "{superblock}");
    assert_eq!(std::env::current_dir().unwrap(), here);
}

#[test]
fn mount_2_takes_at_most_one_byte_less_than_a_page() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("mount");
    let (home, lowers) = home(root.path(), 2, |n| format!("LINK{n}"));
    let mut overlay = overlay(&home, &lowers);
    let without = format!(
        "lowerdir={0}/l/LINK0:{0}/l/LINK1,upperdir={0}/top/diff,workdir={0}/top/work",
        root.path().display()
    );
    for (length, relative) in [(4095, false), (4096, true)] {
        // Words of nine and ten bytes with their commas make any length.
        let missing: usize = length - without.len();
        let tens = missing % 9;
        let text = "index=off,".repeat(tens) + &"xino=off,".repeat((missing - 10 * tens) / 9);
        assert_eq!(without.len() + text.len(), length);
        let text = text.trim_end_matches(',').to_owned();
        overlay.options = vec![text];
        mount_overlay(&overlay, merged(), MountMethod::Legacy).unwrap();
        let (_, superblock) = shown(&root.join(merged()));
        assert_eq!(superblock.contains("lowerdir=l/LINK0"), relative, "{superblock}");
        assert!(unmount(&root.join(merged())).unwrap());
    }
}

#[test]
fn any_character_may_be_in_the_path_of_the_home() {
    if !need_root() {
        return;
    }
    for name in ["a b", "a,b", "a:b", "a\\b", "a\"b", "a=b,upperdir=c", "ü\u{1}", "a\\,b\\:c\\\\d", "l\nm"] {
        for method in methods() {
            let root = TestRoot::in_memory("mount");
            let base = root.join(name);
            let (home, lowers) = home(&base, 2, |n| format!("LINK{n}"));
            mount_overlay(&overlay(&home, &lowers), merged(), method)
                .unwrap_or_else(|error| panic!("{name:?} {method:?}: {}", error.report()));
            let at = base.join(merged());
            assert!(at.join("file0").exists() && at.join("file1").exists(), "{name:?} {method:?}");
            std::fs::write(at.join("new"), b"x").unwrap();
            assert!(base.join("top/diff/new").exists(), "{name:?} {method:?}");
            assert_eq!(mounts_below(root.path()), [at], "{name:?} {method:?}");
        }
    }
}

#[test]
fn options_reach_the_mount_and_the_overlay() {
    if !need_root() {
        return;
    }
    for method in methods() {
        let root = TestRoot::in_memory("mount");
        let (home, lowers) = home(root.path(), 2, |n| format!("LINK{n}"));
        let mut overlay = overlay(&home, &lowers);
        overlay.options = vec!["nodev,nosuid".into(), "noexec,noatime,index=off,volatile,private".into()];
        mount_overlay(&overlay, merged(), method).unwrap();
        let (mount, superblock) = shown(&root.join(merged()));
        for word in ["rw", "nodev", "nosuid", "noexec", "noatime"] {
            assert!(mount.split(',').any(|shown| shown == word), "{method:?} {word}: {mount}");
        }
        assert!(superblock.ends_with("volatile"), "{method:?}: {superblock}");
        assert!(unmount(&root.join(merged())).unwrap());
        std::fs::remove_dir_all(root.join("top/work/work")).unwrap();

        overlay.options = vec!["shared".into()];
        mount_overlay(&overlay, merged(), method).unwrap();
        let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        let at = root.join(merged());
        let line = table.lines().find(|line| line.split(' ').nth(4) == at.to_str()).unwrap();
        assert!(line.contains(" shared:"), "{method:?}: {line}");
        assert!(unmount(&root.join(merged())).unwrap());

        overlay.options = vec!["ro".into()];
        mount_overlay(&overlay, merged(), method).unwrap();
        let error = std::fs::write(root.join(merged()).join("new"), b"").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{method:?}");
    }
}

#[test]
fn without_an_upper_the_mount_is_read_only() {
    if !need_root() {
        return;
    }
    for method in methods() {
        let root = TestRoot::in_memory("mount");
        let (home, lowers) = home(root.path(), 2, |n| format!("LINK{n}"));
        let overlay = Overlay { upper: None, work: None, ..overlay(&home, &lowers) };
        mount_overlay(&overlay, merged(), method).unwrap();
        let error = std::fs::write(root.join(merged()).join("new"), b"").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EROFS), "{method:?}");
    }
}

#[test]
fn a_failure_says_what_the_kernel_says_and_mounts_nothing() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("mount");
    let (home, mut lowers) = home(root.path(), 2, |n| format!("LINK{n}"));
    let good = overlay(&home, &lowers);
    let unknown = Overlay { options: vec!["no_such_option=1".into()], ..good.clone() };
    let error = mount_overlay(&unknown, merged(), MountMethod::Auto).unwrap_err();
    assert!(error.report().contains("no_such_option"), "{}", error.report());
    assert_eq!(error.errno(), libc::EINVAL);
    if takes_many_lowers() {
        assert!(error.report().to_lowercase().contains("unknown parameter"), "{}", error.report());
    }

    lowers.push("l/GONE".into());
    for method in methods() {
        let error = mount_overlay(&overlay(&home, &lowers), merged(), method).unwrap_err();
        assert!(error.report().contains("GONE"), "{}", error.report());
        assert_eq!(error.errno(), libc::ENOENT, "{method:?}: {}", error.report());
        let error = mount_overlay(&good, Path::new("top/none"), method).unwrap_err();
        assert_eq!(error.errno(), libc::ENOENT, "{method:?}: {}", error.report());
    }
    let busy = Overlay { upper: Some("top".into()), work: Some("top/work".into()), ..good.clone() };
    for method in methods() {
        mount_overlay(&busy, merged(), method).unwrap_err();
    }
    assert_eq!(mounts_below(root.path()), [""; 0].map(PathBuf::from));
}

#[test]
fn nothing_is_mounted_through_a_planted_link_or_outside_of_the_home() {
    if !need_root() {
        return;
    }
    let outside = TestRoot::in_memory("outside");
    let root = TestRoot::in_memory("mount");
    let (home, lowers) = home(root.path(), 2, |n| format!("LINK{n}"));
    symlink(outside.path(), root.join("top/linked")).unwrap();
    symlink("top", root.join("alias")).unwrap();
    for method in methods() {
        for target in ["top/linked", "alias/merged"] {
            mount_overlay(&overlay(&home, &lowers), Path::new(target), method).unwrap_err();
        }
        for path in ["", ".", "..", "../x", "/", "/tmp", "top/../top/merged"] {
            let path = Path::new(path);
            let good = overlay(&home, &lowers);
            let error = mount_overlay(&good, path, method).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{path:?}");
            for bad in [
                Overlay { lowers: vec![path.into()], ..good.clone() },
                Overlay { upper: Some(path.into()), ..good.clone() },
                Overlay { work: Some(path.into()), ..good.clone() },
            ] {
                let error = mount_overlay(&bad, merged(), method).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{path:?}");
            }
        }
    }
    assert!(mounts_below(outside.path()).is_empty() && mounts_below(root.path()).is_empty());
}

#[test]
fn a_busy_mount_is_detached() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("mount");
    let (home, lowers) = home(root.path(), 2, |n| format!("LINK{n}"));
    mount_overlay(&overlay(&home, &lowers), merged(), MountMethod::Auto).unwrap();
    let held = std::fs::File::open(root.join(merged()).join("who")).unwrap();
    assert!(unmount(&root.join(merged())).unwrap());
    assert!(!is_mount_point(home.as_fd(), merged()).unwrap());
    assert_eq!(std::io::read_to_string(held).unwrap(), "0", "who has it open keeps it");
}

#[test]
fn unmount_does_not_follow_a_link_and_minds_nothing_that_is_not_there() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("mount");
    let (home, lowers) = home(root.path(), 2, |n| format!("LINK{n}"));
    mount_overlay(&overlay(&home, &lowers), merged(), MountMethod::Auto).unwrap();
    symlink(root.join(merged()), root.join("link")).unwrap();
    assert!(!unmount(&root.join("link")).unwrap());
    assert!(!unmount(&root.join("none")).unwrap());
    assert!(is_mount_point(home.as_fd(), merged()).unwrap());
    assert!(!is_mount_point(home.as_fd(), Path::new("link")).unwrap());
    let error = is_mount_point(home.as_fd(), Path::new("none")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn mount_ids_answer_as_statx_does() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("mount");
    let dir = Dir::open(root.path()).unwrap();
    for name in ["plain", "bound"] {
        dir.create_dir(name, 0o700).unwrap();
        drop(dir.create_file(format!("{name}-file"), 0o600).unwrap());
    }
    rustix::mount::mount_bind(root.join("plain"), root.join("bound")).unwrap();
    rustix::mount::mount_bind(root.join("plain-file"), root.join("bound-file")).unwrap();
    for (name, expected) in [("plain", false), ("bound", true), ("plain-file", false), ("bound-file", true)] {
        let name = Path::new(name);
        assert_eq!(is_mount_point(dir.as_fd(), name).unwrap(), expected, "{name:?}");
        assert_eq!(attach::differs_from_parent(dir.as_fd(), name).unwrap(), expected, "{name:?}");
    }
}

#[test]
fn a_directory_is_bound_on_itself_once_and_private() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("mount");
    let path = root.join("home");
    let (before, lowers) = home(&path, 2, |n| format!("LINK{n}"));
    bind_private(&path).unwrap();
    bind_private(&path).unwrap();
    assert_eq!(mounts_below(root.path()), std::slice::from_ref(&path));
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let line = table.lines().find(|line| line.contains(&format!(" {} ", path.display()))).unwrap();
    assert!(!line.contains("shared:"), "{line}");

    // What the documentation says of descriptors from before.
    let after = Dir::open(&path).unwrap();
    assert_eq!(before.rename("0", &after, "moved").unwrap_err().errno(), libc::EXDEV);
    mount_overlay(&overlay(&after, &lowers), merged(), MountMethod::Auto).unwrap();
    assert!(path.join("top/merged/who").exists());
    assert!(unmount(&path.join(merged())).unwrap());
    drop((before, after));
    assert!(unmount(&path).unwrap());
    assert_eq!(mounts_below(root.path()), [""; 0].map(PathBuf::from));
}

#[test]
fn binding_keeps_what_is_mounted_below_in_sight() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("mount");
    let path = root.join("home");
    let (dir, lowers) = home(&path, 2, |n| format!("LINK{n}"));
    mount_overlay(&overlay(&dir, &lowers), merged(), MountMethod::Auto).unwrap();
    bind_private(&path).unwrap();
    assert!(path.join("top/merged/who").exists());
    assert!(is_mount_point(Dir::open(&path).unwrap().as_fd(), merged()).unwrap());
}

#[test]
fn overlays_mount_on_ext4_too() {
    if !need_root() {
        return;
    }
    assert!(overlay_supported().unwrap());
    let disk = loop_ext4(32 << 20);
    for method in methods() {
        let (home, lowers) = home(&disk.join(format!("{method:?}")), 3, |n| format!("LINK{n}"));
        mount_overlay(&overlay(&home, &lowers), merged(), method).unwrap();
        assert!(home.path().join(merged()).join("file2").exists());
    }
}

#[test]
fn the_old_way_is_taken_where_the_new_one_is_not_to_be_had() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("mount");
    let (home, lowers) = home(root.path(), 2, |n| format!("LINK{n}"));
    let result = mount_overlay(&overlay(&home, &lowers), merged(), MountMethod::Fsopen);
    assert_eq!(result.is_ok(), takes_many_lowers());
    if let Err(error) = result {
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{}", error.report());
    }
}

#[test]
fn an_idle_mount_goes_as_soon_as_nobody_holds_it_and_a_used_one_stays() {
    if !need_root() {
        return;
    }
    let root = TestRoot::in_memory("idle");
    let home = root.join("home");
    std::fs::create_dir_all(home.join("below")).unwrap();
    bind_private(&home).unwrap();
    bind_private(&home.join("below")).unwrap();
    assert!(!unmount_idle(&home).unwrap(), "something is mounted below");
    assert!(unmount_idle(&home.join("below")).unwrap());

    // Held by a program that another thread is about to start, say; whoever waits gets it when it is let go.
    let held = std::fs::File::open(&home).unwrap();
    let (ready, started) = std::sync::mpsc::channel();
    let holder = std::thread::spawn(move || {
        ready.send(()).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(30));
        drop(held);
    });
    started.recv().unwrap();
    assert!(unmount_idle(&home).unwrap());
    holder.join().unwrap();
    assert!(!unmount_idle(&home).unwrap(), "nothing is mounted there");
}
