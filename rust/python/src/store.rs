//! Bindings of `llmdirect_core::store::Store`: zero-copy NumPy views, key lookup, gather.

use std::path::PathBuf;

use llmdirect_core::store::{self, Destination, Loading};
use numpy::{IntoPyArray, Ix2, PyArray1, PyReadonlyArray2, PyReadwriteArray1};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::arrays::{array, copied, size, view};
use crate::gil::release_gil;

/// Bytes of the key of a passage.
const KEY_BYTES: usize = 16;

/// An opened store, kept alive by every view of its data.
#[pyclass(frozen, module = "llmdirect._core")]
struct Store(store::Store);

/// A gather buffer: bytes of the dtype of the store, or float32.
#[derive(FromPyObject)]
enum Buffer<'py> {
    Stored(PyReadwriteArray1<'py, u8>),
    Float32(PyReadwriteArray1<'py, f32>),
}

#[pymethods]
impl Store {
    /// Opens a store; `ram` loads it into memory, `verify` compares all data with the checksums.
    #[staticmethod]
    fn open(py: Python<'_>, path: PathBuf, ram: bool, verify: bool) -> PyResult<Self> {
        let loading = if ram { Loading::Ram } else { Loading::Mmap };
        release_gil(py, |cancel| {
            store::Store::open(&path, loading, verify, cancel)
        })
        .map(Store)
    }

    /// The text of the manifest when the store was opened.
    #[getter]
    fn manifest(&self) -> &str {
        &self.0.manifest().text
    }

    /// The data of a file as a flat uint8 view without a copy; empty for a file that the store does not have.
    ///
    /// Only tokens can be writable, as nothing is checked once that depends on them. Their memory is private:
    /// what is written does not reach the file. The memory of the other files cannot be written to.
    fn data<'py>(
        slf: Bound<'py, Self>,
        name: &str,
        writable: bool,
    ) -> PyResult<Bound<'py, PyArray1<u8>>> {
        if writable && name != "tokens" {
            return Err(PyValueError::new_err(format!(
                "`writable`: {name} are read-only, only tokens may be written to"
            )));
        }
        let store = &slf.get().0;
        let bytes = match name {
            "tokens" => store.tokens(),
            "offsets" => release_gil(slf.py(), |_| store.offsets())?,
            "spans" => store.spans(),
            "keys" => store.keys(),
            "scales" => store.scales(),
            "channels" => store.channels(),
            _ => {
                return Err(PyValueError::new_err(format!(
                    "a store has no file {name:?}; expected tokens, offsets, spans, keys, scales or channels"
                )));
            }
        };
        // SAFETY: the bytes are in a private mapping that never moves and lives as long as `slf`; that of the
        // tokens is writable, and the core copies and converts tokens only.
        unsafe { view(slf.clone().into_any(), bytes, writable) }
    }

    /// Passage index of each key, uint8 [n, 16] -> int64 [n]; -1 for a missing key.
    fn find<'py>(
        &self,
        py: Python<'py>,
        keys: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let keys = keys_array(keys)?;
        let keys = keys.as_slice()?; // shared: keys are compared only
        let found = release_gil(py, |cancel| self.0.find(keys, cancel))?;
        Ok(found.into_pyarray(py))
    }

    /// As `find`, but raises DataError if any key is missing.
    fn lookup<'py>(
        &self,
        py: Python<'py>,
        keys: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let keys = keys_array(keys)?;
        let keys = keys.as_slice()?; // shared: keys are compared only
        let found = release_gil(py, |cancel| self.0.lookup(keys, cancel))?;
        Ok(found.into_pyarray(py))
    }

    /// Copies the rows of passages into a flat buffer, concatenated or each padded to `padded_to` rows;
    /// returns their row offsets, int64 [n + 1].
    fn gather<'py>(
        &self,
        py: Python<'py>,
        passages: &Bound<'py, PyAny>,
        out: Buffer<'py>,
        padded_to: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyArray1<i64>>> {
        let passages: Vec<i64> = copied("passages", passages)?;
        let padded_to = padded_to.map(|rows| size("padded_to", rows)).transpose()?;
        let (mut stored, mut float32);
        let destination = match out {
            Buffer::Stored(array) => {
                stored = array;
                Destination::Stored(stored.as_slice_mut()?)
            }
            Buffer::Float32(array) => {
                float32 = array;
                Destination::Float32(float32.as_slice_mut()?)
            }
        };
        let buffer = match &destination {
            Destination::Stored(out) => out.as_ptr_range(),
            Destination::Float32(out) => {
                let range = out.as_ptr_range();
                range.start.cast()..range.end.cast()
            }
        };
        let tokens = self.0.tokens().as_ptr_range();
        if buffer.start < tokens.end && tokens.start < buffer.end {
            return Err(PyValueError::new_err(
                "out is a view of the store itself; pass a buffer of its own",
            ));
        }
        let offsets = release_gil(py, |cancel| {
            self.0.gather(&passages, padded_to, destination, cancel)
        })?;
        Ok(offsets.into_pyarray(py))
    }
}

/// Borrows keys, uint8 [n, 16].
fn keys_array<'py>(keys: &Bound<'py, PyAny>) -> PyResult<PyReadonlyArray2<'py, u8>> {
    let keys = array::<u8, Ix2>("keys", keys)?;
    let (rows, width) = keys.as_array().dim();
    if width != KEY_BYTES {
        return Err(PyValueError::new_err(format!(
            "keys have the shape ({rows}, {width}), expected (n, {KEY_BYTES})"
        )));
    }
    Ok(keys)
}

/// Adds this file's class to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Store>()
}
