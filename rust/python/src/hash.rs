//! Bindings of `llmdirect_core::hash`.

use llmdirect_core::hash;
use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods};
use pyo3::prelude::*;

use crate::gil::release_gil;

/// Key of each passage, a hash of its text: uint8 [n, 16].
#[pyfunction]
fn passage_keys<'py>(py: Python<'py>, texts: Vec<String>) -> PyResult<Bound<'py, PyArray2<u8>>> {
    let count = texts.len();
    let bytes: Vec<u8> = release_gil(py, |_| {
        Ok(texts.iter().flat_map(|t| hash::passage_key(t)).collect())
    })?;
    bytes.into_pyarray(py).reshape([count, 16])
}

/// Seeded 64-bit hash of each string: uint64 [n].
#[pyfunction]
#[pyo3(signature = (texts, seed=0))]
fn hash_strings(
    py: Python<'_>,
    texts: Vec<String>,
    seed: u64,
) -> PyResult<Bound<'_, PyArray1<u64>>> {
    let hashes: Vec<u64> = release_gil(py, |_| {
        Ok(texts.iter().map(|t| hash::seeded_hash(t, seed)).collect())
    })?;
    Ok(hashes.into_pyarray(py))
}

/// Adds this file's functions to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(passage_keys, module)?)?;
    module.add_function(wrap_pyfunction!(hash_strings, module)?)
}
