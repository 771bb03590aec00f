// SPDX-License-Identifier: MulanPSL-2.0
//! Memory that belongs to C: from malloc, zeroed, deep, so that C's `free` and libisula's `free_*` work on it.
//!
//! A result is built inside a [`CBox`] or [`CArray`], which frees everything built so far when a later step fails, and
//! is handed over whole by `into_raw`.

use std::ffi::{c_char, c_void};
use std::mem::size_of;
use std::ops::{Deref, DerefMut};
use std::ptr;

use crate::error::{Error, ErrorKind, Result};

/// A struct of the C ABI whose members are malloc'ed.
///
/// # Safety
/// All zero bytes are a valid value that owns nothing.
pub(crate) unsafe trait Members {
    /// Frees everything the members own. Called once for a value; it is not used afterwards.
    ///
    /// # Safety
    /// Every pointer is NULL or malloc'ed, as this library makes them.
    unsafe fn free_members(&mut self);
}

/// `count` zeroed values of `size` bytes.
fn allocate(count: usize, size: usize) -> Result<*mut c_void> {
    // At least one byte: an empty array is not NULL.
    // SAFETY: calloc may be called with any sizes; it checks the product.
    let pointer = unsafe { libc::calloc(count.max(1), size.max(1)) };
    if pointer.is_null() {
        return Err(out_of_memory(count, size));
    }
    Ok(pointer)
}

#[cold]
fn out_of_memory(count: usize, size: usize) -> Error {
    let message = format!("allocate {count} times {size} bytes: out of memory");
    Error::new(ErrorKind::Os(libc::ENOMEM), message)
}

/// Frees one malloc'ed block; NULL is fine.
///
/// # Safety
/// `pointer` is NULL or came from malloc and is not used afterwards.
pub(crate) unsafe fn release<T>(pointer: *mut T) {
    // SAFETY: the caller's promise.
    unsafe { libc::free(pointer.cast()) }
}

/// A malloc'ed block of at least one byte, with anything in it.
pub(crate) fn block(size: usize) -> Result<*mut u8> {
    // SAFETY: malloc may be called with any size.
    let pointer: *mut u8 = unsafe { libc::malloc(size.max(1)) }.cast();
    if pointer.is_null() { Err(out_of_memory(size, 1)) } else { Ok(pointer) }
}

/// A malloc'ed NUL-terminated copy.
pub(crate) fn bytes(bytes: &[u8]) -> Result<*mut c_char> {
    // Not zeroed: nothing else is as fast as malloc where blocks of this size were just freed.
    let pointer = block(bytes.len().saturating_add(1))?;
    // SAFETY: the block has one byte more than `bytes`.
    unsafe {
        ptr::copy_nonoverlapping(bytes.as_ptr(), pointer, bytes.len());
        pointer.add(bytes.len()).write(0);
    }
    Ok(pointer.cast())
}

/// A malloc'ed copy. A NUL inside ends it for C.
pub(crate) fn text(text: &str) -> Result<*mut c_char> {
    bytes(text.as_bytes())
}

/// A malloc'ed copy, NULL for `None`.
pub(crate) fn optional_text(value: Option<&str>) -> Result<*mut c_char> {
    value.map_or(Ok(ptr::null_mut()), text)
}

/// A malloc'ed array of malloc'ed texts, for a pointer and a length member; NULL and 0 when there are none.
pub(crate) fn set_texts<S: AsRef<str>>(
    array: &mut *mut *mut c_char,
    len: &mut usize,
    texts: &[S],
) -> Result<()> {
    if texts.is_empty() {
        return Ok(());
    }
    // The length is raised with each element: what is freed after an error is what exists.
    *array = allocate(texts.len(), size_of::<*mut c_char>())?.cast();
    for element in texts {
        let copy = text(element.as_ref())?;
        // SAFETY: `len` is below the number of elements that were allocated.
        unsafe { (*array).add(*len).write(copy) };
        *len += 1;
    }
    Ok(())
}

/// A malloc'ed array of malloc'ed texts; NULL and 0 when there are none.
pub(crate) fn texts<S: AsRef<str>>(texts: &[S]) -> Result<(*mut *mut c_char, usize)> {
    let (mut array, mut len) = (ptr::null_mut(), 0);
    if let Err(error) = set_texts(&mut array, &mut len, texts) {
        // SAFETY: `len` texts were made, and are not used any more.
        unsafe { release_texts(array, len) };
        return Err(error);
    }
    Ok((array, len))
}

/// Frees an array of `len` malloc'ed texts; NULL is fine.
///
/// # Safety
/// `array` is NULL or malloc'ed with `len` elements, each NULL or malloc'ed; none is used afterwards.
pub(crate) unsafe fn release_texts(array: *mut *mut c_char, len: usize) {
    if !array.is_null() {
        for index in 0..len {
            // SAFETY: below `len`: the caller's promise.
            unsafe { release(*array.add(index)) };
        }
    }
    // SAFETY: the caller's promise.
    unsafe { release(array) }
}

/// One malloc'ed, zeroed struct and all its members.
#[derive(Debug)]
pub(crate) struct CBox<T: Members>(*mut T);

impl<T: Members> CBox<T> {
    /// A zeroed struct.
    pub(crate) fn zeroed() -> Result<Self> {
        Ok(CBox(allocate(1, size_of::<T>())?.cast()))
    }

    /// Hands it over to C.
    pub(crate) fn into_raw(self) -> *mut T {
        std::mem::ManuallyDrop::new(self).0
    }

    /// Hands over what it holds, for a struct that the caller provides; the block itself is freed.
    pub(crate) fn into_value(self) -> T {
        let pointer = self.into_raw();
        // SAFETY: `zeroed` made it, and it owns a valid value that moves out.
        let value = unsafe { pointer.read() };
        // SAFETY: malloc'ed by `zeroed`; the members live on in `value`.
        unsafe { release(pointer) };
        value
    }
}

impl<T: Members> Deref for CBox<T> {
    type Target = T;
    fn deref(&self) -> &T {
        // SAFETY: `zeroed` made it; zero bytes are a valid `T` (promise of `Members`).
        unsafe { &*self.0 }
    }
}

impl<T: Members> DerefMut for CBox<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`; `&mut self` makes it unique.
        unsafe { &mut *self.0 }
    }
}

impl<T: Members> Drop for CBox<T> {
    fn drop(&mut self) {
        // SAFETY: made by `zeroed` and not handed over.
        unsafe { free(self.0) }
    }
}

/// Frees a struct and all its members; NULL is fine.
///
/// # Safety
/// `pointer` is NULL or malloc'ed with members as this library makes them, and is not used afterwards.
pub(crate) unsafe fn free<T: Members>(pointer: *mut T) {
    // SAFETY: the caller's promise.
    if let Some(value) = unsafe { pointer.as_mut() } {
        // SAFETY: the caller's promise.
        unsafe { value.free_members() };
    }
    // SAFETY: the caller's promise.
    unsafe { release(pointer) }
}

/// Frees the members of a struct that the caller provided, and zeroes it; NULL is fine.
///
/// # Safety
/// `pointer` is NULL or points to a struct whose members are as this library makes them.
pub(crate) unsafe fn clear<T: Members>(pointer: *mut T) {
    // SAFETY: the caller's promise.
    if let Some(value) = unsafe { pointer.as_mut() } {
        // SAFETY: the caller's promise.
        unsafe { value.free_members() };
        // SAFETY: zero bytes are a valid `T` (promise of `Members`).
        unsafe { ptr::write_bytes(pointer, 0, 1) };
    }
}

/// Frees an array of `len` malloc'ed structs and the structs; NULL is fine.
///
/// # Safety
/// `array` is NULL or malloc'ed with `len` elements, each as for [`free`].
pub(crate) unsafe fn free_pointers<T: Members>(array: *mut *mut T, len: usize) {
    if !array.is_null() {
        for index in 0..len {
            // SAFETY: below `len`: the caller's promise.
            unsafe { free(*array.add(index)) };
        }
    }
    // SAFETY: the caller's promise.
    unsafe { release(array) }
}

/// Frees one array that holds `len` structs; NULL is fine.
///
/// # Safety
/// `array` is NULL or malloc'ed with `len` structs whose members are as this library makes them.
pub(crate) unsafe fn free_array<T: Members>(array: *mut T, len: usize) {
    if !array.is_null() {
        for index in 0..len {
            // SAFETY: below `len`: the caller's promise.
            unsafe { (*array.add(index)).free_members() };
        }
    }
    // SAFETY: the caller's promise.
    unsafe { release(array) }
}

/// A malloc'ed array that holds structs one behind the other.
#[derive(Debug)]
pub(crate) struct CArray<T: Members> {
    start: *mut T,
    len: usize,
}

impl<T: Members> CArray<T> {
    /// Converts all of `values`.
    pub(crate) fn collect<V>(values: &[V], convert: impl Fn(&V) -> Result<CBox<T>>) -> Result<Self> {
        let mut array: CArray<T> = CArray { start: allocate(values.len(), size_of::<T>())?.cast(), len: 0 };
        for value in values {
            let element = convert(value)?.into_value();
            // SAFETY: `len` is below the number of elements that were allocated.
            unsafe { array.start.add(array.len).write(element) };
            array.len += 1;
        }
        Ok(array)
    }

    /// Hands it over to C.
    pub(crate) fn into_raw(self) -> (*mut T, usize) {
        let array = std::mem::ManuallyDrop::new(self);
        (array.start, array.len)
    }
}

impl<T: Members> Drop for CArray<T> {
    fn drop(&mut self) {
        // SAFETY: made by `collect` and not handed over.
        unsafe { free_array(self.start, self.len) }
    }
}

/// A malloc'ed array of pointers to malloc'ed structs, for a pointer and a length member. Never NULL afterwards.
pub(crate) fn set_pointers<T: Members, V>(
    array: &mut *mut *mut T,
    len: &mut usize,
    values: &[V],
    convert: impl Fn(&V) -> Result<CBox<T>>,
) -> Result<()> {
    *array = allocate(values.len(), size_of::<*mut T>())?.cast();
    for value in values {
        let element = convert(value)?.into_raw();
        // SAFETY: `len` is below the number of elements that were allocated.
        unsafe { (*array).add(*len).write(element) };
        *len += 1;
    }
    Ok(())
}

/// A malloc'ed array of pointers to malloc'ed structs, one for each of `values`. Never NULL.
pub(crate) fn pointers<T: Members, V>(
    values: &[V],
    convert: impl Fn(&V) -> Result<CBox<T>>,
) -> Result<*mut *mut T> {
    let (mut array, mut len) = (ptr::null_mut(), 0);
    if let Err(error) = set_pointers(&mut array, &mut len, values, convert) {
        // SAFETY: `len` structs were made, and are not used any more.
        unsafe { free_pointers(array, len) };
        return Err(error);
    }
    Ok(array)
}

/// A malloc'ed array of numbers.
pub(crate) fn numbers(values: &[i64]) -> Result<*mut i64> {
    let pointer: *mut i64 = allocate(values.len(), size_of::<i64>())?.cast();
    // SAFETY: the block holds as many.
    unsafe { ptr::copy_nonoverlapping(values.as_ptr(), pointer, values.len()) };
    Ok(pointer)
}
