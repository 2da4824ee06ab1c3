//! The threads that the core works on.
//!
//! They are made at the first call of a process, and again in a forked child, which inherits none: a child
//! that waited for its parent's threads would hang.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

/// Most threads that can be asked for.
const MAX_THREADS: usize = 256;

/// Asked for by [`set_num_threads`]; 0: as many as rayon finds, by `RAYON_NUM_THREADS` or the processor.
static ASKED: AtomicUsize = AtomicUsize::new(0);

/// One pool for each number of threads that was ever asked for.
static POOLS: [AtomicPtr<Pool>; MAX_THREADS + 1] =
    [const { AtomicPtr::new(ptr::null_mut()) }; MAX_THREADS + 1];

struct Pool {
    process: u32,
    threads: rayon::ThreadPool,
}

/// The pool of this process.
pub fn pool() -> PyResult<&'static rayon::ThreadPool> {
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
        .map_err(|error| PyValueError::new_err(format!("no threads to work on: {error}")))?;
    // Two threads may both come here at the first call; then both pools live on, and one is used.
    let pool = Box::leak(Box::new(Pool {
        process: std::process::id(),
        threads,
    }));
    place.store(pool, Ordering::Release);
    Ok(&pool.threads)
}

/// Number of threads of the calls to come, 1 to 256; results do not depend on it.
#[pyfunction]
fn set_num_threads(count: usize) -> PyResult<()> {
    if !(1..=MAX_THREADS).contains(&count) {
        return Err(PyValueError::new_err(format!(
            "{count} threads, expected 1 to {MAX_THREADS}"
        )));
    }
    ASKED.store(count, Ordering::Relaxed);
    Ok(())
}

/// Number of threads that a call works on.
#[pyfunction]
fn num_threads() -> PyResult<usize> {
    Ok(pool()?.current_num_threads())
}

/// Adds this file's functions to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(set_num_threads, module)?)?;
    module.add_function(wrap_pyfunction!(num_threads, module)?)
}
