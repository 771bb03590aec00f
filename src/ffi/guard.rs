// SPDX-License-Identifier: MulanPSL-2.0
//! What stands around the body of every function of the C ABI, and the last error of each thread.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::ffi::{CString, c_char, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use crate::error::{Error, ErrorKind, Result};
use crate::ffi::{host, logger};

/// A return type of the C ABI and the value that says "failed".
pub(crate) trait Failure {
    /// Returned when the call failed.
    const FAILED: Self;
}

macro_rules! failure {
    ($($type:ty: $value:expr),*) => { $(impl Failure for $type { const FAILED: Self = $value; })* };
}
failure!(c_int: -1, i64: -1, usize: usize::MAX, bool: false, (): ());

impl<T> Failure for *mut T {
    const FAILED: Self = ptr::null_mut();
}

impl<T> Failure for *const T {
    const FAILED: Self = ptr::null();
}

/// The last error of a thread. A question answered with "no" is put into words only when somebody asks for them.
enum Last {
    Nothing,
    Said(CString, Error),
    Unsaid(&'static str, Error),
}

thread_local! {
    static LAST_ERROR: RefCell<Last> = const { RefCell::new(Last::Nothing) };
    static TELLING: Cell<bool> = const { Cell::new(false) };
}

/// Runs the body of the C function `name`. An error or a panic becomes the failure value of the return type, errno,
/// the thread's last error and a line in the log; success leaves errno as the caller had it.
pub(crate) fn guard<T: Failure>(name: &'static str, body: impl FnOnce() -> Result<T>) -> T {
    let before = errno();
    logger::install();
    let result = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| Err(panicked(payload)));
    match result {
        Ok(value) => {
            set_errno(before);
            value
        }
        Err(error) => {
            // The log and the host are foreign code that may call the library and fail: what is the caller's comes last.
            let code = error.errno();
            if is_unheard(&error) {
                remember(Last::Unsaid(name, error));
            } else {
                let text = words(name, &error);
                tell(&error, &text);
                remember(Last::Said(c_text(&text), error));
            }
            set_errno(code);
            T::FAILED
        }
    }
}

/// [`guard`] for what cannot fail and returns nothing.
pub(crate) fn guard_void(name: &'static str, body: impl FnOnce()) {
    guard(name, || {
        body();
        Ok(())
    });
}

/// The error that a panic becomes. Dropping the payload may panic as well; a payload that does so is leaked.
fn panicked(payload: Box<dyn Any + Send>) -> Error {
    let text = payload
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "of unknown reason".to_owned());
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        std::mem::forget(second);
    }
    Error::new(ErrorKind::Latched, format!("internal error (a panic was caught): {text}"))
}

fn words(name: &str, error: &Error) -> String {
    format!("{name}: {}", error.report())
}

/// A NUL cannot be in a C string; it may come from a file name or a record.
fn c_text(text: &str) -> CString {
    CString::new(text.replace('\0', "\u{fffd}")).unwrap_or_default()
}

fn remember(error: Last) {
    // Fails only while the thread ends, when nobody can ask any more.
    let _kept = LAST_ERROR.try_with(|last| last.try_borrow_mut().map(|mut last| *last = error));
}

/// Whether nobody is told of an error: a question answered with "no", unless the log wants to know.
fn is_unheard(error: &Error) -> bool {
    error.kind() == ErrorKind::NotFound && error.shown().is_none() && !log::log_enabled!(log::Level::Debug)
}

/// Runs a callback of the caller that is told something, unless this thread is in one already: a callback that calls
/// the library would be told of that call, and so on until the stack ends.
pub(crate) fn outermost(callback: impl FnOnce()) {
    struct Leave;
    impl Drop for Leave {
        fn drop(&mut self) {
            let _while_the_thread_ends = TELLING.try_with(|telling| telling.set(false));
        }
    }
    if TELLING.try_with(|telling| telling.replace(true)) == Ok(false) {
        let _leave = Leave;
        callback();
    }
}

fn tell(error: &Error, text: &str) {
    let _caught = catch_unwind(AssertUnwindSafe(|| match error.kind() {
        // A question answered with "no" is no news; the caller has it as the return value.
        ErrorKind::NotFound => log::debug!("{text}"),
        ErrorKind::Latched => log::error!("{text}"),
        _ => log::warn!("{text}"),
    }));
    host::show_error((error.kind() != ErrorKind::NotFound).then_some(text), error.shown());
}

/// What the last failure of this thread was, by what is behind it; `None` if there was none.
pub(crate) fn last_failure<R>(look: impl FnOnce(&Error) -> R) -> Option<R> {
    let look = |last: &RefCell<Last>| match &*last.borrow() {
        Last::Said(_, error) | Last::Unsaid(_, error) => Some(look(error)),
        Last::Nothing => None,
    };
    LAST_ERROR.try_with(look).ok().flatten()
}

/// errno of this thread.
pub(crate) fn errno() -> c_int {
    // SAFETY: glibc's promise: the address is that of this thread's errno and lives as long as the thread.
    unsafe { *libc::__errno_location() }
}

/// Sets errno of this thread.
pub(crate) fn set_errno(value: c_int) {
    // SAFETY: as in `errno`.
    unsafe { *libc::__errno_location() = value }
}

/// Text of the last failure of the calling thread: the function's name, what was tried on which thing, and why.
///
/// @return text that stays valid until the next failing call of the same thread or its end; NULL when no call of this
/// thread has failed. A call that succeeds does not change it: ask only after a failure. Do not free it.
#[unsafe(no_mangle)]
pub extern "C" fn isula_storage_last_error() -> *const c_char {
    LAST_ERROR
        .try_with(|last| {
            let mut last = last.borrow_mut();
            *last = match std::mem::replace(&mut *last, Last::Nothing) {
                Last::Unsaid(name, error) => Last::Said(c_text(&words(name, &error)), error),
                said => said,
            };
            match &*last {
                // The text does not move with what owns it.
                Last::Said(text, _) => text.as_ptr(),
                Last::Nothing | Last::Unsaid(..) => ptr::null(),
            }
        })
        .unwrap_or(ptr::null())
}

/// Version of the library.
///
/// @return text such as `0.1.0`; do not free it.
#[unsafe(no_mangle)]
pub extern "C" fn isula_storage_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

#[cfg(test)]
mod tests {
    use std::ffi::CStr;
    use std::panic::panic_any;

    use super::*;

    fn last_error() -> String {
        let text = isula_storage_last_error();
        assert!(!text.is_null());
        // SAFETY: not NULL, and valid until the next failing call of this thread.
        unsafe { CStr::from_ptr(text) }.to_str().unwrap().to_owned()
    }

    #[test]
    fn success_keeps_errno_and_the_last_error() {
        set_errno(libc::ENOTTY);
        guard("first", || -> Result<c_int> { Err(Error::invalid("id is NULL")) });
        assert_eq!(errno(), libc::EINVAL);
        set_errno(libc::ENOTTY);
        let value = guard("second", || {
            set_errno(libc::EIO);
            Ok(7)
        });
        assert_eq!((value, errno()), (7, libc::ENOTTY));
        assert_eq!(last_error(), "first: id is NULL");
    }

    #[test]
    fn a_callback_is_not_told_of_what_it_causes_itself() {
        let mut told = 0;
        outermost(|| {
            told += 1;
            outermost(|| told += 10);
        });
        outermost(|| told += 100);
        assert_eq!(told, 101);
    }

    #[test]
    fn failure_values_follow_the_return_type() {
        fn failed<T>() -> Result<T> {
            Err(Error::not_found("x"))
        }
        assert_eq!(guard("f", failed::<c_int>), -1);
        assert_eq!(guard("f", failed::<i64>), -1);
        assert_eq!(guard("f", failed::<usize>), usize::MAX);
        assert!(!guard("f", failed::<bool>));
        assert!(guard("f", failed::<*mut c_char>).is_null());
        assert!(guard("f", failed::<*const c_char>).is_null());
        assert_eq!(errno(), libc::ENOENT);
    }

    #[test]
    fn a_panic_becomes_a_failure() {
        struct DropBomb;
        impl Drop for DropBomb {
            fn drop(&mut self) {
                panic!("dropped");
            }
        }
        assert_eq!(guard("f", || -> Result<c_int> { panic!("boom {}", 1) }), -1);
        assert_eq!(errno(), libc::EIO);
        assert_eq!(last_error(), "f: internal error (a panic was caught): boom 1");
        assert_eq!(guard("f", || -> Result<c_int> { panic_any(DropBomb) }), -1);
        assert_eq!(last_error(), "f: internal error (a panic was caught): of unknown reason");
    }

    #[test]
    fn the_last_error_belongs_to_its_thread() {
        guard("f", || -> Result<c_int> { Err(Error::invalid("here\0there")) });
        let other = std::thread::spawn(|| isula_storage_last_error().is_null()).join();
        assert!(other.unwrap());
        assert_eq!(last_error(), "f: here\u{fffd}there");
    }
}
