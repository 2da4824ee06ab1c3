//! A flag by which a caller stops a long operation.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Error, Result};

/// Shared between the thread that works and the one that may stop it.
#[derive(Debug, Default)]
pub struct Cancel(AtomicBool);

impl Cancel {
    /// A flag that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks the operation to stop at its next [`check`](Self::check).
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Called by the operation between pieces of work of a few milliseconds at most.
    ///
    /// # Errors
    /// [`Error::Interrupted`] once [`set`](Self::set) was called.
    pub fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            return Err(Error::Interrupted);
        }
        Ok(())
    }
}
