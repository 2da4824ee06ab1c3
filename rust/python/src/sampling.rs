//! Bindings of `llmdirect_core::sampling`.

use llmdirect_core::sampling::{self, Draw};
use numpy::{IntoPyArray, Ix1, PyArray2, PyArrayMethods};
use pyo3::prelude::*;

use crate::arrays::array;
use crate::csr::CheckedCsr;
use crate::gil::release_gil;

/// An alias table for sampling items in proportion to weights; immutable.
#[pyclass(frozen, module = "llmdirect._core")]
struct AliasTable(sampling::AliasTable);

#[pymethods]
impl AliasTable {
    #[new]
    fn new(py: Python<'_>, weights: &Bound<'_, PyAny>) -> PyResult<Self> {
        let weights = array::<f32, Ix1>("weights", weights)?;
        let weights = weights.as_slice()?;
        release_gil(py, |_| sampling::AliasTable::new(weights)).map(Self)
    }
}

/// Draws negatives of each user: int32 [users, num_negatives].
#[pyfunction]
#[pyo3(signature = (users, positives, num_items, num_negatives, *, weights=None, seed, draw))]
#[expect(clippy::too_many_arguments, reason = "keywords of one Python call")]
fn sample_negatives<'py>(
    py: Python<'py>,
    users: &Bound<'py, PyAny>,
    positives: &Bound<'py, CheckedCsr>,
    num_items: usize,
    num_negatives: usize,
    weights: Option<&Bound<'py, AliasTable>>,
    seed: u64,
    draw: u32,
) -> PyResult<Bound<'py, PyArray2<i32>>> {
    let users = array::<i32, Ix1>("users", users)?;
    let users = users.as_slice()?;
    let positives = &positives.get().0;
    let draw = Draw {
        num_items,
        num_negatives,
        weights: weights.map(|weights| &weights.get().0),
        seed,
        draw,
    };
    let negatives = release_gil(py, |cancel| {
        sampling::sample_negatives(users, positives, draw, cancel)
    })?;
    negatives
        .into_pyarray(py)
        .reshape([users.len(), num_negatives])
}

/// Adds this file's class and function to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<AliasTable>()?;
    module.add_function(wrap_pyfunction!(sample_negatives, module)?)
}
