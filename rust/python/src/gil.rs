//! The one door from Python into the core.

use std::sync::{Arc, Mutex, PoisonError};

use llmdirect_core::{Cancel, Error};
use pyo3::exceptions::{PyKeyboardInterrupt, PyOSError, PyValueError};
use pyo3::prelude::*;

/// Runs `work` without the GIL, on this thread and the core's.
///
/// Ctrl-C sets the [`Cancel`] flag, which looks for it now and then; the call returns once `work` has noticed.
pub fn release_gil<T: Send>(
    py: Python<'_>,
    work: impl FnOnce(&Cancel) -> Result<T, Error> + Send,
) -> PyResult<T> {
    let signal = Arc::new(Mutex::new(None));
    let caught = Arc::clone(&signal);
    let cancel = Cancel::with_poll(move || {
        let error = Python::attach(|py| py.check_signals()).err();
        let is_set = error.is_some();
        if is_set {
            *caught.lock().unwrap_or_else(PoisonError::into_inner) = error;
        }
        is_set
    });
    let outcome = py.detach(|| work(&cancel));
    match signal.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(error) => Err(error),
        None => outcome.map_err(|error| to_py_err(py, error)),
    }
}

/// Maps an error of the core to the exception that a Python caller expects.
pub fn to_py_err(py: Python<'_>, error: Error) -> PyErr {
    match error {
        Error::Io { path, source } => match source.raw_os_error() {
            // OSError picks FileNotFoundError and its kin from the number.
            Some(errno) => {
                let text = source.to_string();
                let reason = text.split(" (os error").next().unwrap_or(&text).to_owned();
                PyOSError::new_err((errno, reason, path.into_os_string()))
            }
            None => PyOSError::new_err(format!("{}: {source}", path.display())),
        },
        Error::Data { .. } => data_error(py, error.to_string()),
        Error::Argument(message) => PyValueError::new_err(message),
        Error::Interrupted => PyKeyboardInterrupt::new_err(()),
    }
}

/// `llmdirect.errors.DataError`, which lives in Python.
fn data_error(py: Python<'_>, message: String) -> PyErr {
    let class = py
        .import("llmdirect.errors")
        .and_then(|module| module.getattr("DataError"));
    match class.and_then(|class| class.call1((message,))) {
        Ok(instance) => PyErr::from_value(instance),
        Err(error) => error,
    }
}
