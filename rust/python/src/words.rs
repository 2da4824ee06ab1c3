//! Bindings of `llmdirect_core::words`.

use llmdirect_core::words::{self, Span};
use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;

use crate::gil::release_gil;

/// Words, runs of symbols and runs of white space, which together cover the text: int64 [n, 2].
#[pyfunction]
fn word_spans(py: Python<'_>, text: PyBackedStr) -> PyResult<Bound<'_, PyArray2<i64>>> {
    let spans = py.detach(|| words::spans(&text));
    to_array(py, spans.iter())
}

/// Counted words and their spans, int64 [n, 2].
#[pyfunction]
fn counted_words(
    py: Python<'_>,
    text: PyBackedStr,
) -> PyResult<(Vec<String>, Bound<'_, PyArray2<i64>>)> {
    let (spans, found): (Vec<Span>, Vec<String>) =
        py.detach(|| words::counted_words(&text).into_iter().unzip());
    Ok((found, to_array(py, spans.iter())?))
}

/// Counts of the words of texts: vocabulary, row pointers, words and counts.
#[pyfunction]
#[expect(clippy::type_complexity, reason = "a tuple of Python")]
fn count_words(
    py: Python<'_>,
    texts: Vec<PyBackedStr>,
) -> PyResult<(
    Vec<String>,
    Bound<'_, PyArray1<i64>>,
    Bound<'_, PyArray1<i64>>,
    Bound<'_, PyArray1<i64>>,
)> {
    let counts = release_gil(py, |cancel| words::count_words(&texts, cancel))?;
    Ok((
        counts.vocabulary,
        counts.indptr.into_pyarray(py),
        counts.words.into_pyarray(py),
        counts.counts.into_pyarray(py),
    ))
}

/// Characters of spans: int64 [n, 2].
fn to_array<'a, 'py>(
    py: Python<'py>,
    spans: impl Iterator<Item = &'a Span>,
) -> PyResult<Bound<'py, PyArray2<i64>>> {
    let borders: Vec<i64> = spans
        .flat_map(|span| [span.chars.start as i64, span.chars.end as i64])
        .collect();
    let count = borders.len() / 2;
    borders.into_pyarray(py).reshape([count, 2])
}

/// Adds this file's functions to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(word_spans, module)?)?;
    module.add_function(wrap_pyfunction!(counted_words, module)?)?;
    module.add_function(wrap_pyfunction!(count_words, module)?)
}
