// SPDX-License-Identifier: MulanPSL-2.0
//! iSulad's own log, where the process has it: the category `g_lxc_log_category_lxc` of libisula and its chain of
//! appenders, which is what the inline functions of libisula's `log.h` use.
//!
//! An appender takes a format and a `va_list *`. A variadic function cannot be defined in Rust, so the list is built by
//! hand as the platform's ABI lays it out once all argument registers are used up: only the pointer to the arguments on
//! the stack counts then.

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
pub(crate) use on::{append, enabled, present};

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod on {
    use std::ffi::{CStr, CString, c_char, c_int, c_void};
    use std::mem::{offset_of, size_of};
    use std::sync::atomic::{AtomicI32, AtomicPtr, Ordering};
    use std::time::{SystemTime, UNIX_EPOCH};

    use log::{Level, Record};
    use once_cell::sync::Lazy;

    use crate::ffi::host;

    /// Priority of a category that leaves it to its parent.
    const NOT_SET: c_int = 9;

    #[repr(C)]
    struct Category {
        name: *const c_char,
        priority: AtomicI32,
        appender: AtomicPtr<Appender>,
        parent: *const Category,
    }

    // SAFETY: a static variable of libisula; its name and parent never change, the rest is atomic here.
    unsafe impl Sync for Category {}

    #[repr(C)]
    struct Appender {
        name: *const c_char,
        append: Option<unsafe extern "C" fn(*const Appender, *mut Event) -> c_int>,
        next: *const Appender,
    }

    #[repr(C)]
    struct Event {
        category: *const c_char,
        priority: c_int,
        timestamp: libc::timespec,
        location: *mut Location,
        format: *const c_char,
        arguments: *mut VaList,
    }

    #[repr(C)]
    struct Location {
        file: *const c_char,
        function: *const c_char,
        line: c_int,
    }

    /// A `va_list` of the System V ABI for x86-64: offsets beyond the saved registers, so that the stack is next.
    #[cfg(target_arch = "x86_64")]
    #[repr(C)]
    struct VaList {
        general_offset: u32,
        float_offset: u32,
        stack: *const c_void,
        registers: *const c_void,
    }

    /// A `va_list` of AAPCS64: offsets that are not negative say that the saved registers are used up.
    #[cfg(target_arch = "aarch64")]
    #[repr(C)]
    struct VaList {
        stack: *const c_void,
        general_top: *const c_void,
        float_top: *const c_void,
        general_offset: c_int,
        float_offset: c_int,
    }

    impl VaList {
        /// The list whose arguments lie at `stack`, 8 bytes each.
        #[cfg(target_arch = "x86_64")]
        fn new(stack: *const c_void) -> Self {
            const GENERAL_END: u32 = 6 * 8;
            const FLOAT_END: u32 = GENERAL_END + 8 * 16;
            VaList { general_offset: GENERAL_END, float_offset: FLOAT_END, stack, registers: stack }
        }

        #[cfg(target_arch = "aarch64")]
        fn new(stack: *const c_void) -> Self {
            VaList { stack, general_top: stack, float_top: stack, general_offset: 0, float_offset: 0 }
        }
    }

    // The layouts of libisula.
    const _: () = {
        assert!(size_of::<Category>() == 32 && offset_of!(Category, priority) == 8);
        assert!(offset_of!(Category, appender) == 16 && offset_of!(Category, parent) == 24);
        assert!(size_of::<Appender>() == 24 && offset_of!(Appender, next) == 16);
        assert!(size_of::<Event>() == 56 && offset_of!(Event, timestamp) == 16);
        assert!(offset_of!(Event, location) == 32 && offset_of!(Event, arguments) == 48);
        assert!(size_of::<Location>() == 24 && offset_of!(Location, line) == 16);
        #[cfg(target_arch = "x86_64")]
        assert!(size_of::<VaList>() == 24 && offset_of!(VaList, stack) == 8);
        #[cfg(target_arch = "aarch64")]
        assert!(size_of::<VaList>() == 32 && offset_of!(VaList, general_offset) == 24);
    };

    /// The category of this process, looked up once; libisula stays loaded as long as the daemon runs.
    static CATEGORY: Lazy<Option<&'static Category>> = Lazy::new(|| {
        let address = host::symbol(c"g_lxc_log_category_lxc")?.cast::<Category>();
        // SAFETY: under this name the process has libisula's category, or none; it is a static variable, of which
        // only what is atomic here changes.
        address.is_aligned().then(|| unsafe { &*address })
    });

    fn priority(level: Level) -> c_int {
        match level {
            Level::Error => 5,
            Level::Warn => 4,
            Level::Info => 2,
            Level::Debug => 1,
            Level::Trace => 0,
        }
    }

    /// Categories from this one up.
    fn upwards(category: &'static Category) -> impl Iterator<Item = &'static Category> {
        // SAFETY: NULL or libisula's, as above.
        std::iter::successors(Some(category), |category| unsafe { category.parent.as_ref() })
    }

    /// Whether the process has iSulad's log.
    pub(crate) fn present() -> bool {
        CATEGORY.is_some()
    }

    /// Whether iSulad's log takes lines of this level at the moment.
    pub(crate) fn enabled(level: Level) -> bool {
        CATEGORY.is_some_and(|category| {
            let own = upwards(category).map(|category| category.priority.load(Ordering::Relaxed));
            // None is set: as in libisula, where NOTSET is above all levels.
            own.into_iter().find(|own| *own != NOT_SET).is_some_and(|own| priority(level) >= own)
        })
    }

    /// Hands one line, the text of the record, to all appenders.
    pub(crate) fn append(record: &Record<'_>, text: &CStr) {
        let Some(category) = *CATEGORY else { return };
        let string = |text: &str| CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default();
        let file = string(record.file().unwrap_or("isula-storage"));
        let function = string(record.target());
        let mut location = Location {
            file: file.as_ptr(),
            function: function.as_ptr(),
            line: record.line().and_then(|line| c_int::try_from(line).ok()).unwrap_or(0),
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // SAFETY: zero bytes are a valid time.
        let mut timestamp: libc::timespec = unsafe { std::mem::zeroed() };
        timestamp.tv_sec = now.as_secs().try_into().unwrap_or(0);
        timestamp.tv_nsec = now.subsec_nanos().into();
        let stack: [*const c_char; 2] = [text.as_ptr(), std::ptr::null()];
        for origin in upwards(category) {
            let mut appender: *const Appender = origin.appender.load(Ordering::Relaxed);
            // SAFETY: NULL or libisula's appender, as above.
            while let Some(current) = unsafe { appender.as_ref() } {
                // Each takes its arguments from the list: the next one needs a fresh list.
                let mut arguments = VaList::new(stack.as_ptr().cast());
                let mut event = Event {
                    category: category.name,
                    priority: priority(record.level()),
                    timestamp,
                    location: &raw mut location,
                    format: c"%s".as_ptr(),
                    arguments: &raw mut arguments,
                };
                if let Some(append) = current.append {
                    // SAFETY: all that the event points to lives until the appender returns; the format takes the one
                    // argument that the list has.
                    unsafe { append(appender, &raw mut event) };
                }
                appender = current.next;
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        unsafe extern "C" {
            // A `va_list` is handed over as a pointer on both architectures: an array of one on x86-64, a struct
            // of more than 16 bytes on aarch64.
            fn vsnprintf(
                buffer: *mut c_char,
                size: usize,
                format: *const c_char,
                arguments: *mut VaList,
            ) -> c_int;
        }

        #[test]
        fn the_c_library_reads_the_argument_list() {
            let stack: [*const c_void; 4] = [
                c"first %s".as_ptr().cast(),
                std::ptr::without_provenance(42),
                c"third".as_ptr().cast(),
                std::ptr::null(),
            ];
            let mut list = VaList::new(stack.as_ptr().cast());
            let mut buffer = [0_u8; 64];
            // SAFETY: the format takes the three arguments that the list has.
            let length = unsafe {
                vsnprintf(buffer.as_mut_ptr().cast(), 64, c"<%s> %ld %.2s".as_ptr(), &raw mut list)
            };
            assert_eq!(&buffer[..usize::try_from(length).unwrap()], b"<first %s> 42 th");
        }
    }
}

/// Where the layout of an argument list is not known here, the log goes to stderr.
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
mod off {
    pub(crate) fn present() -> bool {
        false
    }

    pub(crate) fn enabled(_: log::Level) -> bool {
        false
    }

    pub(crate) fn append(_: &log::Record<'_>, _: &std::ffi::CStr) {}
}
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
pub(crate) use off::{append, enabled, present};
