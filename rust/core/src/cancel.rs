//! Cooperative cancellation of long operations.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use crate::{Error, Result};

/// Least time between two calls of a poll function.
const INTERVAL: Duration = Duration::from_millis(50);

/// A cancellation flag, shared by the threads of an operation and its caller.
#[derive(Debug, Default)]
pub struct Cancel {
    set: AtomicBool,
    poll: Option<Poll>,
}

/// A function that is called from time to time to ask whether to cancel.
struct Poll {
    thread: ThreadId,
    last: Mutex<Instant>,
    is_interrupted: Box<dyn Fn() -> bool + Send + Sync>,
}

impl std::fmt::Debug for Poll {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Poll").finish_non_exhaustive()
    }
}

impl Cancel {
    /// A flag that is not set.
    pub fn new() -> Self {
        Self::default()
    }

    /// A flag that is set once `is_interrupted` returns true.
    ///
    /// [`check`](Self::check) calls it at most every 50 ms, and on the thread that created the flag only.
    pub fn with_poll(is_interrupted: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self {
            set: AtomicBool::new(false),
            poll: Some(Poll {
                thread: thread::current().id(),
                last: Mutex::new(Instant::now()),
                is_interrupted: Box::new(is_interrupted),
            }),
        }
    }

    /// Sets the flag: the operation stops at its next [`check`](Self::check).
    pub fn set(&self) {
        self.set.store(true, Ordering::Relaxed);
    }

    /// Fails if the flag is set; an operation calls it every few milliseconds.
    ///
    /// # Errors
    /// [`Error::Interrupted`] once the flag is set.
    pub fn check(&self) -> Result<()> {
        if let Some(poll) = &self.poll
            && poll.thread == thread::current().id()
        {
            let mut last = poll.last.lock().unwrap_or_else(PoisonError::into_inner);
            if last.elapsed() >= INTERVAL {
                if (poll.is_interrupted)() {
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
    fn the_poll_function_is_called_on_its_own_thread_at_intervals() {
        let cancel = Cancel::with_poll(|| true);
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
