// SPDX-License-Identifier: MulanPSL-2.0
//! What C programs do from several threads, where the moment matters.

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::ptr;
    use std::sync::mpsc;
    use std::time::Duration;

    use crate::ffi::containerd_images::*;
    use crate::ffi::containerd_images_namespaced::*;
    use crate::metadata::{ImageFile, Labels, NamespacedFile, NamespacedImage, Options, Target};
    use crate::sys::testing::TestRoot;

    /// Whether a handle, given as a number because pointers stay in their thread, is one of an open file.
    fn is_open(handle: usize) -> bool {
        let images = ptr::without_provenance_mut(handle);
        let begun = containerd_images_begin(images, false);
        !begun.is_null() && containerd_images_rollback(begun) == 0
    }

    #[test]
    fn closing_waits_for_a_commit_under_way() {
        let root = TestRoot::in_memory("containerd-close");
        let path = CString::new(root.join("db").to_str().unwrap()).unwrap();
        // SAFETY: a string, and no options.
        let images = unsafe { containerd_images_open(path.as_ptr(), ptr::null()) };
        assert_eq!(containerd_images_init_db(images), 0);
        let transaction = containerd_images_begin(images, true);
        let target = crate::ffi::types::CContainerdDescriptor {
            media_type: c"m".as_ptr().cast_mut(),
            digest: c"d".as_ptr().cast_mut(),
            size: 1,
        };
        // SAFETY: a string and a target.
        assert_eq!(unsafe { containerd_images_tx_put(transaction, c"a".as_ptr(), -1, &raw const target) }, 0);

        let (handle, transaction) = (images.addr(), transaction.addr());
        let (committing, begun) = mpsc::channel();
        let (closed, is_closed) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut is_closed = Some(is_closed);
                let hook = move |step: &str| {
                    if step == "write meta page"
                        && let Some(is_closed) = is_closed.take()
                    {
                        committing.send(()).unwrap();
                        while is_open(handle) {
                            std::thread::yield_now();
                        }
                        // Whoever closes does not see the end of it before this is done.
                        assert_eq!(
                            is_closed.recv_timeout(Duration::from_millis(300)),
                            Err(mpsc::RecvTimeoutError::Timeout)
                        );
                    }
                    Ok(())
                };
                let commit = || containerd_images_commit(ptr::without_provenance_mut(transaction));
                assert_eq!(crate::persist::with_hook(hook, commit), 0);
            });
            scope.spawn(move || {
                begun.recv().unwrap();
                assert_eq!(containerd_images_close(ptr::without_provenance_mut(handle)), 0);
                // Nobody may be listening any more.
                closed.send(()).ok();
            });
        });
        // SAFETY: as above.
        let images = unsafe { containerd_images_open(path.as_ptr(), ptr::null()) };
        // SAFETY: a string and a place for an image.
        let mut image = unsafe { std::mem::zeroed() };
        // SAFETY: as above.
        assert_eq!(unsafe { containerd_images_get(images, c"a".as_ptr(), -1, &raw mut image) }, 0);
        // SAFETY: what was given.
        unsafe { containerd_images_clear_image(&raw mut image) };
        assert_eq!(containerd_images_close(images), 0);
    }

    fn errno() -> i32 {
        std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
    }

    fn target(digest: &str) -> Target {
        Target { media_type: "m".to_owned(), digest: digest.to_owned(), size: 1 }
    }

    #[test]
    fn a_text_with_a_nul_is_an_error_and_never_cut() {
        let root = TestRoot::in_memory("containerd-nul");
        let file = ImageFile::open(&root.join("db"), &Options::default()).unwrap();
        file.init().unwrap();
        file.put(b"a\0b", &target("fine")).unwrap();
        file.put(b"c", &target("sha256:0\0")).unwrap();
        drop(file);
        let path = CString::new(root.join("db").to_str().unwrap()).unwrap();
        // SAFETY: a string, and no options.
        let images = unsafe { containerd_images_open(path.as_ptr(), ptr::null()) };
        // SAFETY: zero bytes are an image without members.
        let mut image: crate::ffi::types::CContainerdImage = unsafe { std::mem::zeroed() };
        // SAFETY: three bytes, and a place for an image.
        assert_eq!(unsafe { containerd_images_get(images, b"a\0b".as_ptr().cast(), 3, &raw mut image) }, 0);
        assert_eq!(image.name_len, 3);
        // SAFETY: what was given.
        unsafe { containerd_images_clear_image(&raw mut image) };
        // SAFETY: as above.
        assert_eq!(unsafe { containerd_images_get(images, c"c".as_ptr(), -1, &raw mut image) }, -1);
        assert_eq!(errno(), libc::EUCLEAN);
        let long = crate::ffi::containerd_images::whole(&"x\0".repeat(20_000), "digest").unwrap_err();
        assert!(long.report().len() < 1000, "the text names only a part of it");
        // SAFETY: zero bytes are an empty list.
        let mut list = unsafe { std::mem::zeroed() };
        // SAFETY: a place for a list.
        assert_eq!(unsafe { containerd_images_list(images, &raw mut list) }, -1);
        assert_eq!(errno(), libc::EUCLEAN);
        assert_eq!(containerd_images_close(images), 0);
    }

    #[test]
    fn images_of_a_namespace_with_a_nul_are_counted_as_unreadable() {
        let root = TestRoot::in_memory("containerd-nul");
        let file = NamespacedFile::open(&root.join("db"), &Options::default()).unwrap();
        let digest = format!("sha256:{}", "0".repeat(64));
        let label = |key: &str, value: &str| Labels::from([(key.to_owned(), value.to_owned())]);
        for (name, labels, annotations) in [
            ("fine", label("k", "v"), Labels::new()),
            ("name\0", Labels::new(), Labels::new()),
            ("key", label("k\0", "v"), Labels::new()),
            ("value", Labels::new(), label("k", "v\0w")),
        ] {
            let image = NamespacedImage {
                name: name.to_owned(),
                target: target(&digest),
                labels,
                annotations,
                ..NamespacedImage::default()
            };
            file.create("ns", &image).unwrap();
        }
        drop(file);
        let path = CString::new(root.join("db").to_str().unwrap()).unwrap();
        // SAFETY: a string, and no options.
        let images = unsafe { containerd_images_namespaced_open(path.as_ptr(), ptr::null()) };
        // SAFETY: zero bytes are an empty list.
        let mut list: crate::ffi::types::CContainerdNamespacedList = unsafe { std::mem::zeroed() };
        let (ns, none) = (c"ns".as_ptr(), ptr::null());
        // SAFETY: a string, no filters, a place for a list.
        assert_eq!(unsafe { containerd_images_namespaced_list(images, ns, none, 0, &raw mut list) }, 0);
        assert_eq!((list.images_len, list.unreadable), (1, 3));
        // SAFETY: what was given.
        unsafe { containerd_images_namespaced_clear_list(&raw mut list) };
        // SAFETY: zero bytes are an image without members.
        let mut image = unsafe { std::mem::zeroed() };
        // SAFETY: strings, and a place for an image.
        let got = unsafe { containerd_images_namespaced_get(images, ns, c"key".as_ptr(), &raw mut image) };
        assert_eq!(got, -1);
        assert_eq!(errno(), libc::EUCLEAN);
        assert_eq!(containerd_images_namespaced_close(images), 0);
    }
}
