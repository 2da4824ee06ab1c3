//! The one error type of the crate.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// What went wrong, with the file or the value that was at fault.
#[derive(Debug)]
pub enum Error {
    /// The operating system refused: missing file, no permission, disk full.
    Io {
        /// File or folder that was being read or written.
        path: PathBuf,
        /// The system's own error.
        source: io::Error,
    },
    /// A file holds something it must not hold: truncated, wrong shape, wrong checksum, not finite.
    Data {
        /// The file at fault.
        path: PathBuf,
        /// What is wrong, where, and what to do about it.
        message: String,
    },
    /// An argument of the call is out of its range or does not fit the others.
    Argument(String),
    /// The caller asked the operation to stop.
    Interrupted,
}

/// Shorthand for results of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Closure for `map_err` that attaches `path` to a system error.
    pub fn io(path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
        let path = path.to_path_buf();
        move |source| Error::Io { path, source }
    }

    /// Bad data in `path`.
    pub fn data(path: &Path, message: impl Into<String>) -> Error {
        Error::Data {
            path: path.to_path_buf(),
            message: message.into(),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Io { path, source } => write!(f, "{}: {source}", path.display()),
            Error::Data { path, message } => write!(f, "{}: {message}", path.display()),
            Error::Argument(message) => f.write_str(message),
            Error::Interrupted => f.write_str("interrupted"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}
