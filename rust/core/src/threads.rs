//! The thread pool: parallel operations run on the calling thread and on the workers of a pool.
//!
//! A pool is built at the first call of a process, and again in a forked child: threads do not survive a
//! fork, and a child that waited for those of its parent would hang.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::{Error, Result};

/// Largest number of threads.
pub const MAX_THREADS: usize = 256;
/// How long a caller spins until its workers finish before it blocks; waking a blocked thread takes about as long.
const SPIN_TIME: Duration = Duration::from_micros(50);

/// Number of threads set by [`set_count`]; 0: the default of rayon, `RAYON_NUM_THREADS` or the number of CPUs.
static CONFIGURED: AtomicUsize = AtomicUsize::new(0);

/// One pool for each number of threads that was ever configured.
static POOLS: [AtomicPtr<Pool>; MAX_THREADS + 1] =
    [const { AtomicPtr::new(ptr::null_mut()) }; MAX_THREADS + 1];

struct Pool {
    process: u32,
    threads: rayon::ThreadPool,
}

/// Sets the number of threads of all following calls; results do not depend on it.
///
/// # Errors
/// [`Error::Argument`] outside 1 to [`MAX_THREADS`].
pub fn set_count(count: usize) -> Result<()> {
    if !(1..=MAX_THREADS).contains(&count) {
        return Err(Error::Argument(format!(
            "{count} threads, expected 1 to {MAX_THREADS}"
        )));
    }
    CONFIGURED.store(count, Ordering::Relaxed);
    Ok(())
}

/// Number of threads that a parallel operation uses.
///
/// # Errors
/// [`Error::Argument`] if the system cannot start threads.
pub fn count() -> Result<usize> {
    match rayon::current_thread_index() {
        Some(_) => Ok(rayon::current_num_threads()),
        None => Ok(pool()?.current_num_threads()),
    }
}

/// Runs `work`, which uses rayon itself, inside the pool.
///
/// # Errors
/// [`Error::Argument`] if the system cannot start threads.
pub fn install<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T> {
    match rayon::current_thread_index() {
        Some(_) => Ok(work()),
        None => Ok(pool()?.install(work)),
    }
}

/// Calls `work` on every task in parallel, on the calling thread and on workers of the pool.
///
/// Each thread takes the next task of a shared queue and reuses one state `S` for all its tasks. The calling
/// thread starts at once; a worker takes about 50 microseconds to wake up.
///
/// # Errors
/// The error of the first failed task in the order of `tasks`; tasks after it may not have run.
/// [`Error::Argument`] if the system cannot start threads.
pub fn parallel_for_each<S: Default, I>(
    tasks: I,
    work: impl Fn(&mut S, I::Item) -> Result<()> + Sync,
) -> Result<()>
where
    I: ExactSizeIterator + Send,
{
    let workers = match tasks.len() {
        0 | 1 => 0,
        tasks => (count()? - 1).min(tasks - 1),
    };
    let queue = Mutex::new(tasks.enumerate());
    let first_error = Mutex::new(None);
    let next_task = || {
        // Tasks are taken in order, so all tasks before the failed one have run or are running.
        match lock(&first_error).is_some() {
            true => None,
            false => lock(&queue).next(),
        }
    };
    let run = || {
        let mut state = S::default();
        while let Some((number, task)) = next_task() {
            if let Err(error) = work(&mut state, task) {
                let mut first_error = lock(&first_error);
                if first_error
                    .as_ref()
                    .is_none_or(|(first, _)| number < *first)
                {
                    *first_error = Some((number, error));
                }
            }
        }
    };
    if workers == 0 {
        run();
    } else {
        let running = AtomicUsize::new(workers);
        let (run, running) = (&run, &running);
        in_place_scope(|scope| {
            for _ in 0..workers {
                scope.spawn(move |_| {
                    let _guard = FinishGuard(running);
                    run();
                });
            }
            run();
            let deadline = Instant::now() + SPIN_TIME;
            while running.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
                std::hint::spin_loop();
            }
        })?;
    }
    match first_error
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
    {
        Some((_, error)) => Err(error),
        None => Ok(()),
    }
}

/// Runs `work` on the calling thread and the jobs it spawns on workers; returns when all have finished.
fn in_place_scope<'scope>(work: impl FnOnce(&rayon::Scope<'scope>)) -> Result<()> {
    match rayon::current_thread_index() {
        Some(_) => rayon::in_place_scope(work),
        None => pool()?.in_place_scope(work),
    }
    Ok(())
}

/// Decrements the number of running workers when a worker finishes or panics.
struct FinishGuard<'a>(&'a AtomicUsize);

impl Drop for FinishGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Release);
    }
}

/// Locks a mutex, also a poisoned one: a panic of `work` is propagated to the caller by rayon.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The pool of this process for the configured number of threads.
fn pool() -> Result<&'static rayon::ThreadPool> {
    let configured = CONFIGURED.load(Ordering::Relaxed);
    let slot = &POOLS[configured];
    let found = slot.load(Ordering::Acquire);
    // SAFETY: a pointer in POOLS comes from `Box::leak` and is never freed, so it is null or valid for good.
    // Not a mutex: one that another thread holds at the moment of a fork is never unlocked in the child.
    if let Some(pool) = unsafe { found.as_ref() }
        && pool.process == std::process::id()
    {
        return Ok(&pool.threads);
    }
    let threads = rayon::ThreadPoolBuilder::new()
        .num_threads(configured)
        .thread_name(|number| format!("llmdirect-{number}"))
        .build()
        .map_err(|error| {
            Error::Argument(format!(
                "cannot start threads: {error}; lower the number of threads"
            ))
        })?;
    // Two threads may both build a pool at the first call; then the last one is used, and neither is freed.
    let pool = Box::leak(Box::new(Pool {
        process: std::process::id(),
        threads,
    }));
    slot.store(pool, Ordering::Release);
    Ok(&pool.threads)
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    fn with_threads(threads: usize, work: impl FnOnce() + Send) {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(work);
    }

    #[test]
    fn every_task_runs_once() {
        for tasks in [0, 1, 2, 3, 1000] {
            let mut numbers = vec![0; tasks];
            let add = |_: &mut (), (index, number): (usize, &mut usize)| {
                *number += index + 1;
                Ok(())
            };
            parallel_for_each(numbers.iter_mut().enumerate(), add).unwrap();
            with_threads(4, || {
                parallel_for_each(numbers.iter_mut().enumerate(), add).unwrap()
            });
            assert!(numbers.iter().copied().eq((1..=tasks).map(|n| 2 * n)));
        }
    }

    #[test]
    fn the_first_error_in_task_order_is_returned() {
        for _ in 0..50 {
            let work = |_: &mut (), task: usize| match task % 7 {
                3 => Err(Error::Argument(format!("task {task}"))),
                _ => Ok(()),
            };
            let error = parallel_for_each(0..100, work).unwrap_err();
            assert_eq!(error.to_string(), "task 3");
        }
    }

    #[test]
    fn a_panic_is_propagated_and_the_pool_stays_usable() {
        for bad in [0, 50, 99] {
            let work = |_: &mut (), task: usize| {
                assert_ne!(task, bad, "the task that panics");
                Ok(())
            };
            let outcome = catch_unwind(AssertUnwindSafe(|| parallel_for_each(0..100, work)));
            assert!(outcome.is_err());
        }
        parallel_for_each(0..100, |_: &mut (), _| Ok(())).unwrap();
    }

    #[test]
    fn a_thread_reuses_its_state() {
        let total = AtomicUsize::new(0);
        #[derive(Default)]
        struct Count(usize);
        let work = |state: &mut Count, _| {
            state.0 += 1;
            total.fetch_max(state.0, Ordering::Relaxed);
            Ok(())
        };
        parallel_for_each(0..100, work).unwrap();
        assert!(total.into_inner() >= 100 / count().unwrap());
    }

    #[test]
    fn an_invalid_number_of_threads_is_refused() {
        for count in [0, MAX_THREADS + 1] {
            assert!(set_count(count).is_err());
        }
    }
}
