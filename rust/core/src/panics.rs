//! Panics as errors: a defect of this crate becomes an [`Error::Panic`] of the operation that met it.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use crate::{Error, Result};

/// Place in the source of the last panic, which its payload does not carry.
static LAST_LOCATION: Mutex<Option<String>> = Mutex::new(None);

/// Replaces the report that a panic prints on stderr by a note of its place, unless `RUST_BACKTRACE` asks
/// for the report.
///
/// The hook is that of the library or program that this crate is linked into.
pub fn silence() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0") {
            report(panic);
        }
        if let Ok(mut last) = LAST_LOCATION.try_lock() {
            *last = panic.location().map(ToString::to_string);
        }
    }));
}

/// Runs `work`, on whose workers a panic is propagated by rayon.
///
/// # Errors
/// Those of `work`, or [`Error::Panic`].
pub fn catch<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    // State that a panic leaves behind: arrays of the caller, whose content is then of no use, and locks,
    // which are taken also when poisoned.
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| Err(to_error(&*payload)))
}

/// The error of a panic with this payload.
fn to_error(payload: &(dyn Any + Send)) -> Error {
    let message = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("panic without a message");
    let location = LAST_LOCATION
        .try_lock()
        .ok()
        .and_then(|mut last| last.take());
    Error::Panic(match location {
        Some(location) => format!("{message} ({location})"),
        None => message.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::threads::parallel_for_each;

    #[test]
    fn a_panic_of_the_caller_or_of_a_worker_is_an_error() {
        let bytes = [1, 2, 3];
        let index = bytes.len();
        let error = catch(|| Ok(bytes[index])).unwrap_err();
        assert!(error.to_string().contains("index out of bounds"), "{error}");
        for bad in [0, 63] {
            let work = |_: &mut (), task: usize| {
                assert_ne!(task, bad, "the task that panics");
                Ok(())
            };
            let error = catch(|| parallel_for_each(0..64, work)).unwrap_err();
            assert!(matches!(&error, Error::Panic(_)), "{error:?}");
            assert!(
                error.to_string().contains("the task that panics"),
                "{error}"
            );
        }
        assert_eq!(catch(|| Ok(3)).unwrap(), 3);
    }
}
