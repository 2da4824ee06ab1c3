//! The one door from Python into the core.

use std::sync::mpsc;
use std::time::Duration;

use llmdirect_core::{Cancel, Error};
use pyo3::exceptions::{PyKeyboardInterrupt, PyOSError, PyValueError};
use pyo3::prelude::*;

use crate::threads;

/// How often a running call looks for Ctrl-C.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(50);

/// Runs `work` without the GIL on the core's threads, while this thread watches for signals.
///
/// Ctrl-C sets the [`Cancel`] flag; the call returns once `work` has noticed.
pub fn leave_python<T: Send>(
    py: Python<'_>,
    work: impl FnOnce(&Cancel) -> Result<T, Error> + Send,
) -> PyResult<T> {
    let pool = threads::pool()?;
    let cancel = Cancel::new();
    let (mut outcome, mut signal) = (None, None);
    py.detach(|| {
        // A panic of `work` goes on from here, at the end of the scope.
        pool.in_place_scope(|scope| {
            let (done, wait) = mpsc::channel::<()>();
            let (cancel, outcome) = (&cancel, &mut outcome);
            scope.spawn(move |_| {
                let _done = done; // dropped at the end, even by a panic: wakes the watcher
                *outcome = Some(work(cancel));
            });
            while let Err(mpsc::RecvTimeoutError::Timeout) = wait.recv_timeout(SIGNAL_INTERVAL) {
                if signal.is_none()
                    && let Err(error) = Python::attach(|py| py.check_signals())
                {
                    cancel.set();
                    signal = Some(error);
                }
            }
        });
    });
    match signal {
        Some(error) => Err(error),
        None => outcome
            .expect("the scope ends after the work")
            .map_err(|error| to_python(py, error)),
    }
}

/// As [`leave_python`], on this thread: for work that one thread does in less than a millisecond, of which
/// waking another would be a good part.
pub fn leave_python_briefly<T: Send>(
    py: Python<'_>,
    work: impl FnOnce(&Cancel) -> Result<T, Error> + Send,
) -> PyResult<T> {
    py.detach(|| work(&Cancel::new()))
        .map_err(|error| to_python(py, error))
}

/// Maps an error of the core to the exception that a Python caller expects.
pub fn to_python(py: Python<'_>, error: Error) -> PyErr {
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
