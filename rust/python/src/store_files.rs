//! Bindings that write and verify single files of a store.

use std::path::PathBuf;

use llmdirect_core::npy::Dtype;
use llmdirect_core::store::{self, Chunk, FileEntry, NpyWriter};
use numpy::{PyArray1, PyArrayMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::door::leave_python;

/// A file's entry as a manifest has it.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Entry {
    name: String,
    bytes: u64,
    chunks: Vec<(u64, String)>,
}

impl TryFrom<Entry> for FileEntry {
    type Error = PyErr;

    fn try_from(entry: Entry) -> PyResult<Self> {
        let chunks = entry.chunks.into_iter().map(Chunk::try_from);
        Ok(FileEntry {
            name: entry.name,
            bytes: entry.bytes,
            chunks: chunks
                .collect::<Result<_, _>>()
                .map_err(PyValueError::new_err)?,
        })
    }
}

/// The entry as a dict that `json.dumps` writes into a manifest.
pub fn entry_to_python<'py>(py: Python<'py>, entry: FileEntry) -> PyResult<Bound<'py, PyDict>> {
    let chunks: Vec<(u64, String)> = entry.chunks.into_iter().map(Into::into).collect();
    let dict = PyDict::new(py);
    dict.set_item("name", entry.name)?;
    dict.set_item("bytes", entry.bytes)?;
    dict.set_item("chunks", chunks)?;
    Ok(dict)
}

/// The bytes of a C-contiguous array, without a copy.
fn flat_bytes<'py>(array: &Bound<'py, PyUntypedArray>) -> PyResult<Bound<'py, PyArray1<u8>>> {
    let flat = array
        .call_method1("reshape", (-1,))?
        .call_method1("view", ("uint8",))?;
    Ok(flat.cast_into::<PyArray1<u8>>()?)
}

/// Writes a C-contiguous array to `folder/<stem>-<hash>.npy`: all of it, synced, or nothing.
#[pyfunction]
fn write_store_file<'py>(
    py: Python<'py>,
    folder: PathBuf,
    stem: &str,
    array: &Bound<'py, PyUntypedArray>,
) -> PyResult<Bound<'py, PyDict>> {
    if !array.is_c_contiguous() {
        return Err(PyValueError::new_err(format!(
            "{stem}: array is not C-contiguous"
        )));
    }
    let descr: String = array.dtype().getattr("str")?.extract()?;
    let dtype = Dtype::parse(&descr)
        .ok_or_else(|| PyValueError::new_err(format!("{stem}: dtype {descr} is not stored")))?;
    let Some((_, tail)) = array
        .shape()
        .split_first()
        .filter(|(_, tail)| !tail.contains(&0))
    else {
        return Err(PyValueError::new_err(format!(
            "{stem}: shape {:?} has no rows, or rows without elements",
            array.shape()
        )));
    };
    let flat = flat_bytes(array)?;
    let flat = flat.readonly();
    let bytes = flat.as_slice()?;
    let entry = leave_python(py, |cancel| {
        let mut writer = NpyWriter::create(&folder, stem, dtype, tail)?;
        for block in bytes.chunks(store::CHUNK_BYTES) {
            cancel.check()?;
            writer.write(block)?;
        }
        writer.finish()?.commit()
    })?;
    entry_to_python(py, entry)
}

/// Checks a file against its manifest entry: header, length, checksums, name.
#[pyfunction]
fn verify_store_file(py: Python<'_>, folder: PathBuf, entry: Entry) -> PyResult<()> {
    let entry = FileEntry::try_from(entry)?;
    leave_python(py, |cancel| store::verify_file(&folder, &entry, cancel))
}

/// Adds this file's functions to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(write_store_file, module)?)?;
    module.add_function(wrap_pyfunction!(verify_store_file, module)?)
}
