//! Bindings of `llmdirect_core::csr`.

use llmdirect_core as core;
use numpy::PyArray1;
use pyo3::prelude::*;

use crate::arrays::{copied, view};
use crate::gil::release_gil;

/// A validated CSR table of sorted unique indices; immutable.
#[pyclass(frozen, module = "llmdirect._core")]
pub struct CheckedCsr(pub core::Csr);

#[pymethods]
impl CheckedCsr {
    #[new]
    fn new(
        py: Python<'_>,
        indptr: &Bound<'_, PyAny>,
        indices: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let indptr = copied("indptr", indptr)?;
        let indices = copied("indices", indices)?;
        release_gil(py, |_| core::Csr::new(indptr, indices)).map(Self)
    }

    /// Read-only view of the row pointers: int64 [rows + 1].
    #[getter]
    fn indptr<'py>(this: Bound<'py, Self>) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let owner = this.clone().into_any();
        // SAFETY: a frozen class never moves or changes its vectors.
        unsafe { view(owner, this.get().0.indptr(), false) }
    }

    /// Read-only view of the indices of all rows: int32 [nnz].
    #[getter]
    fn indices<'py>(this: Bound<'py, Self>) -> PyResult<Bound<'py, PyArray1<i32>>> {
        let owner = this.clone().into_any();
        // SAFETY: as for `indptr`.
        unsafe { view(owner, this.get().0.indices(), false) }
    }
}

/// Adds this file's class to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<CheckedCsr>()
}
