//! The error type of the crate.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// An error of the core, with the file or the argument that caused it.
#[derive(Debug)]
pub enum Error {
    /// An I/O error: missing file, no permission, full disk.
    Io {
        /// The file or folder that was read or written.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// A file with invalid contents: truncated, wrong shape, wrong checksum, values that are not finite.
    Data {
        /// The invalid file.
        path: PathBuf,
        /// What is wrong, where in the file, and how to fix it.
        message: String,
    },
    /// An argument that is out of range or inconsistent with the others.
    Argument(String),
    /// The caller cancelled the operation.
    Interrupted,
    /// A defect of this crate: the message of a panic and its place in the source.
    Panic(String),
}

/// Result with the [`Error`] of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// A closure for `map_err` that makes an [`Error::Io`] with this path.
    pub fn io(path: &Path) -> impl FnOnce(io::Error) -> Error + use<> {
        let path = path.to_path_buf();
        move |source| Error::Io { path, source }
    }

    /// An [`Error::Data`] of the file `path`.
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
            Error::Panic(message) => f.write_str(message),
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
