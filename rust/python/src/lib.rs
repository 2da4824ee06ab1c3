//! `llmdirect._core`: checks arrays, leaves Python, calls `llmdirect-core`, maps errors. No algorithms.

mod door;
mod hash;
mod store_files;

use pyo3::prelude::*;

/// Registers every function and class of the extension.
#[pymodule]
fn _core(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    hash::register(module)?;
    store_files::register(module)?;
    Ok(())
}
