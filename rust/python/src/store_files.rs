//! Bindings of `llmdirect_core::store` that write data files.

use std::path::PathBuf;

use llmdirect_core::npy::Dtype;
use llmdirect_core::store::{self, FileEntry, NpyWriter, write_checksums};
use numpy::{PyArray1, PyArrayMethods, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::gil::release_gil;

/// The entry of a file in a manifest, as a dict.
pub fn file_entry_to_dict<'py>(py: Python<'py>, entry: &FileEntry) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    dict.set_item("name", &entry.name)?;
    dict.set_item("bytes", entry.bytes)?;
    Ok(dict)
}

/// The bytes of a C-contiguous array, without a copy.
fn flat_bytes<'py>(array: &Bound<'py, PyUntypedArray>) -> PyResult<Bound<'py, PyArray1<u8>>> {
    let flat = array
        .call_method1("reshape", (-1,))?
        .call_method1("view", ("uint8",))?;
    Ok(flat.cast_into::<PyArray1<u8>>()?)
}

/// Writes each C-contiguous array to `folder/<name>-<content hash>.npy`, synced, and a checksums file;
/// returns the entry of each file for the manifest.
#[pyfunction]
fn write_store_files<'py>(
    py: Python<'py>,
    folder: PathBuf,
    arrays: Vec<(String, Bound<'py, PyUntypedArray>)>,
) -> PyResult<Bound<'py, PyDict>> {
    let entries = PyDict::new(py);
    let mut all_chunks = Vec::new();
    for (stem, array) in &arrays {
        let (entry, chunks) = write_array(py, &folder, stem, array)?;
        entries.set_item(stem, file_entry_to_dict(py, &entry)?)?;
        all_chunks.extend(chunks);
    }
    let checksums = release_gil(py, |_| write_checksums(&folder, &all_chunks))?;
    entries.set_item("checksums", file_entry_to_dict(py, &checksums)?)?;
    Ok(entries)
}

/// Writes one array; returns its entry and checksums.
fn write_array(
    py: Python<'_>,
    folder: &std::path::Path,
    stem: &str,
    array: &Bound<'_, PyUntypedArray>,
) -> PyResult<(FileEntry, Vec<store::Chunk>)> {
    if !array.is_c_contiguous() {
        return Err(PyValueError::new_err(format!(
            "{stem}: array is not C-contiguous; use np.ascontiguousarray"
        )));
    }
    let descr: String = array.dtype().getattr("str")?.extract()?;
    let dtype = Dtype::parse(&descr).ok_or_else(|| {
        PyValueError::new_err(format!(
            "{stem}: dtype {descr} cannot be stored; expected little-endian numbers"
        ))
    })?;
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
    // Shared: a write meanwhile would be a checksum that differs, which `verify` finds.
    let bytes = flat.as_slice()?;
    release_gil(py, |cancel| {
        let mut writer = NpyWriter::create(folder, stem, dtype, tail)?;
        for block in bytes.chunks(store::CHUNK_BYTES) {
            cancel.check()?;
            writer.write(block)?;
        }
        writer.finish()?.commit()
    })
}

/// Adds this file's functions to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(write_store_files, module)?)
}
