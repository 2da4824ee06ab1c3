//! Bindings of `llmdirect_core::metrics`.

use llmdirect_core::metrics::{self, Metric};
use numpy::{IntoPyArray, Ix2, PyArray2, PyArrayMethods};
use pyo3::prelude::*;

use crate::arrays::{array, size};
use crate::csr::CheckedCsr;
use crate::gil::{release_gil, to_py_err};

/// Values of the metrics (name, cutoff) of each list: float64 [lists, metrics].
#[pyfunction]
fn list_metrics<'py>(
    py: Python<'py>,
    lists: &Bound<'py, PyAny>,
    relevant: &Bound<'py, CheckedCsr>,
    names: Vec<(String, Bound<'py, PyAny>)>,
) -> PyResult<Bound<'py, PyArray2<f64>>> {
    let lists = array::<i32, Ix2>("lists", lists)?;
    let (rows, width) = lists.as_array().dim();
    let lists = lists.as_slice()?; // shared: the core compares items, and uses none as an index
    let relevant = &relevant.get().0;
    let request = |(name, k): &(String, Bound<'py, PyAny>)| -> PyResult<(Metric, usize)> {
        let metric = metrics::by_name(name).map_err(|error| to_py_err(py, error))?;
        Ok((metric, size("k", k)?))
    };
    let requests: Vec<(Metric, usize)> = names.iter().map(request).collect::<PyResult<_>>()?;
    let values = release_gil(py, |cancel| {
        metrics::evaluate(lists, width, relevant, &requests, cancel)
    })?;
    values.into_pyarray(py).reshape([rows, names.len()])
}

/// Names of the metrics with a cutoff.
#[pyfunction]
fn list_metric_names() -> Vec<&'static str> {
    metrics::METRICS.iter().map(|(name, _)| *name).collect()
}

/// Adds this file's functions to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(list_metrics, module)?)?;
    module.add_function(wrap_pyfunction!(list_metric_names, module)?)
}
