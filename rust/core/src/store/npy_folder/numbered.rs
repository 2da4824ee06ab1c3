//! A folder of `0.npy, 1.npy, …`: arrays of one type and shape, numbered without gaps.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::npy::{Dtype, Header, shape_text};
use crate::{Error, Result};

/// The numbered files of one folder.
#[derive(Debug)]
pub(super) struct Series {
    folder: PathBuf,
    /// Number of files.
    pub(super) count: usize,
    /// What every file is: the header of the first.
    pub(super) header: Header,
}

impl Series {
    /// Lists `folder`; `None` where it does not exist. Files that are not `.npy` are not looked at.
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
                        "files are numbered 0.npy, 1.npy, …; rename or remove it",
                    ));
                }
            }
        }
        numbers.sort_unstable();
        if let Some(gap) = (0..numbers.len()).find(|&number| numbers[number] != number) {
            return Err(Error::data(
                &folder.join(format!("{gap}.npy")),
                format!(
                    "missing, while there is {}.npy; write it again",
                    numbers[numbers.len() - 1]
                ),
            ));
        }
        if numbers.is_empty() {
            return Err(Error::data(
                folder,
                "holds no 0.npy; write it again or remove the folder",
            ));
        }
        let path = folder.join("0.npy");
        let file = File::open(&path).map_err(Error::io(&path))?;
        let (header, _) = Header::read(&file, &path)?;
        Ok(Some(Series {
            folder: folder.to_path_buf(),
            count: numbers.len(),
            header,
        }))
    }

    /// Path of file `number`.
    pub(super) fn path(&self, number: usize) -> PathBuf {
        self.folder.join(format!("{number}.npy"))
    }

    /// Opens file `number`, which must be like the first: the file and the position of its data.
    pub(super) fn file(&self, number: usize) -> Result<(File, u64)> {
        let path = self.path(number);
        let file = File::open(&path).map_err(Error::io(&path))?;
        let (header, data_at) = Header::read(&file, &path)?;
        if header != self.header {
            return Err(Error::data(
                &path,
                format!(
                    "{} of {}, but {} is {} of {}; write it again",
                    shape_text(&header.shape),
                    header.dtype,
                    self.path(0).display(),
                    shape_text(&self.header.shape),
                    self.header.dtype
                ),
            ));
        }
        Ok((file, data_at))
    }

    /// Checks type and number of axes of the first file, hence of all.
    pub(super) fn expect(&self, dtype: Option<Dtype>, axes: usize, what: &str) -> Result<()> {
        let Header {
            dtype: found,
            shape,
        } = &self.header;
        if shape.len() != axes || shape.contains(&0) || dtype.is_some_and(|dtype| dtype != *found) {
            return Err(Error::data(
                &self.path(0),
                format!(
                    "{} of {found}, expected {what}; write it again",
                    shape_text(shape)
                ),
            ));
        }
        Ok(())
    }
}
