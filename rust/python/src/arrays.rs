//! Type checks of NumPy arguments.

use numpy::{
    Element, PyArray, PyArrayMethods, PyReadonlyArray, PyUntypedArray, PyUntypedArrayMethods,
};
use numpy::{dtype, ndarray::Dimension};
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;

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
