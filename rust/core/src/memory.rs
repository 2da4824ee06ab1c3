//! Allocations whose size a caller chooses: too large ones are errors, where `vec!` would end the process.

use crate::{Error, Result};

/// A vector of `rows` × `columns` copies of a value.
///
/// # Errors
/// [`Error::Argument`] that names `setting`, the number of columns, if the memory cannot be allocated.
pub fn filled<T: Copy>(value: T, rows: usize, columns: usize, setting: &str) -> Result<Vec<T>> {
    let mut values = Vec::new();
    let length = rows.checked_mul(columns);
    match length.map(|length| values.try_reserve_exact(length).map(|()| length)) {
        Some(Ok(length)) => {
            values.resize(length, value);
            Ok(values)
        }
        _ => Err(Error::Argument(format!(
            "`{setting}`: {columns} for each of {rows} rows does not fit into memory; choose a smaller \
             `{setting}`"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_overflows_or_cannot_be_allocated_is_an_error() {
        assert_eq!(filled(7u8, 2, 3, "k").unwrap(), [7; 6]);
        for (rows, columns) in [(3, usize::MAX), (1, usize::MAX), (1 << 20, 1 << 40)] {
            let error = filled(0i32, rows, columns, "k").unwrap_err().to_string();
            assert!(
                error.contains("`k`") && error.contains("smaller"),
                "{error}"
            );
        }
        assert!(filled(0u8, 0, usize::MAX, "k").unwrap().is_empty());
    }
}
