// SPDX-License-Identifier: MulanPSL-2.0
//! A caller's `struct io_read_wrapper` as a reader, and its `struct io_write_wrapper` as a writer. Only `read` and
//! `write_func` are used, forward, once; `context` is never looked at.

use std::ffi::c_void;
use std::io::{self, Read, Write};

use crate::error::{Error, Result};
use crate::ffi::arg;
use crate::ffi::guard::{errno, set_errno};
use crate::ffi::types::{CIoReadWrapper, CIoWriteWrapper};

/// How often in a row EINTR makes the reader try again. A function that ends a stream with it would never be left.
const MOST_INTERRUPTIONS: u32 = 100;

/// A stream that a caller hands in.
#[derive(Debug)]
pub(crate) struct CallerStream {
    interrupted: u32,
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
        Ok(Some(CallerStream { interrupted: 0, context: wrapper.context, read }))
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
            Ok(got) if got <= buffer.len() => {
                self.interrupted = 0;
                Ok(got)
            }
            Ok(got) => Err(io::Error::other(format!(
                "the caller's read function says {got} bytes, but only {} were asked for",
                buffer.len()
            ))),
            // A callback that sets no errno says nothing about why.
            Err(_) => Err(match errno() {
                0 => io::Error::other("the caller's read function failed"),
                libc::EINTR if self.interrupted == MOST_INTERRUPTIONS => io::Error::other(
                    "the caller's read function says again and again that it was interrupted",
                ),
                libc::EINTR => {
                    self.interrupted += 1;
                    io::ErrorKind::Interrupted.into()
                }
                code => io::Error::from_raw_os_error(code),
            }),
        }
    }
}

/// A stream that a caller hands in to be written to. Only `write_func` is used.
#[derive(Debug)]
pub(crate) struct CallerSink {
    interrupted: u32,
    context: *mut c_void,
    write: unsafe extern "C" fn(*mut c_void, *const c_void, usize) -> libc::ssize_t,
}

impl CallerSink {
    /// The stream; NULL, or without a `write_func`, it is refused.
    ///
    /// # Safety
    /// `wrapper` is NULL or points to a wrapper whose functions may be called with its context as long as the result is used.
    pub(crate) unsafe fn new(wrapper: *const CIoWriteWrapper, name: &str) -> Result<Self> {
        // SAFETY: the caller's promise.
        let wrapper = unsafe { arg::required(wrapper, name) }?;
        let write = wrapper.write_func;
        let write = write.ok_or_else(|| Error::invalid(format!("{name}->write_func is NULL")))?;
        Ok(CallerSink { interrupted: 0, context: wrapper.context, write })
    }
}

impl Write for CallerSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        set_errno(0);
        // SAFETY: the promise given to `new`; the bytes are ours and of that length.
        let taken = unsafe { (self.write)(self.context, bytes.as_ptr().cast(), bytes.len()) };
        match usize::try_from(taken) {
            Ok(0) => Err(io::Error::other("the caller's write function takes nothing more")),
            Ok(taken) if taken <= bytes.len() => {
                self.interrupted = 0;
                Ok(taken)
            }
            Ok(taken) => Err(io::Error::other(format!(
                "the caller's write function says {taken} bytes, but only {} were offered",
                bytes.len()
            ))),
            Err(_) => Err(match errno() {
                0 => io::Error::other("the caller's write function failed"),
                libc::EINTR if self.interrupted == MOST_INTERRUPTIONS => io::Error::other(
                    "the caller's write function says again and again that it was interrupted",
                ),
                libc::EINTR => {
                    self.interrupted += 1;
                    io::ErrorKind::Interrupted.into()
                }
                code => io::Error::from_raw_os_error(code),
            }),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
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

    unsafe extern "C" fn interrupted(context: *mut c_void, _: *mut c_void, _: usize) -> libc::ssize_t {
        // SAFETY: the test below hands in a number.
        let left = unsafe { &mut *context.cast::<u32>() };
        if *left == 0 {
            return 0;
        }
        *left -= 1;
        set_errno(libc::EINTR);
        -1
    }

    #[test]
    fn interruptions_are_tried_again_but_not_for_ever() {
        for (mut times, ends) in [(0, true), (100, true), (101, false), (u32::MAX, false)] {
            let context = (&raw mut times).cast();
            let wrapper = CIoReadWrapper { context, read: Some(interrupted), close: None, io_type: 0 };
            // SAFETY: the wrapper lives until the end of the loop's body.
            let mut stream = unsafe { CallerStream::new(&raw const wrapper, "content") }.unwrap().unwrap();
            assert_eq!(io::copy(&mut stream, &mut io::sink()).is_ok(), ends);
        }
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
