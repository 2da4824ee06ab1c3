//! Bindings of `llmdirect_core::ranking`.

use llmdirect_core::Csr;
use llmdirect_core::ranking::{self, Collaborative, Form, Request, Scorer};
use numpy::{IntoPyArray, Ix1, Ix2, PyArray1, PyArray2, PyArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::arrays::{array, copied, size};
use crate::csr::CheckedCsr;
use crate::gil::release_gil;

/// Items, scores and AUC.
type Lists<'py> = (
    Bound<'py, PyArray2<i32>>,
    Bound<'py, PyArray2<f32>>,
    Option<Bound<'py, PyArray1<f64>>>,
);

/// Ranks all candidates of `users`; returns items int32 [B, k], scores float32 [B, k], and AUC float64 [B] or
/// None.
#[pyfunction]
#[pyo3(signature = (
    users, k, query, item, item_bias, *, item_mass=None, eps=0.0, user_bias=None, history=None,
    item_item=None, item_item_values=None, seen=None, relevant=None
))]
#[expect(clippy::too_many_arguments, reason = "keywords of one Python call")]
fn rank<'py>(
    py: Python<'py>,
    users: &Bound<'py, PyAny>,
    k: &Bound<'py, PyAny>,
    query: &Bound<'py, PyAny>,
    item: &Bound<'py, PyAny>,
    item_bias: &Bound<'py, PyAny>,
    item_mass: Option<&Bound<'py, PyAny>>,
    eps: f32,
    user_bias: Option<&Bound<'py, PyAny>>,
    history: Option<&Bound<'py, CheckedCsr>>,
    item_item: Option<&Bound<'py, CheckedCsr>>,
    item_item_values: Option<&Bound<'py, PyAny>>,
    seen: Option<&Bound<'py, CheckedCsr>>,
    relevant: Option<&Bound<'py, CheckedCsr>>,
) -> PyResult<Lists<'py>> {
    let users: Vec<i32> = copied("users", users)?;
    let k = size("k", k)?;
    // Tables are shared with the caller: their values are multiplied, added and compared only.
    let query = array::<f32, Ix2>("query", query)?;
    let item = array::<f32, Ix2>("item", item)?;
    let item_bias = array::<f32, Ix1>("item_bias", item_bias)?;
    let mass = item_mass
        .map(|mass| array::<f32, Ix2>("item_mass", mass))
        .transpose()?;
    let user_bias = user_bias
        .map(|bias| array::<f32, Ix1>("user_bias", bias))
        .transpose()?;
    let values = item_item_values
        .map(|values| array::<f32, Ix1>("item_item_values", values))
        .transpose()?;

    let (num_users, dim) = query.as_array().dim();
    for (name, found) in [("item", Some(&item)), ("item_mass", mass.as_ref())] {
        if let Some((_, found)) = found.map(|found| found.as_array().dim())
            && found != dim
        {
            let message = format!("{name} has vectors of dimension {found}, but query of {dim}");
            return Err(PyValueError::new_err(message));
        }
    }
    let collaborative = match (history, item_item, values.as_ref()) {
        (Some(history), Some(item_item), Some(values)) => Some(Collaborative {
            history: &history.get().0,
            item_item: &item_item.get().0,
            values: values.as_slice()?,
        }),
        (None, None, None) => None,
        _ => {
            return Err(PyValueError::new_err(
                "history, item_item and item_item_values belong together: give all or none",
            ));
        }
    };
    let form = match mass.as_ref() {
        Some(mass) => Form::Ratio {
            mass: mass.as_slice()?,
            eps,
        },
        None => Form::Dot,
    };
    let scorer = Scorer {
        dim,
        query: query.as_slice()?,
        item: item.as_slice()?,
        form,
        item_bias: item_bias.as_slice()?,
        user_bias: user_bias.as_ref().map(|bias| bias.as_slice()).transpose()?,
        num_users,
        collaborative,
    };
    let request = Request {
        users: &users,
        k,
        seen: seen.map(table),
        relevant: relevant.map(table),
    };
    let lists = release_gil(py, |cancel| ranking::rank(&scorer, request, cancel))?;
    let shape = [request.users.len(), k];
    Ok((
        lists.items.into_pyarray(py).reshape(shape)?,
        lists.scores.into_pyarray(py).reshape(shape)?,
        lists.auc.map(|auc| auc.into_pyarray(py)),
    ))
}

/// The table inside a binding.
fn table<'a>(csr: &'a Bound<'_, CheckedCsr>) -> &'a Csr {
    &csr.get().0
}

/// Adds this file's function to the module.
pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(rank, module)?)
}
