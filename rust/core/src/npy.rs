//! Headers of `.npy` files: strict parsing of format versions 1.0 and 2.0, and writing of 1.0 as `np.save`
//! does.

use std::fmt;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::{Error, Result};

const MAGIC: &[u8; 6] = b"\x93NUMPY";
/// Largest header that is accepted, the same limit as in `np.load`.
const MAX_HEADER_BYTES: usize = 10_000;
/// Digits that NumPy reserves in the header for the first axis, so that it can grow in place.
const GROWTH_DIGITS: usize = 21;
/// Alignment of the data in bytes.
const ALIGNMENT: usize = 64;

/// Kind of an element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `?`: one byte, 0 or 1.
    Bool,
    /// Signed integers of 1, 2, 4, 8 bytes.
    Int,
    /// Unsigned integers of 1, 2, 4, 8 bytes.
    UInt,
    /// IEEE floats of 2, 4, 8 bytes.
    Float,
}

/// The dtype of the elements: kind and size, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dtype {
    /// What an element is.
    pub kind: Kind,
    /// Bytes per element.
    pub size: usize,
}

impl Dtype {
    /// `uint8`
    pub const U8: Dtype = Dtype::new(Kind::UInt, 1);
    /// `uint16`, which also carries the bits of bfloat16
    pub const U16: Dtype = Dtype::new(Kind::UInt, 2);
    /// `uint32`
    pub const U32: Dtype = Dtype::new(Kind::UInt, 4);
    /// `int8`
    pub const I8: Dtype = Dtype::new(Kind::Int, 1);
    /// `uint64`
    pub const U64: Dtype = Dtype::new(Kind::UInt, 8);
    /// `int64`
    pub const I64: Dtype = Dtype::new(Kind::Int, 8);
    /// `float16`
    pub const F16: Dtype = Dtype::new(Kind::Float, 2);
    /// `float32`
    pub const F32: Dtype = Dtype::new(Kind::Float, 4);

    const fn new(kind: Kind, size: usize) -> Self {
        Dtype { kind, size }
    }

    /// Parses a description such as `<f4` or `|u1`; `None` for anything else, big-endian included.
    pub fn parse(descr: &str) -> Option<Self> {
        let (order, rest) = descr.split_at_checked(1)?;
        let (kind, size) = rest.split_at_checked(1)?;
        let kind = match kind {
            "b" => Kind::Bool,
            "i" => Kind::Int,
            "u" => Kind::UInt,
            "f" => Kind::Float,
            _ => return None,
        };
        let size = match size {
            "1" => 1,
            "2" => 2,
            "4" => 4,
            "8" => 8,
            _ => return None,
        };
        let known = match kind {
            Kind::Bool => size == 1,
            Kind::Float => size > 1,
            _ => true,
        };
        let ordered = order == "<" || (order == "|" && size == 1);
        (known && ordered).then_some(Dtype { kind, size })
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = if self.size == 1 { '|' } else { '<' };
        let kind = match self.kind {
            Kind::Bool => 'b',
            Kind::Int => 'i',
            Kind::UInt => 'u',
            Kind::Float => 'f',
        };
        write!(f, "{order}{kind}{}", self.size)
    }
}

/// The header of a C-ordered array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Dtype of the elements.
    pub dtype: Dtype,
    /// Lengths of the axes.
    pub shape: Vec<usize>,
}

impl Header {
    /// Number of data bytes; `None` if it overflows `u64`.
    pub fn data_bytes(&self) -> Option<u64> {
        let size = self.dtype.size as u64;
        self.shape
            .iter()
            .try_fold(size, |bytes, &length| bytes.checked_mul(length as u64))
    }

    /// Encodes the header as `np.save` does: version 1.0, padded to a multiple of 64 bytes.
    ///
    /// Its length does not depend on the first axis, so it can be written before that is known.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut text = format!(
            "{{'descr': '{}', 'fortran_order': False, 'shape': {}, }}",
            self.dtype,
            shape_text(&self.shape)
        );
        if let Some(first) = self.shape.first() {
            let room = GROWTH_DIGITS.saturating_sub(first.to_string().len());
            text.extend(std::iter::repeat_n(' ', room));
        }
        let unpadded = MAGIC.len() + 4 + text.len() + 1;
        let padding = unpadded.next_multiple_of(ALIGNMENT) - unpadded;
        text.extend(std::iter::repeat_n(' ', padding));
        text.push('\n');
        let mut bytes = Vec::with_capacity(unpadded + padding);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&[1, 0]);
        bytes.extend_from_slice(&(text.len() as u16).to_le_bytes());
        bytes.extend_from_slice(text.as_bytes());
        bytes
    }

    /// Reads the header of `file` and checks that the file has exactly the length of header and data.
    ///
    /// Returns the header and the offset of the data.
    ///
    /// # Errors
    /// [`Error::Data`] if it is not a complete, little-endian, C-ordered `.npy` file; [`Error::Io`].
    pub fn read(file: &File, path: &Path) -> Result<(Self, u64)> {
        let length = file.metadata().map_err(Error::io(path))?.len();
        let mut start = vec![0; length.min(MAX_HEADER_BYTES as u64 + 12) as usize];
        file.read_exact_at(&mut start, 0).map_err(Error::io(path))?;
        let (header, data_offset) = Self::parse(&start)
            .map_err(|what| Error::data(path, format!("{what}; write the file again")))?;
        let expected = header
            .data_bytes()
            .and_then(|bytes| bytes.checked_add(data_offset as u64));
        if expected != Some(length) {
            let what = match expected {
                Some(expected) if length < expected => "truncated",
                _ => "longer than its header says",
            };
            let expected = expected.map_or("more than 2^64".into(), |bytes| bytes.to_string());
            return Err(Error::data(
                path,
                format!(
                    "{what}: {length} bytes, but an array of shape {} and dtype {} needs {expected}; write the file \
                     again",
                    shape_text(&header.shape),
                    header.dtype
                ),
            ));
        }
        Ok((header, data_offset as u64))
    }

    /// Parses the header at the start of a file; returns it and the offset of the data.
    ///
    /// # Errors
    /// A description of the problem.
    pub fn parse(bytes: &[u8]) -> std::result::Result<(Self, usize), String> {
        if !bytes.starts_with(MAGIC) {
            return Err("not a .npy file".into());
        }
        let truncated = || "truncated inside its .npy header".to_owned();
        let version = bytes.get(6..8).ok_or_else(truncated)?;
        let (text_offset, text_length) = match version {
            [1, 0] => {
                let field = bytes.get(8..10).ok_or_else(truncated)?;
                (10, usize::from(u16::from_le_bytes([field[0], field[1]])))
            }
            [2, 0] => {
                let field = bytes.get(8..12).ok_or_else(truncated)?;
                let length = u32::from_le_bytes([field[0], field[1], field[2], field[3]]);
                (12, length as usize)
            }
            _ => {
                return Err(format!(
                    ".npy format version {}.{} is not supported, expected 1.0 or 2.0",
                    version[0], version[1]
                ));
            }
        };
        if text_length > MAX_HEADER_BYTES {
            return Err(format!(
                ".npy header of {text_length} bytes, expected at most {MAX_HEADER_BYTES}"
            ));
        }
        let data_offset = text_offset + text_length;
        let text = bytes.get(text_offset..data_offset).ok_or_else(truncated)?;
        let text =
            std::str::from_utf8(text).map_err(|_| "its .npy header is not text".to_owned())?;
        Ok((parse_dict(text)?, data_offset))
    }
}

/// A shape as a Python tuple: `(3, 4)`, `(3,)`, `()`.
pub fn shape_text(shape: &[usize]) -> String {
    match shape {
        [length] => format!("({length},)"),
        _ => {
            let lengths: Vec<String> = shape.iter().map(usize::to_string).collect();
            format!("({})", lengths.join(", "))
        }
    }
}

/// Parses `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`, with the keys in any order, each
/// once.
fn parse_dict(text: &str) -> std::result::Result<Header, String> {
    let malformed = || format!("malformed .npy header {:?}", text.trim_end());
    let body = text.trim_matches([' ', '\n']);
    let mut rest = body
        .strip_prefix('{')
        .and_then(|body| body.strip_suffix('}'))
        .ok_or_else(malformed)?
        .trim_start();
    let (mut descr, mut fortran, mut shape) = (None, None, None);
    while !rest.is_empty() {
        let (key, after) = split_quoted(rest).ok_or_else(malformed)?;
        let value = after
            .trim_start()
            .strip_prefix(':')
            .ok_or_else(malformed)?
            .trim_start();
        let repeated;
        (repeated, rest) = match key {
            "descr" => {
                let (value, after) = split_quoted(value).ok_or_else(|| {
                    format!("dtype in {body:?} is not a string, expected one such as '<f4'")
                })?;
                (descr.replace(value).is_some(), after)
            }
            "fortran_order" => {
                let (value, after) = if let Some(after) = value.strip_prefix("False") {
                    (false, after)
                } else {
                    (true, value.strip_prefix("True").ok_or_else(malformed)?)
                };
                (fortran.replace(value).is_some(), after)
            }
            "shape" => {
                let (inner, after) = value
                    .strip_prefix('(')
                    .and_then(|value| value.split_once(')'))
                    .ok_or_else(malformed)?;
                (
                    shape
                        .replace(parse_lengths(inner).ok_or_else(malformed)?)
                        .is_some(),
                    after,
                )
            }
            _ => return Err(malformed()),
        };
        if repeated {
            return Err(malformed());
        }
        rest = rest.trim_start();
        match rest.strip_prefix(',') {
            Some(after) => rest = after.trim_start(),
            None if rest.is_empty() => {}
            None => return Err(malformed()),
        }
    }
    let (Some(descr), Some(fortran), Some(shape)) = (descr, fortran, shape) else {
        return Err(malformed());
    };
    if fortran {
        return Err("array in Fortran order, expected C order".into());
    }
    let dtype = Dtype::parse(descr)
        .ok_or_else(|| format!("dtype {descr:?}, expected little-endian numbers such as '<f4'"))?;
    Ok(Header { dtype, shape })
}

/// Splits `'abc'rest` or `"abc"rest` into `(abc, rest)`.
fn split_quoted(text: &str) -> Option<(&str, &str)> {
    let quote = text.chars().next().filter(|c| *c == '\'' || *c == '"')?;
    text[1..].split_once(quote)
}

/// Parses the inside of a tuple: `3, 4`, `3,` or nothing.
fn parse_lengths(text: &str) -> Option<Vec<usize>> {
    if text.trim().is_empty() {
        return Some(Vec::new());
    }
    let one_axis = text.matches(',').count() == 1;
    let text = match text.trim_end().strip_suffix(',') {
        Some(text) if one_axis => text,
        Some(_) => return None,
        None if !text.contains(',') => return None, // `(3)` is a number, not a tuple
        None => text,
    };
    text.split(',')
        .map(|length| {
            let length = length.trim();
            let digits = !length.is_empty() && length.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| length.parse().ok()).flatten()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_bytes_equal_those_of_numpy() {
        let header = Header {
            dtype: Dtype::F32,
            shape: vec![2, 3],
        };
        let bytes = header.to_bytes();
        let text = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }";
        assert_eq!(&bytes[..10], b"\x93NUMPY\x01\x00v\x00");
        assert!(bytes[10..].starts_with(text.as_bytes()));
        assert_eq!((bytes.len(), bytes[127]), (128, b'\n'));
    }

    #[test]
    fn headers_round_trip_and_their_length_ignores_the_first_axis() {
        for dtype in [
            "|b1", "|i1", "|u1", "<u2", "<i4", "<i8", "<f2", "<f4", "<f8",
        ] {
            for tail in [&[][..], &[7], &[512, 2304]] {
                let mut sizes = Vec::new();
                for first in [0, 1, 99_999, usize::MAX >> 1] {
                    let shape: Vec<usize> =
                        std::iter::once(first).chain(tail.iter().copied()).collect();
                    let header = Header {
                        dtype: Dtype::parse(dtype).unwrap(),
                        shape,
                    };
                    let bytes = header.to_bytes();
                    assert_eq!(Header::parse(&bytes).unwrap(), (header, bytes.len()));
                    assert_eq!(bytes.len() % ALIGNMENT, 0);
                    sizes.push(bytes.len());
                }
                assert!(sizes.windows(2).all(|pair| pair[0] == pair[1]));
            }
        }
    }

    fn file_with_header(version: u8, text: &str) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([version, 0]);
        match version {
            1 => bytes.extend((text.len() as u16).to_le_bytes()),
            _ => bytes.extend((text.len() as u32).to_le_bytes()),
        }
        bytes.extend(text.as_bytes());
        bytes
    }

    #[test]
    fn version_2_is_parsed() {
        let text = "{'descr': '<f8', 'fortran_order': False, 'shape': (), }\n";
        let (header, data_offset) = Header::parse(&file_with_header(2, text)).unwrap();
        assert_eq!((header.shape, data_offset), (vec![], 12 + text.len()));
    }

    #[test]
    fn invalid_headers_are_refused() {
        for text in [
            "",
            "{}",
            "{'descr': '<f4', 'fortran_order': False}",
            "{'descr': '>f4', 'fortran_order': False, 'shape': (1,)}",
            "{'descr': '<c8', 'fortran_order': False, 'shape': (1,)}",
            "{'descr': '<f1', 'fortran_order': False, 'shape': (1,)}",
            "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
            "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}",
            "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 2)}",
            "{'descr': '<f4', 'fortran_order': 0, 'shape': (1,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (+1,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'x': 1}",
            "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,)}",
            "{'descr': '<f4' 'fortran_order': False, 'shape': (1,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,)}",
        ] {
            assert!(Header::parse(&file_with_header(1, text)).is_err(), "{text}");
        }
        let good = file_with_header(1, "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)}");
        assert!(Header::parse(&good).is_ok());
        for length in 0..good.len() {
            assert!(Header::parse(&good[..length]).is_err());
        }
        assert!(Header::parse(&file_with_header(3, "{}")).is_err());
    }
}
