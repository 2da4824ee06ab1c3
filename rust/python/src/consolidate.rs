//! Bindings of `llmdirect_core::store`: consolidation of shards and of `.npy` folders.

use std::path::PathBuf;

use llmdirect_core::store::{self, StoreFiles};
use llmdirect_core::{Cancel, Error};
use numpy::{PyArray1, PyArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::gil::release_gil;
use crate::store_files::file_entry_to_dict;

/// Runs `work` without the GIL; its progress callback calls the Python function `callback`, whose exception
/// cancels the work.
fn with_progress<T: Send>(
    py: Python<'_>,
    callback: Py<PyAny>,
    work: impl FnOnce(store::Progress<'_>, &Cancel) -> Result<T, Error> + Send,
) -> PyResult<T> {
    let mut callback_error: Option<PyErr> = None;
    let outcome = release_gil(py, |cancel| {
        let mut progress = |bytes: u64| {
            if let Err(error) = Python::attach(|py| callback.call1(py, (bytes,))) {
                callback_error.get_or_insert(error);
                cancel.set();
            }
        };
        work(&mut progress, cancel)
    });
    match callback_error {
        Some(error) => Err(error),
        None => outcome,
    }
}

/// The part of a store's manifest that describes its data, as a dict.
fn store_files_to_dict(py: Python<'_>, store_files: StoreFiles) -> PyResult<Bound<'_, PyDict>> {
    let files = PyDict::new(py);
    let entries = [
        ("tokens", Some(store_files.files.tokens)),
        ("offsets", Some(store_files.files.offsets)),
        ("spans", Some(store_files.files.spans)),
        ("keys", Some(store_files.files.keys)),
        ("scales", store_files.files.scales),
        ("channels", store_files.files.channels),
        ("checksums", store_files.files.checksums),
    ];
    for (name, entry) in entries {
        if let Some(entry) = entry {
            files.set_item(name, file_entry_to_dict(py, &entry)?)?;
        }
    }
    let dict = PyDict::new(py);
    dict.set_item("dtype", store_files.dtype.name())?;
    dict.set_item("dim", store_files.dim)?;
    dict.set_item("rows", store_files.rows)?;
    dict.set_item("passages", store_files.passages)?;
    dict.set_item("files", files)?;
    Ok(dict)
}

/// Concatenates shards into the data files of a store in `out`. `progress` is called with numbers of bytes;
/// `kept` selects passages of each shard, bool [passages], or None for all.
#[pyfunction]
#[pyo3(signature = (shards, out, progress, kept=None))]
fn consolidate_shards<'py>(
    py: Python<'py>,
    shards: Vec<PathBuf>,
    out: PathBuf,
    progress: Py<PyAny>,
    kept: Option<Vec<Option<Bound<'py, PyArray1<bool>>>>>,
) -> PyResult<Bound<'py, PyDict>> {
    let mut selected = vec![None; shards.len()];
    for (index, kept) in kept.into_iter().flatten().enumerate() {
        let selection = kept.map(|kept| copied_flags(&kept)).transpose()?;
        match selected.get_mut(index) {
            Some(slot) => *slot = selection,
            None => {
                return Err(PyValueError::new_err(
                    "kept has more entries than there are shards",
                ));
            }
        }
    }
    let store_files = with_progress(py, progress, |progress, cancel| {
        store::consolidate_shards(&shards, &selected, &out, progress, cancel)
    })?;
    store_files_to_dict(py, store_files)
}

/// A copy of an array of bool. NumPy stores any byte in one, of which Rust knows 0 and 1 only.
fn copied_flags(flags: &Bound<'_, PyArray1<bool>>) -> PyResult<Vec<bool>> {
    let bytes = flags.call_method1("view", ("uint8",))?;
    let bytes = bytes.cast_into::<PyArray1<u8>>()?.try_readonly()?;
    Ok(bytes.as_array().iter().map(|&byte| byte != 0).collect())
}

/// A folder of one `.npy` file per document, the format of the published code.
#[pyclass(frozen, module = "llmdirect._core")]
struct Published(store::NpyFolder);

#[pymethods]
impl Published {
    /// Opens a folder and checks the numbering of its files.
    #[staticmethod]
    fn open(py: Python<'_>, folder: PathBuf) -> PyResult<Self> {
        release_gil(py, |_| store::NpyFolder::open(&folder)).map(Published)
    }

    /// Data bytes of all files.
    #[getter]
    fn bytes(&self) -> u64 {
        self.0.bytes()
    }

    /// Number of documents of a side, `user` or `item`.
    fn documents(&self, side: &str) -> usize {
        self.0.documents(side)
    }

    /// Writes one padded array per subfolder; returns (name, shape, dtype) of each.
    fn write_padded(
        &self,
        py: Python<'_>,
        out: PathBuf,
        progress: Py<PyAny>,
    ) -> PyResult<Vec<(String, Vec<usize>, String)>> {
        let padded = with_progress(py, progress, |progress, cancel| {
            self.0.write_padded(&out, progress, cancel)
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
        let store_files = with_progress(py, progress, |progress, cancel| {
            self.0.write_store(&out, dtype.parse()?, progress, cancel)
        })?;
        store_files_to_dict(py, store_files)
    }
}

/// Adds this file's functions and classes to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Published>()?;
    module.add_function(wrap_pyfunction!(consolidate_shards, module)?)
}
