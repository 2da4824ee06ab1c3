//! The threads that the core works on: the one that calls, and helpers that take pieces of its work.
//!
//! Helpers are made at the first call of a process, and again in a forked child, which inherits none: a child
//! that waited for its parent's threads would hang.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::{Error, Result};

/// Most threads that can be asked for.
pub const MAX_THREADS: usize = 256;
/// How long a caller that has nothing left to do looks for the end of its helpers before it sleeps: being
/// woken takes as long.
const PATIENCE: Duration = Duration::from_micros(50);

/// Asked for by [`set_count`]; 0: as many as rayon finds, by `RAYON_NUM_THREADS` or the processor.
static ASKED: AtomicUsize = AtomicUsize::new(0);

/// One pool for each number of threads that was ever asked for.
static POOLS: [AtomicPtr<Pool>; MAX_THREADS + 1] =
    [const { AtomicPtr::new(ptr::null_mut()) }; MAX_THREADS + 1];

struct Pool {
    process: u32,
    threads: rayon::ThreadPool,
}

/// Sets the number of threads of the calls to come; results do not depend on it.
///
/// # Errors
/// [`Error::Argument`] outside 1 to [`MAX_THREADS`].
pub fn set_count(count: usize) -> Result<()> {
    if !(1..=MAX_THREADS).contains(&count) {
        return Err(Error::Argument(format!(
            "{count} threads, expected 1 to {MAX_THREADS}"
        )));
    }
    ASKED.store(count, Ordering::Relaxed);
    Ok(())
}

/// Number of threads that a call works on.
///
/// # Errors
/// [`Error::Argument`] where the system gives no threads.
pub fn count() -> Result<usize> {
    match rayon::current_thread_index() {
        Some(_) => Ok(rayon::current_num_threads()),
        None => Ok(pool()?.current_num_threads()),
    }
}

/// Runs `work`, which uses rayon itself, on the helpers alone.
///
/// # Errors
/// [`Error::Argument`] where the system gives no threads.
pub fn install<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    match rayon::current_thread_index() {
        Some(_) => Ok(work()),
        None => Ok(pool()?.install(work)),
    }
}

/// Does `work` for every one of `pieces`, on this thread and on helpers. Each thread takes the next piece when
/// it has done one, and has a state of its own.
///
/// A helper needs some 50 microseconds to wake up; this thread begins at once.
///
/// # Errors
/// Of the pieces that failed, the error of the first; those behind it may not have been done.
pub fn share<S: Default, I>(
    pieces: I,
    work: impl Fn(&mut S, I::Item) -> Result<()> + Sync,
) -> Result<()>
where
    I: ExactSizeIterator + Send,
{
    let helpers = match pieces.len() {
        0 | 1 => 0,
        pieces => (count()? - 1).min(pieces - 1),
    };
    let queue = Mutex::new(pieces.enumerate());
    let failed = Mutex::new(None);
    let take = || {
        // Pieces are taken in order, so all before the one that failed are done or in work.
        match lock(&failed).is_some() {
            true => None,
            false => lock(&queue).next(),
        }
    };
    let run = || {
        let mut state = S::default();
        while let Some((number, piece)) = take() {
            if let Err(error) = work(&mut state, piece) {
                let mut failed = lock(&failed);
                if failed.as_ref().is_none_or(|(first, _)| number < *first) {
                    *failed = Some((number, error));
                }
            }
        }
    };
    if helpers == 0 {
        run();
    } else {
        let busy = AtomicUsize::new(helpers);
        let (run, busy) = (&run, &busy);
        in_scope(|scope| {
            for _ in 0..helpers {
                scope.spawn(move |_| {
                    let _done = Done(busy);
                    run();
                });
            }
            run();
            let until = Instant::now() + PATIENCE;
            while busy.load(Ordering::Acquire) > 0 && Instant::now() < until {
                std::hint::spin_loop();
            }
        })?;
    }
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

/// Runs `work` on this thread, and what it spawns on helpers, until all of it has ended.
fn in_scope<'scope>(work: impl FnOnce(&rayon::Scope<'scope>)) -> Result<()> {
    match rayon::current_thread_index() {
        Some(_) => rayon::in_place_scope(work),
        None => pool()?.in_place_scope(work),
    }
    Ok(())
}

/// Counts a helper off at its end, even by a panic.
struct Done<'a>(&'a AtomicUsize);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// A panic of `work` goes on in the caller; what the others still do meanwhile does not matter.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The pool of this process.
fn pool() -> Result<&'static rayon::ThreadPool> {
    let asked = ASKED.load(Ordering::Relaxed);
    let place = &POOLS[asked];
    let found = place.load(Ordering::Acquire);
    // SAFETY: a pointer in POOLS comes from `Box::leak` and is never freed, so it is null or valid for good.
    // A lock would do, but one that another thread holds at the moment of a fork never opens in the child.
    if let Some(pool) = unsafe { found.as_ref() }
        && pool.process == std::process::id()
    {
        return Ok(&pool.threads);
    }
    let threads = rayon::ThreadPoolBuilder::new()
        .num_threads(asked)
        .thread_name(|number| format!("llmdirect-{number}"))
        .build()
        .map_err(|error| Error::Argument(format!("no threads to work on: {error}")))?;
    // Two threads may both come here at the first call; then both pools live on, and one is used.
    let pool = Box::leak(Box::new(Pool {
        process: std::process::id(),
        threads,
    }));
    place.store(pool, Ordering::Release);
    Ok(&pool.threads)
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    fn on(threads: usize, work: impl FnOnce() + Send) {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(work);
    }

    #[test]
    fn every_piece_is_done_once() {
        for pieces in [0, 1, 2, 3, 1000] {
            let mut numbers = vec![0; pieces];
            let add = |_: &mut (), (place, number): (usize, &mut usize)| {
                *number += place + 1;
                Ok(())
            };
            share(numbers.iter_mut().enumerate(), add).unwrap();
            on(4, || share(numbers.iter_mut().enumerate(), add).unwrap());
            assert!(numbers.iter().copied().eq((1..=pieces).map(|n| 2 * n)));
        }
    }

    #[test]
    fn the_first_error_is_told_whoever_was_faster() {
        for _ in 0..50 {
            let work = |_: &mut (), piece: usize| match piece % 7 {
                3 => Err(Error::Argument(format!("piece {piece}"))),
                _ => Ok(()),
            };
            let error = share(0..100, work).unwrap_err();
            assert_eq!(error.to_string(), "piece 3");
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_threads_live_on() {
        for bad in [0, 50, 99] {
            let work = |_: &mut (), piece: usize| {
                assert_ne!(piece, bad, "as asked");
                Ok(())
            };
            let outcome = catch_unwind(AssertUnwindSafe(|| share(0..100, work)));
            assert!(outcome.is_err());
        }
        share(0..100, |_: &mut (), _| Ok(())).unwrap();
    }

    #[test]
    fn states_are_kept_from_piece_to_piece() {
        let total = AtomicUsize::new(0);
        #[derive(Default)]
        struct Count(usize);
        let work = |state: &mut Count, _| {
            state.0 += 1;
            total.fetch_max(state.0, Ordering::Relaxed);
            Ok(())
        };
        share(0..100, work).unwrap();
        assert!(total.into_inner() >= 100 / count().unwrap());
    }

    #[test]
    fn a_number_of_threads_that_makes_no_sense() {
        for count in [0, MAX_THREADS + 1] {
            assert!(set_count(count).is_err());
        }
    }
}
