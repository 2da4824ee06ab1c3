//! Calls into the core: releasing the GIL, Ctrl-C, and conversion of errors and panics to exceptions.

use std::sync::{Arc, Mutex, PoisonError};

use llmdirect_core::{Cancel, Error, panics};
use pyo3::exceptions::{PyKeyboardInterrupt, PyOSError, PyValueError};
use pyo3::prelude::*;

/// Runs `work` with the GIL released.
///
/// Ctrl-C sets the [`Cancel`] flag, and the call raises KeyboardInterrupt once `work` has checked it. A panic
/// of `work` or of its workers raises InternalError. The bindings themselves cannot panic (see the lints of
/// lib.rs), so every call of the core that may goes through here.
///
/// # Errors
/// The exception of a signal handler, or the error of `work` as an exception.
pub fn release_gil<T: Send>(
    py: Python<'_>,
    work: impl FnOnce(&Cancel) -> Result<T, Error> + Send,
) -> PyResult<T> {
    let signal = Arc::new(Mutex::new(None));
    let handler_signal = Arc::clone(&signal);
    let cancel = Cancel::with_poll(move || {
        let error = Python::attach(|py| py.check_signals()).err();
        let is_set = error.is_some();
        if is_set {
            *handler_signal
                .lock()
                .unwrap_or_else(PoisonError::into_inner) = error;
        }
        is_set
    });
    let outcome = py.detach(|| panics::catch(|| work(&cancel)));
    match signal.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(error) => Err(error),
        None => outcome.map_err(|error| to_py_err(py, error)),
    }
}

/// Converts an error of the core to a Python exception.
pub fn to_py_err(py: Python<'_>, error: Error) -> PyErr {
    match error {
        Error::Io { path, source } => match source.raw_os_error() {
            // OSError selects its subclass, such as FileNotFoundError, by errno.
            Some(errno) => {
                let text = source.to_string();
                let reason = text.split(" (os error").next().unwrap_or(&text).to_owned();
                PyOSError::new_err((errno, reason, path.into_os_string()))
            }
            None => PyOSError::new_err(format!("{}: {source}", path.display())),
        },
        Error::Data { .. } => python_error(py, "DataError", error.to_string()),
        Error::Argument(message) => PyValueError::new_err(message),
        Error::Interrupted => PyKeyboardInterrupt::new_err(()),
        Error::Panic(message) => python_error(py, "InternalError", message),
    }
}

/// An instance of a class of `llmdirect.common.errors`, which are defined in Python.
fn python_error(py: Python<'_>, name: &str, message: String) -> PyErr {
    let class = py
        .import("llmdirect.common.errors")
        .and_then(|module| module.getattr(name));
    match class.and_then(|class| class.call1((message,))) {
        Ok(instance) => PyErr::from_value(instance),
        Err(error) => error,
    }
}

/// Panics, so that tests see what a defect of the core raises.
#[pyfunction]
#[expect(clippy::panic, reason = "its purpose")]
fn _panic(py: Python<'_>, message: String) -> PyResult<()> {
    release_gil(py, |_| panic!("{message}"))
}

/// Adds this file's function to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(_panic, module)?)
}
