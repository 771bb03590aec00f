// SPDX-License-Identifier: MulanPSL-2.0
//! A caller's `struct io_read_wrapper` as a reader. Only `read` is used, forward, once; `context` is never looked at.

use std::ffi::c_void;
use std::io::{self, Read};

use crate::error::{Error, Result};
use crate::ffi::guard::{errno, set_errno};
use crate::ffi::types::CIoReadWrapper;

/// A stream that a caller hands in.
#[derive(Debug)]
pub(crate) struct CallerStream {
    context: *mut c_void,
    read: unsafe extern "C" fn(*mut c_void, *mut c_void, usize) -> libc::ssize_t,
}

// SAFETY: the caller of the C function promises that the stream may be read from any thread, by one at a time.
unsafe impl Send for CallerStream {}

impl CallerStream {
    /// The stream, `None` for NULL; without a `read` function it is refused.
    ///
    /// # Safety
    /// `wrapper` is NULL or points to a wrapper whose functions may be called with its context as long as the result is used.
    pub(crate) unsafe fn new(wrapper: *const CIoReadWrapper, name: &str) -> Result<Option<Self>> {
        // SAFETY: the caller's promise.
        let Some(wrapper) = (unsafe { wrapper.as_ref() }) else { return Ok(None) };
        let read = wrapper.read.ok_or_else(|| Error::invalid(format!("{name}->read is NULL")))?;
        Ok(Some(CallerStream { context: wrapper.context, read }))
    }
}

impl Read for CallerStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        set_errno(0);
        // SAFETY: the promise given to `new`; the buffer is ours and of that length.
        let got = unsafe { (self.read)(self.context, buffer.as_mut_ptr().cast(), buffer.len()) };
        match usize::try_from(got) {
            Ok(got) if got <= buffer.len() => Ok(got),
            Ok(got) => Err(io::Error::other(format!(
                "the caller's read function says {got} bytes, but only {} were asked for",
                buffer.len()
            ))),
            // A callback that sets no errno says nothing about why.
            Err(_) => Err(match errno() {
                0 => io::Error::other("the caller's read function failed"),
                code => io::Error::from_raw_os_error(code),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" fn scripted(context: *mut c_void, buffer: *mut c_void, len: usize) -> libc::ssize_t {
        // SAFETY: the tests below hand in a number.
        let answer = unsafe { *context.cast::<libc::ssize_t>() };
        if answer < -1 {
            set_errno(libc::ENOSPC);
            return -1;
        }
        if let Ok(count) = usize::try_from(answer) {
            // SAFETY: the reader's buffer has `len` bytes.
            unsafe { std::ptr::write_bytes(buffer.cast::<u8>(), b'x', count.min(len)) };
        }
        answer
    }

    fn read(mut answer: libc::ssize_t) -> io::Result<usize> {
        let wrapper = CIoReadWrapper {
            context: (&raw mut answer).cast(),
            read: Some(scripted),
            close: None,
            io_type: 0,
        };
        // SAFETY: the wrapper lives until the end of the function.
        unsafe { CallerStream::new(&raw const wrapper, "content") }.unwrap().unwrap().read(&mut [0; 8])
    }

    #[test]
    fn answers_of_a_callback_become_results() {
        assert_eq!(read(8).unwrap(), 8);
        assert_eq!(read(3).unwrap(), 3);
        assert_eq!(read(0).unwrap(), 0);
        assert_eq!(read(9).unwrap_err().raw_os_error(), None);
        assert_eq!(read(-1).unwrap_err().raw_os_error(), None);
        assert_eq!(read(-2).unwrap_err().raw_os_error(), Some(libc::ENOSPC));
    }

    #[test]
    fn a_wrapper_without_read_is_refused() {
        let wrapper = CIoReadWrapper { context: std::ptr::null_mut(), read: None, close: None, io_type: 0 };
        // SAFETY: the wrapper lives until the end of the function.
        let result = unsafe { CallerStream::new(&raw const wrapper, "content") };
        assert_eq!(result.unwrap_err().to_string(), "content->read is NULL");
        // SAFETY: NULL is allowed.
        assert!(unsafe { CallerStream::new(std::ptr::null(), "content") }.unwrap().is_none());
    }
}
