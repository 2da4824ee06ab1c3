//! Bindings of `llmdirect_core::csr`.

use llmdirect_core as core;
use numpy::ndarray::ArrayView1;
use numpy::{Element, Ix1, PyArray1, PyArrayMethods};
use pyo3::prelude::*;

use crate::arrays::array;
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
        let indptr = array::<i64, Ix1>("indptr", indptr)?.as_slice()?.to_vec();
        let indices = array::<i32, Ix1>("indices", indices)?.as_slice()?.to_vec();
        release_gil(py, |_| core::Csr::new(indptr, indices)).map(Self)
    }

    /// Read-only view of the row pointers: int64 [rows + 1].
    #[getter]
    fn indptr<'py>(this: Bound<'py, Self>) -> Bound<'py, PyArray1<i64>> {
        view(&this, this.get().0.indptr())
    }

    /// Read-only view of the indices of all rows: int32 [nnz].
    #[getter]
    fn indices<'py>(this: Bound<'py, Self>) -> Bound<'py, PyArray1<i32>> {
        view(&this, this.get().0.indices())
    }
}

/// A read-only array over `values`, which `owner` must own; it keeps `owner` alive.
fn view<'py, T: Element>(owner: &Bound<'py, CheckedCsr>, values: &[T]) -> Bound<'py, PyArray1<T>> {
    // SAFETY: a frozen class never moves or changes its vectors, the array holds a reference to the owner,
    // and it is made read-only before it is returned.
    let array =
        unsafe { PyArray1::borrow_from_array(&ArrayView1::from(values), owner.clone().into_any()) };
    array.readwrite().make_nonwriteable();
    array
}

/// Adds this file's class to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<CheckedCsr>()
}
