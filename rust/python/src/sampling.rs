//! Bindings of `llmdirect_core::sampling`.

use llmdirect_core::sampling::{self, Draw};
use numpy::{IntoPyArray, PyArray2, PyArrayMethods};
use pyo3::prelude::*;

use crate::arrays::{copied, size};
use crate::csr::CheckedCsr;
use crate::gil::release_gil;

/// An alias table for sampling items in proportion to weights; immutable.
#[pyclass(frozen, module = "llmdirect._core")]
struct AliasTable(sampling::AliasTable);

#[pymethods]
impl AliasTable {
    #[new]
    fn new(py: Python<'_>, weights: &Bound<'_, PyAny>) -> PyResult<Self> {
        let weights: Vec<f32> = copied("weights", weights)?;
        release_gil(py, |_| sampling::AliasTable::new(&weights)).map(Self)
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
    num_items: &Bound<'py, PyAny>,
    num_negatives: &Bound<'py, PyAny>,
    weights: Option<&Bound<'py, AliasTable>>,
    seed: u64,
    draw: u32,
) -> PyResult<Bound<'py, PyArray2<i32>>> {
    // A copy: rows of the tables are read without another check once the users were checked.
    let users: Vec<i32> = copied("users", users)?;
    let num_negatives = size("num_negatives", num_negatives)?;
    let positives = &positives.get().0;
    let draw = Draw {
        num_items: size("num_items", num_items)?,
        num_negatives,
        weights: weights.map(|weights| &weights.get().0),
        seed,
        draw,
    };
    let negatives = release_gil(py, |cancel| {
        sampling::sample_negatives(&users, positives, draw, cancel)
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
