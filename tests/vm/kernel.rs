// SPDX-License-Identifier: MulanPSL-2.0
//! The calls of device-mapper themselves.

use isula_storage::error::Error;
use isula_storage::sys::dm::{Dm, Gone, Removal, Target};

use crate::guest::Scenario;
use crate::scene::{POOL, Pool};

pub const ALL: &[Scenario] = crate::scenarios! {
    each_call_fails_with_the_errno_of_the_kernel
    nodes_come_and_go_with_their_devices
};

fn thin(pool: &Pool, id: u32) -> Target {
    let device = pool.dm.info(POOL).unwrap().unwrap().device;
    Target { start: 0, sectors: 8192, kind: "thin".into(), text: format!("{device} {id}") }
}

fn errno<T>(result: Result<T, Error>) -> i32 {
    result.err().unwrap().errno()
}

fn each_call_fails_with_the_errno_of_the_kernel() {
    let pool = Pool::new();
    let send = |text: &str| pool.dm.message(POOL, text);
    let dm = &pool.dm;
    assert!(dm.version().unwrap() >= (4, 27, 0));
    send("create_thin 1").unwrap();
    send("create_snap 2 1").unwrap();
    assert_eq!(errno(send("create_thin 1")), libc::EEXIST);
    assert_eq!(errno(send("create_snap 2 1")), libc::EEXIST);
    assert_eq!(errno(send("create_snap 3 9")), libc::ENODATA);
    assert_eq!(errno(send("delete 9")), libc::ENODATA);
    assert_eq!(errno(send("set_transaction_id 5 6")), libc::EINVAL);
    send("set_transaction_id 0 1").unwrap();
    assert!(pool.status().starts_with("1 "), "{}", pool.status());

    assert_eq!(dm.info("absent").unwrap(), None);
    for error in [
        errno(dm.resume("absent")),
        errno(dm.suspend("absent")),
        errno(dm.remove("absent", Removal::Now)),
        errno(dm.table("absent")),
        errno(dm.load("absent", &thin(&pool, 1))),
        errno(dm.message("/dev/mapper/pool", "delete 1")),
    ] {
        assert_eq!(error, libc::ENXIO);
    }

    dm.create("device").unwrap();
    assert_eq!(errno(dm.create("device")), libc::EBUSY);
    assert_eq!(errno(dm.load("device", &thin(&pool, 9))), libc::ENODATA);
    dm.load("device", &thin(&pool, 1)).unwrap();
    dm.resume("device").unwrap();
    assert_eq!(dm.table("device").unwrap(), [thin(&pool, 1)]);
    assert_eq!(errno(send("delete 1")), libc::EBUSY);
    let open = std::fs::File::open(dm.node("device")).unwrap();
    assert_eq!(dm.info("device").unwrap().unwrap().open_count, 1);
    assert_eq!(errno(dm.remove("device", Removal::Now)), libc::EBUSY);
    assert_eq!(dm.remove("device", Removal::Deferred).unwrap(), Gone::Later);
    assert!(dm.info("device").unwrap().unwrap().deferred_remove);
    dm.message("device", "@cancel_deferred_remove").unwrap();
    dm.message("device", "@cancel_deferred_remove").unwrap();
    assert!(!dm.info("device").unwrap().unwrap().deferred_remove);
    assert_eq!(dm.remove("device", Removal::Deferred).unwrap(), Gone::Later);
    drop(open);
    assert_eq!(dm.info("device").unwrap(), None);
    // Its table is taken apart a moment later.
    let mut tries = 0..500;
    while let Err(error) = send("delete 1") {
        assert!(error.errno() == libc::EBUSY && tries.next().is_some(), "{}", error.report());
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    send("delete 2").unwrap();
}

fn nodes_come_and_go_with_their_devices() {
    let pool = Pool::new();
    pool.dm.message(POOL, "create_thin 1").unwrap();
    let (dm, node) = (&pool.dm, pool.dm.node("device"));
    dm.create("device").unwrap();
    dm.load("device", &thin(&pool, 1)).unwrap();
    dm.resume("device").unwrap();
    std::fs::File::open(&node).unwrap();
    dm.suspend("device").unwrap();
    assert!(dm.info("device").unwrap().unwrap().suspended);
    dm.resume("device").unwrap();
    let open = std::fs::File::open(&node).unwrap();
    dm.rename("device", "other").unwrap();
    assert!(!node.exists() && dm.node("other").exists());
    assert!(dm.names().unwrap().contains(&"other".to_owned()));
    drop(open);
    assert_eq!(dm.remove("other", Removal::Deferred).unwrap(), Gone::Now);
    assert!(!dm.node("other").exists());
    // One that somebody else left.
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &node,
        rustix::fs::FileType::BlockDevice,
        rustix::fs::Mode::RUSR,
        rustix::fs::makedev(7, 99),
    )
    .unwrap();
    dm.create("device").unwrap();
    dm.load("device", &thin(&pool, 1)).unwrap();
    dm.resume("device").unwrap();
    std::fs::File::open(&node).unwrap();
    dm.remove("device", Removal::Now).unwrap();
    assert!(!node.exists());
}
