//! Full ranking: the k highest-scoring items of each user among all items that the user has not seen.

// Comparisons are negated where NaN must count as true; loops over lanes index several arrays at once.
#![allow(clippy::neg_cmp_op_on_partial_ord, clippy::needless_range_loop)]

mod block;
mod bounded;
mod kernel;
mod top;

use crate::cpu::Level;
use crate::csr::Csr;
use crate::memory::filled;
use crate::threads::{self, parallel_for_each};
use crate::{Cancel, Error, Result};
use block::FullRanker;
use bounded::BoundedRanker;

/// How the text term of a score is computed from user and item vectors.
#[derive(Debug, Clone, Copy)]
pub enum Form<'a> {
    /// query · item.
    Dot,
    /// (query · item) / (query · mass + eps).
    Ratio {
        /// Item masses `[items, dim]`.
        mass: &'a [f32],
        /// Added to the denominator, so that it is not 0.
        eps: f32,
    },
}

/// The collaborative term of item i: Σ `item_item[j, i]` over the items j of the user's history.
#[derive(Debug, Clone, Copy)]
pub struct Collaborative<'a> {
    /// Items in the history of each user.
    pub history: &'a Csr,
    /// Sparsity pattern of the item-item matrix: row j has the items to whose scores j contributes.
    pub item_item: &'a Csr,
    /// Values of the matrix, one for each index of `item_item`.
    pub values: &'a [f32],
}

/// The parameters of a score: (text term + collaborative term) + (user bias + item bias), in float32.
///
/// Terms are added in this order, and the terms of the history in its order.
#[derive(Debug, Clone, Copy)]
pub struct Scorer<'a> {
    /// Length of the vectors; 0 for none.
    pub dim: usize,
    /// Row-major user vectors `[users, dim]`.
    pub query: &'a [f32],
    /// Row-major item vectors `[items, dim]`.
    pub item: &'a [f32],
    /// Form of the text term.
    pub form: Form<'a>,
    /// Item biases `[items]`.
    pub item_bias: &'a [f32],
    /// User biases `[users]`; `None`: 0.
    pub user_bias: Option<&'a [f32]>,
    /// Number of users.
    pub num_users: usize,
    /// The collaborative term; `None`: 0.
    pub collaborative: Option<Collaborative<'a>>,
}

/// The users to rank for, and what to compute.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Users to rank for, as rows of the scorer and of both tables.
    pub users: &'a [i32],
    /// Number of items per list.
    pub k: usize,
    /// Items of each user that are excluded from the candidates.
    pub seen: Option<&'a Csr>,
    /// Relevant items of each user, for the AUC; seen items are excluded.
    pub relevant: Option<&'a Csr>,
}

/// The k highest-scoring candidates of each user.
#[derive(Debug, PartialEq)]
pub struct Lists {
    /// Items `[users, k]`, best first, ties by ascending item; -1 beyond the last candidate.
    pub items: Vec<i32>,
    /// Scores `[users, k]`; -inf for item -1.
    pub scores: Vec<f32>,
    /// AUC `[users]` if relevant items were given: the fraction of (relevant, other) pairs of candidates in
    /// which the relevant item has the higher score, ties counting half; NaN for a user without such a pair.
    pub auc: Option<Vec<f64>>,
}

/// Ranks all candidates of each user.
///
/// Needs memory for the lists and a copy of the item vectors.
///
/// # Errors
/// [`Error::Argument`] if lengths or indices are inconsistent, or if a score, also of a seen item, is NaN or
/// +inf; the message names the first such user in the order of `users`, and the item. [`Error::Interrupted`].
pub fn rank(scorer: &Scorer, request: Request, cancel: &Cancel) -> Result<Lists> {
    rank_at_level(Level::best(), scorer, request, cancel)
}

fn rank_at_level(
    level: Level,
    scorer: &Scorer,
    request: Request,
    cancel: &Cancel,
) -> Result<Lists> {
    validate(scorer, &request)?;
    if let Some(bounded) = BoundedRanker::new(scorer, request, cancel)? {
        return rank_in_blocks(request, bounded::MAX_USERS, |users, workspace, block| {
            bounded.rank(level, users, workspace, block)
        });
    }
    let full = FullRanker::new(scorer, request, cancel)?;
    rank_in_blocks(request, block::MAX_USERS, |users, workspace, block| {
        full.rank(level, users, workspace, block)
    })
}

/// Calls `rank` on blocks of at most `max_users` users in parallel, with one workspace per thread.
fn rank_in_blocks<W: Default + Send>(
    request: Request,
    max_users: usize,
    rank: impl Fn(&[i32], &mut W, &mut ListsBlock) -> Result<()> + Sync,
) -> Result<Lists> {
    // Full blocks make the best use of the cache, but every thread should get a block.
    let users_per_thread = request.users.len().div_ceil(threads::count()?);
    let rows = users_per_thread.clamp(1, max_users);
    let mut lists = Lists {
        items: filled(-1, request.users.len(), request.k, "k")?,
        scores: filled(f32::NEG_INFINITY, request.users.len(), request.k, "k")?,
        auc: request
            .relevant
            .map(|_| vec![f64::NAN; request.users.len()]),
    };
    let mut no_auc = vec![
        f64::NAN;
        if lists.auc.is_some() {
            0
        } else {
            request.users.len()
        }
    ];
    let auc = lists.auc.as_mut().unwrap_or(&mut no_auc);
    let list_blocks = split_lists(&mut lists.items, &mut lists.scores, auc, rows, request.k);
    let blocks = list_blocks.into_iter().zip(request.users.chunks(rows));
    parallel_for_each(blocks, |workspace: &mut W, (mut block, users)| {
        rank(users, workspace, &mut block)
    })?;
    Ok(lists)
}

/// The part of the lists that one block of users fills.
pub(super) struct ListsBlock<'a> {
    items: &'a mut [i32],
    scores: &'a mut [f32],
    auc: &'a mut [f64],
}

/// Splits the lists into blocks of `rows` users.
fn split_lists<'a>(
    mut items: &'a mut [i32],
    mut scores: &'a mut [f32],
    auc: &'a mut [f64],
    rows: usize,
    k: usize,
) -> Vec<ListsBlock<'a>> {
    let mut list_blocks = Vec::new();
    for auc in auc.chunks_mut(rows) {
        let size = auc.len() * k;
        list_blocks.push(ListsBlock {
            items: items.split_off_mut(..size).expect("k items a user"),
            scores: scores.split_off_mut(..size).expect("k scores a user"),
            auc,
        });
    }
    list_blocks
}

/// Checks lengths and indices.
fn validate(scorer: &Scorer, request: &Request) -> Result<()> {
    let (num_users, num_items) = (scorer.num_users, scorer.item_bias.len());
    let invalid = |message: String| Err(Error::Argument(message));
    if num_items > i32::MAX as usize {
        return invalid(format!("{num_items} items do not fit into int32 indices"));
    }
    let mut lengths = vec![
        (
            "query",
            scorer.query.len(),
            num_users.saturating_mul(scorer.dim),
        ),
        (
            "item",
            scorer.item.len(),
            num_items.saturating_mul(scorer.dim),
        ),
    ];
    if let Form::Ratio { mass, eps } = scorer.form {
        lengths.push((
            "item_mass",
            mass.len(),
            num_items.saturating_mul(scorer.dim),
        ));
        if !(eps.is_finite() && eps >= 0.0) {
            return invalid(format!("eps is {eps}; it must be finite and not negative"));
        }
    }
    if let Some(user_bias) = scorer.user_bias {
        lengths.push(("user_bias", user_bias.len(), num_users));
    }
    if let Some(term) = scorer.collaborative {
        term.history
            .check_shape("history", Some(num_users), num_items)?;
        term.item_item
            .check_shape("item_item", Some(num_items), num_items)?;
        let entries = term.item_item.indices().len();
        lengths.push(("item_item values", term.values.len(), entries));
    }
    if let Some((name, found, expected)) = lengths
        .iter()
        .find(|(_, found, expected)| found != expected)
    {
        return invalid(format!(
            "{name} has {found} values, expected {expected} for {num_users} users, {num_items} items and \
             vectors of {}",
            scorer.dim
        ));
    }
    for (name, table) in [("seen", request.seen), ("relevant", request.relevant)] {
        if let Some(table) = table {
            table.check_shape(name, Some(num_users), num_items)?;
        }
    }
    let out_of_range = |user: &i32| *user < 0 || *user as usize >= num_users;
    if let Some(position) = request.users.iter().position(out_of_range) {
        let user = request.users[position];
        return invalid(format!(
            "user_rows[{position}] is {user}, but the score tables have {num_users} users"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
