//! Checks of NumPy arguments and of sizes, and views of memory of the core.
//!
//! NumPy and torch release the GIL, too: while the core works, another thread may write to any array that was
//! passed in. So indices are copied ([`copied`]) before they are checked. Large arrays of numbers that are
//! only computed with or compared (score tables, weights, ranked lists, keys) stay shared ([`array`]): the
//! core takes no index, length or branch of an unsafe block from their values, so a write meanwhile makes
//! results meaningless, not memory unsafe.

use numpy::ndarray::{ArrayView1, Dimension};
use numpy::{
    Element, Ix1, PyArray, PyArray1, PyArrayMethods, PyReadonlyArray, PyUntypedArray,
    PyUntypedArrayMethods, dtype,
};
use pyo3::exceptions::{PyOverflowError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

/// Borrows `value` as a C-contiguous array of this dtype and number of axes.
///
/// # Errors
/// TypeError with the name of the argument, the expected array, and what was passed.
pub fn array<'py, T: Element, D: Dimension>(
    name: &str,
    value: &Bound<'py, PyAny>,
) -> PyResult<PyReadonlyArray<'py, T, D>> {
    if let Ok(array) = value.cast::<PyArray<T, D>>()
        && array.is_c_contiguous()
    {
        return Ok(array.try_readonly()?);
    }
    let axes = D::NDIM.map_or(String::new(), |axes| format!(" of {axes} axes"));
    let expected = format!("a C-contiguous {} array{axes}", dtype::<T>(value.py()));
    let found = match value.cast::<PyUntypedArray>() {
        Ok(array) => {
            let layout = if array.is_c_contiguous() {
                ""
            } else {
                "non-contiguous "
            };
            format!(
                "a {layout}{} array of shape {:?}",
                array.dtype(),
                array.shape()
            )
        }
        Err(_) => format!("{}", value.get_type().name()?),
    };
    Err(PyTypeError::new_err(format!(
        "{name} must be {expected}, got {found}"
    )))
}

/// A copy of `value`, an array as [`array`] expects it, of one axis.
///
/// # Errors
/// As [`array`].
pub fn copied<T: Element + Copy>(name: &str, value: &Bound<'_, PyAny>) -> PyResult<Vec<T>> {
    Ok(array::<T, Ix1>(name, value)?.as_slice()?.to_vec())
}

/// A size that a caller chose.
///
/// # Errors
/// TypeError if it is no integer; ValueError with its name if it is negative or too large for an address.
pub fn size(name: &str, value: &Bound<'_, PyAny>) -> PyResult<usize> {
    value.extract().map_err(|error: PyErr| {
        let py = value.py();
        if error.is_instance_of::<PyOverflowError>(py) {
            let shown = value.repr().map(|text| text.to_string());
            let shown = shown.unwrap_or_else(|_| "a huge number".into());
            let message = format!("`{name}`: {shown}, expected 0 to {}", isize::MAX);
            return PyValueError::new_err(message);
        }
        PyTypeError::new_err(format!("`{name}`: {}", error.value(py)))
    })
}

/// An array over `values` without a copy, read-only unless `writable`; it keeps `owner` alive.
///
/// NumPy lets nobody make a read-only one writable again, as its base is not an array.
///
/// # Errors
/// That of NumPy's `setflags`.
///
/// # Safety
/// `owner` owns `values`, and neither moves nor changes them while it lives; for `writable`, their memory can
/// be written to and the core relies on none of their values.
pub unsafe fn view<'py, T: Element>(
    owner: Bound<'py, PyAny>,
    values: &[T],
    writable: bool,
) -> PyResult<Bound<'py, PyArray1<T>>> {
    let flags = PyDict::new(owner.py());
    flags.set_item("write", false)?;
    // SAFETY: as above.
    let array = unsafe { PyArray1::borrow_from_array(&ArrayView1::from(values), owner) };
    if !writable {
        array.call_method("setflags", (), Some(&flags))?;
    }
    Ok(array)
}
