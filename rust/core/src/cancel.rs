//! A flag by which a caller stops a long operation.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use crate::{Error, Result};

/// How often a watch looks.
const INTERVAL: Duration = Duration::from_millis(50);

/// Shared between the threads that work and whoever may stop them.
#[derive(Debug, Default)]
pub struct Cancel {
    set: AtomicBool,
    watch: Option<Watch>,
}

struct Watch {
    thread: ThreadId,
    last: Mutex<Instant>,
    look: Box<dyn Fn() -> bool + Send + Sync>,
}

impl std::fmt::Debug for Watch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Watch").finish_non_exhaustive()
    }
}

impl Cancel {
    /// A flag that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// A flag that is set when `look` says so, which is asked on this thread alone, by its checks, every 50 ms.
    pub fn watching(look: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self {
            set: AtomicBool::new(false),
            watch: Some(Watch {
                thread: thread::current().id(),
                last: Mutex::new(Instant::now()),
                look: Box::new(look),
            }),
        }
    }

    /// Asks the operation to stop at its next [`check`](Self::check).
    pub fn set(&self) {
        self.set.store(true, Ordering::Relaxed);
    }

    /// Called by the operation between pieces of work of a few milliseconds at most.
    ///
    /// # Errors
    /// [`Error::Interrupted`] once [`set`](Self::set) was called.
    pub fn check(&self) -> Result<()> {
        if let Some(watch) = &self.watch
            && watch.thread == thread::current().id()
        {
            let mut last = watch.last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.elapsed() >= INTERVAL {
                if (watch.look)() {
                    self.set();
                }
                *last = Instant::now();
            }
        }
        match self.set.load(Ordering::Relaxed) {
            true => Err(Error::Interrupted),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_is_asked_on_its_own_thread_now_and_then() {
        let cancel = Cancel::watching(|| true);
        assert!(cancel.check().is_ok());
        thread::sleep(INTERVAL);
        thread::scope(|scope| {
            scope.spawn(|| assert!(cancel.check().is_ok()));
        });
        assert!(cancel.check().is_err());
        thread::scope(|scope| {
            scope.spawn(|| assert!(cancel.check().is_err()));
        });
    }
}
