//! Opening files that a manifest or a folder listing names: inside their folder, and regular ones only.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Component, Path};

use crate::{Error, Result};

/// Opens a regular file for reading; named pipes and devices, which may never end, are refused.
///
/// # Errors
/// [`Error::Io`] if it cannot be opened, [`Error::Data`] if it is not a regular file.
pub fn open_regular(path: &Path) -> Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK) // opening a named pipe would wait for its writer
        .open(path)
        .map_err(Error::io(path))?;
    let kind = file.metadata().map_err(Error::io(path))?.file_type();
    if kind.is_file() {
        return Ok(file);
    }
    let what = match () {
        () if kind.is_dir() => "a folder",
        () if kind.is_fifo() => "a named pipe",
        () if kind.is_char_device() || kind.is_block_device() => "a device",
        () => "not a regular file",
    };
    let message = format!("is {what}, expected a regular file; replace it");
    Err(Error::data(path, message))
}

/// Opens the regular file `name` of a folder, as a manifest names it.
///
/// # Errors
/// As [`open_regular`], and [`Error::Data`] if the name leads out of the folder: a path, or a symbolic link
/// to a file elsewhere.
pub fn open_inside(folder: &Path, name: &str) -> Result<File> {
    let path = folder.join(name);
    if !is_plain_name(name) {
        let message =
            format!("{name:?} is not the name of a file in this folder; make the artefact again");
        return Err(Error::data(folder, message));
    }
    let is_link = path
        .symlink_metadata()
        .is_ok_and(|found| found.is_symlink());
    if is_link {
        let target = path.canonicalize().map_err(Error::io(&path))?;
        let folder = folder.canonicalize().map_err(Error::io(folder))?;
        if target.parent() != Some(&folder) {
            let message = format!(
                "is a symbolic link to {}, outside its folder; copy the file here",
                target.display()
            );
            return Err(Error::data(&path, message));
        }
    }
    open_regular(&path)
}

/// Reads a regular file of at most `max_bytes`.
///
/// # Errors
/// As [`open_regular`], and [`Error::Data`] for a larger file.
pub fn read_limited(path: &Path, max_bytes: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut file = open_regular(path)?.take(max_bytes + 1);
    file.read_to_end(&mut bytes).map_err(Error::io(path))?;
    if bytes.len() as u64 > max_bytes {
        let message = format!("larger than {max_bytes} bytes, the limit of such a file");
        return Err(Error::data(path, message));
    }
    Ok(bytes)
}

/// Whether a name is one normal component of a path.
fn is_plain_name(name: &str) -> bool {
    let mut components = Path::new(name).components();
    let is_normal = matches!(components.next(), Some(Component::Normal(part)) if part == name);
    is_normal && components.next().is_none() && !name.contains(['\\', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_of_the_folder_are_opened() {
        let outer = tempfile::tempdir().unwrap();
        let folder = outer.path().join("store");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(outer.path().join("secret"), "s").unwrap();
        std::fs::write(folder.join("file"), "f").unwrap();
        std::fs::create_dir(folder.join("folder")).unwrap();
        let link = |target: &Path, name: &str| {
            std::os::unix::fs::symlink(target, folder.join(name)).unwrap();
        };
        link(&folder.join("file"), "inside");
        link(&outer.path().join("secret"), "outside");
        link(Path::new("/dev/zero"), "zero");
        let pipe = std::ffi::CString::new(folder.join("pipe").to_str().unwrap()).unwrap();
        // SAFETY: the path is a string that ends with 0.
        assert_eq!(unsafe { libc::mkfifo(pipe.as_ptr(), 0o600) }, 0);

        for name in ["file", "inside"] {
            open_inside(&folder, name).unwrap();
        }
        let absolute = outer.path().join("secret");
        for (name, message) in [
            ("../secret", "not the name of a file"),
            (absolute.to_str().unwrap(), "not the name of a file"),
            ("folder/../file", "not the name of a file"),
            ("./file", "not the name of a file"),
            ("file/", "not the name of a file"),
            ("..", "not the name of a file"),
            ("", "not the name of a file"),
            ("a\0b", "not the name of a file"),
            ("outside", "outside its folder"),
            ("zero", "outside its folder"),
            ("folder", "is a folder"),
            ("pipe", "is a named pipe"),
        ] {
            let error = open_inside(&folder, name).unwrap_err().to_string();
            assert!(error.contains(message), "{error} lacks {message:?}");
        }
        let device = open_regular(Path::new("/dev/zero")).unwrap_err();
        assert!(device.to_string().contains("is a device"));
        let large = read_limited(&folder.join("file"), 0).unwrap_err();
        assert!(large.to_string().contains("larger than 0 bytes"));
        assert_eq!(read_limited(&folder.join("file"), 1).unwrap(), b"f");
    }
}
