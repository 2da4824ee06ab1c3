//! Bindings of `llmdirect_core::threads`.

use llmdirect_core::threads;
use pyo3::prelude::*;

use crate::arrays::size;
use crate::gil::{release_gil, to_py_err};

/// Sets the number of threads of all following calls, 1 to 256; results do not depend on it.
#[pyfunction]
fn set_num_threads(py: Python<'_>, count: &Bound<'_, PyAny>) -> PyResult<()> {
    threads::set_count(size("count", count)?).map_err(|error| to_py_err(py, error))
}

/// Number of threads that a parallel operation uses.
#[pyfunction]
fn num_threads(py: Python<'_>) -> PyResult<usize> {
    release_gil(py, |_| threads::count())
}

/// Adds this file's functions to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(set_num_threads, module)?)?;
    module.add_function(wrap_pyfunction!(num_threads, module)?)
}
