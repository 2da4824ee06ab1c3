//! Bindings of consolidation.

use std::path::PathBuf;

use llmdirect_core::store::{self, Joined};
use llmdirect_core::{Cancel, Error};
use numpy::PyReadonlyArray1;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::gil::release_gil;
use crate::store_files::entry_to_python;

/// Runs `work` outside Python with a progress function that calls back into it.
fn with_progress<T: Send>(
    py: Python<'_>,
    progress: Py<PyAny>,
    work: impl FnOnce(store::OnBytes<'_>, &Cancel) -> Result<T, Error> + Send,
) -> PyResult<T> {
    let mut raised: Option<PyErr> = None;
    let outcome = release_gil(py, |cancel| {
        let mut on_bytes = |bytes: u64| {
            if let Err(error) = Python::attach(|py| progress.call1(py, (bytes,))) {
                raised.get_or_insert(error);
                cancel.set();
            }
        };
        work(&mut on_bytes, cancel)
    });
    match raised {
        Some(error) => Err(error),
        None => outcome,
    }
}

/// The data part of a store's manifest.
fn joined_to_python(py: Python<'_>, joined: Joined) -> PyResult<Bound<'_, PyDict>> {
    let files = PyDict::new(py);
    let entries = [
        ("tokens", Some(joined.files.tokens)),
        ("offsets", Some(joined.files.offsets)),
        ("spans", Some(joined.files.spans)),
        ("keys", Some(joined.files.keys)),
        ("scales", joined.files.scales),
        ("channels", joined.files.channels),
        ("checksums", joined.files.checksums),
    ];
    for (name, entry) in entries {
        if let Some(entry) = entry {
            files.set_item(name, entry_to_python(py, &entry)?)?;
        }
    }
    let dict = PyDict::new(py);
    dict.set_item("dtype", joined.dtype.name())?;
    dict.set_item("dim", joined.dim)?;
    dict.set_item("rows", joined.rows)?;
    dict.set_item("passages", joined.passages)?;
    dict.set_item("files", files)?;
    Ok(dict)
}

/// Joins shards into the data files of a store in `out`; `progress` gets bytes done. `kept` bool [passages] of each
/// shard, or None for all of them.
#[pyfunction]
#[pyo3(signature = (shards, out, progress, kept=None))]
fn consolidate_shards<'py>(
    py: Python<'py>,
    shards: Vec<PathBuf>,
    out: PathBuf,
    progress: Py<PyAny>,
    kept: Option<Vec<Option<PyReadonlyArray1<'py, bool>>>>,
) -> PyResult<Bound<'py, PyDict>> {
    let mut chosen = vec![None; shards.len()];
    for (place, kept) in kept.into_iter().flatten().enumerate() {
        let choice = kept
            .map(|kept| kept.as_slice().map(<[bool]>::to_vec))
            .transpose()?;
        match chosen.get_mut(place) {
            Some(slot) => *slot = choice,
            None => return Err(PyValueError::new_err("kept is longer than shards")),
        }
    }
    let joined = with_progress(py, progress, |on_bytes, cancel| {
        store::consolidate_shards(&shards, &chosen, &out, on_bytes, cancel)
    })?;
    joined_to_python(py, joined)
}

/// A folder in the published format.
#[pyclass(frozen, module = "llmdirect._core")]
struct Published(store::Published);

#[pymethods]
impl Published {
    /// Lists the folder and checks its numbering.
    #[staticmethod]
    fn open(py: Python<'_>, folder: PathBuf) -> PyResult<Self> {
        release_gil(py, |_| store::Published::open(&folder)).map(Published)
    }

    /// Bytes of data in all files.
    #[getter]
    fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    /// Number of documents of `user` or `item`.
    fn documents(&self, side: &str) -> usize {
        self.0.documents(side)
    }

    /// Writes the padded arrays: one (name, shape, dtype) a file.
    fn write_padded(
        &self,
        py: Python<'_>,
        out: PathBuf,
        progress: Py<PyAny>,
    ) -> PyResult<Vec<(String, Vec<usize>, String)>> {
        let padded = with_progress(py, progress, |on_bytes, cancel| {
            self.0.write_padded(&out, on_bytes, cancel)
        })?;
        Ok(padded
            .into_iter()
            .map(|file| (file.name, file.shape, file.dtype.to_string()))
            .collect())
    }

    /// Writes the data files of a store.
    fn write_store<'py>(
        &self,
        py: Python<'py>,
        out: PathBuf,
        dtype: &str,
        progress: Py<PyAny>,
    ) -> PyResult<Bound<'py, PyDict>> {
        let joined = with_progress(py, progress, |on_bytes, cancel| {
            self.0.write_store(&out, dtype.parse()?, on_bytes, cancel)
        })?;
        joined_to_python(py, joined)
    }
}

/// Adds this file's functions and classes to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Published>()?;
    module.add_function(wrap_pyfunction!(consolidate_shards, module)?)
}
