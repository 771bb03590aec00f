// SPDX-License-Identifier: MulanPSL-2.0
//! C to Rust: every pointer is checked before it is used, and refused by its parameter's name.

use std::ffi::{CStr, c_char};
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::ffi::cmem;
use crate::ffi::types::{CJsonMapStringString, CTimestamp};
use crate::time::Timestamp;

/// Refuses a parameter that is NULL.
fn null(name: &str) -> Error {
    Error::invalid(format!("{name} is NULL"))
}

/// Text that has to be given.
///
/// # Safety
/// `pointer` is NULL or a NUL-terminated string that lives and does not change as long as the result is used.
pub(crate) unsafe fn text<'a>(pointer: *const c_char, name: &str) -> Result<&'a str> {
    // SAFETY: the caller's promise.
    unsafe { optional_text(pointer, name) }?.ok_or_else(|| null(name))
}

/// Text that may be NULL.
///
/// # Safety
/// As for [`text`].
pub(crate) unsafe fn optional_text<'a>(pointer: *const c_char, name: &str) -> Result<Option<&'a str>> {
    if pointer.is_null() {
        return Ok(None);
    }
    // SAFETY: not NULL; the rest is the caller's promise.
    let bytes = unsafe { CStr::from_ptr(pointer) };
    let text = bytes
        .to_str()
        .map_err(|error| Error::with_source(ErrorKind::NotUtf8, format!("{name} is not UTF-8"), error))?;
    Ok(Some(text))
}

/// `len` texts; NULL is fine when `len` is 0.
///
/// # Safety
/// `array` is NULL or points to `len` pointers, each as for [`text`].
pub(crate) unsafe fn texts(array: *const *const c_char, len: usize, name: &str) -> Result<Vec<String>> {
    if len == 0 {
        return Ok(Vec::new());
    }
    if array.is_null() {
        return Err(null(name));
    }
    let mut all = Vec::new();
    for index in 0..len {
        // SAFETY: below `len`: the caller's promise.
        let element = unsafe { *array.add(index) };
        // SAFETY: the caller's promise.
        all.push(unsafe { text(element, &format!("{name}[{index}]")) }?.to_owned());
    }
    Ok(all)
}

/// At least one text.
///
/// # Safety
/// As for [`texts`].
pub(crate) unsafe fn some_texts(array: *const *const c_char, len: usize, name: &str) -> Result<Vec<String>> {
    if array.is_null() {
        return Err(null(name));
    }
    if len == 0 {
        return Err(Error::invalid(format!("{name} is empty")));
    }
    // SAFETY: the caller's promise.
    unsafe { texts(array, len, name) }
}

/// Path of a directory. An empty one would mean the working directory, which nobody asks for on purpose.
///
/// # Safety
/// As for [`text`].
pub(crate) unsafe fn path<'a>(pointer: *const c_char, name: &str) -> Result<&'a Path> {
    // SAFETY: the caller's promise.
    let text = unsafe { text(pointer, name) }?;
    if text.is_empty() { Err(Error::invalid(format!("{name} is empty"))) } else { Ok(Path::new(text)) }
}

/// Bytes up to a NUL, whatever they are.
///
/// # Safety
/// As for [`text`].
pub(crate) unsafe fn bytes<'a>(pointer: *const c_char, name: &str) -> Result<&'a [u8]> {
    if pointer.is_null() {
        return Err(null(name));
    }
    // SAFETY: not NULL; the rest is the caller's promise.
    Ok(unsafe { CStr::from_ptr(pointer) }.to_bytes())
}

/// Something that has to be given.
///
/// # Safety
/// `pointer` is NULL or points to a `T` that lives and does not change as long as the result is used.
pub(crate) unsafe fn required<'a, T>(pointer: *const T, name: &str) -> Result<&'a T> {
    // SAFETY: the caller's promise.
    unsafe { pointer.as_ref() }.ok_or_else(|| null(name))
}

/// Where a result goes. Checked before the work, written after it.
#[derive(Debug)]
pub(crate) struct Out<T>(*mut T);

impl<T> Out<T> {
    /// Writes the result.
    pub(crate) fn set(self, value: T) {
        // SAFETY: the promise given to `out`. What was there is not dropped: it is the caller's.
        unsafe { self.0.write(value) }
    }
}

/// A place for a result that has to be given.
///
/// # Safety
/// `pointer` is NULL or may be written until the result is dropped.
pub(crate) unsafe fn out<T>(pointer: *mut T, name: &str) -> Result<Out<T>> {
    if pointer.is_null() { Err(null(name)) } else { Ok(Out(pointer)) }
}

/// Where an array of texts and its length go.
#[derive(Debug)]
pub(crate) struct OutTexts(Out<*mut *mut c_char>, Out<usize>);

impl OutTexts {
    /// Writes both; NULL and 0 when there are none.
    pub(crate) fn set<S: AsRef<str>>(self, texts: &[S]) -> Result<()> {
        let (array, len) = cmem::texts(texts)?;
        self.0.set(array);
        self.1.set(len);
        Ok(())
    }
}

/// Places for an array of texts and its length; both have to be given.
///
/// # Safety
/// As for [`out`].
pub(crate) unsafe fn out_texts(
    array: *mut *mut *mut c_char,
    len: *mut usize,
    array_name: &str,
    len_name: &str,
) -> Result<OutTexts> {
    // SAFETY: the caller's promise.
    Ok(OutTexts(unsafe { out(array, array_name) }?, unsafe { out(len, len_name) }?))
}

/// A map that may be NULL, in its order.
///
/// # Safety
/// `map` is NULL or points to a map of libisula with `len` keys and values.
pub(crate) unsafe fn map(map: *const CJsonMapStringString, name: &str) -> Result<Vec<(String, String)>> {
    // SAFETY: the caller's promise.
    let Some(map) = (unsafe { map.as_ref() }) else { return Ok(Vec::new()) };
    // SAFETY: the caller's promise.
    let keys = unsafe { texts(map.keys.cast_const().cast(), map.len, &format!("{name}->keys")) }?;
    // SAFETY: the caller's promise.
    let values = unsafe { texts(map.values.cast_const().cast(), map.len, &format!("{name}->values")) }?;
    Ok(keys.into_iter().zip(values).collect())
}

/// A point in time that may be absent: neither seconds nor nanoseconds. Nanoseconds without seconds are refused.
pub(crate) fn time(time: &CTimestamp, name: &str) -> Result<Option<Timestamp>> {
    if !time.has_seconds && !time.has_nanos {
        return Ok(None);
    }
    if !time.has_seconds {
        return Err(Error::invalid(format!("{name} has nanoseconds, but no seconds")));
    }
    let nanos = if time.has_nanos { time.nanos } else { 0 };
    let nanos = u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    let nanos = nanos.ok_or_else(|| Error::invalid(format!("{name} has nanoseconds outside of a second")))?;
    Ok(Some(Timestamp { seconds: time.seconds, nanos }))
}
