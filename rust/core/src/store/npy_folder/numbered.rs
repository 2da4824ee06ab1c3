//! A folder of arrays of equal dtype and shape in files `0.npy`, `1.npy`, …, numbered without gaps.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::files::open_regular;
use crate::npy::{Dtype, Header, shape_text};
use crate::{Error, Result};

/// The numbered files of one folder.
#[derive(Debug)]
pub(super) struct NumberedArrays {
    folder: PathBuf,
    /// Number of files.
    pub(super) count: usize,
    /// Header of the first file, which all others must have too.
    pub(super) header: Header,
}

impl NumberedArrays {
    /// Lists `folder` and reads the header of the first file; `None` if the folder does not exist. Files that
    /// are not `.npy` are ignored.
    ///
    /// # Errors
    /// [`Error::Data`] if files are misnamed or missing, or the first one is invalid; [`Error::Io`].
    pub(super) fn open(folder: &Path) -> Result<Option<Self>> {
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(folder)(error)),
        };
        let mut numbers = Vec::new();
        for entry in entries {
            let name = entry.map_err(Error::io(folder))?.file_name();
            let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(".npy")) else {
                continue;
            };
            if stem.starts_with('.') {
                continue;
            }
            match stem.parse::<usize>() {
                Ok(number) if number.to_string() == stem => numbers.push(number),
                _ => {
                    return Err(Error::data(
                        &folder.join(name),
                        "file names must be 0.npy, 1.npy, …; rename or remove it",
                    ));
                }
            }
        }
        numbers.sort_unstable();
        if let Some(missing) = (0..numbers.len()).find(|&number| numbers[number] != number) {
            return Err(Error::data(
                &folder.join(format!("{missing}.npy")),
                format!(
                    "missing, but {}.npy exists; write it again",
                    numbers[numbers.len() - 1]
                ),
            ));
        }
        if numbers.is_empty() {
            return Err(Error::data(
                folder,
                "has no 0.npy; write it again or remove the folder",
            ));
        }
        let path = folder.join("0.npy");
        let file = open_regular(&path)?;
        let (header, _) = Header::read(&file, &path)?;
        Ok(Some(NumberedArrays {
            folder: folder.to_path_buf(),
            count: numbers.len(),
            header,
        }))
    }

    /// Path of file `number`.
    pub(super) fn path(&self, number: usize) -> PathBuf {
        self.folder.join(format!("{number}.npy"))
    }

    /// Opens file `number`, whose header must equal that of the first; returns the file and the offset of its
    /// data.
    ///
    /// # Errors
    /// [`Error::Data`] if the header differs or is invalid; [`Error::Io`].
    pub(super) fn open_file(&self, number: usize) -> Result<(File, u64)> {
        let path = self.path(number);
        let file = open_regular(&path)?;
        let (header, data_offset) = Header::read(&file, &path)?;
        if header != self.header {
            return Err(Error::data(
                &path,
                format!(
                    "shape {} and dtype {}, but {} has {} and {}; write it again",
                    shape_text(&header.shape),
                    header.dtype,
                    self.path(0).display(),
                    shape_text(&self.header.shape),
                    self.header.dtype
                ),
            ));
        }
        Ok((file, data_offset))
    }

    /// Checks dtype and number of axes, and that no axis is 0.
    ///
    /// # Errors
    /// [`Error::Data`] naming the first file and what was `expected`.
    pub(super) fn check_header(
        &self,
        dtype: Option<Dtype>,
        axes: usize,
        expected: &str,
    ) -> Result<()> {
        let Header {
            dtype: found,
            shape,
        } = &self.header;
        if shape.len() != axes || shape.contains(&0) || dtype.is_some_and(|dtype| dtype != *found) {
            return Err(Error::data(
                &self.path(0),
                format!(
                    "shape {} and dtype {found}, expected {expected}; write it again",
                    shape_text(shape)
                ),
            ));
        }
        Ok(())
    }
}
