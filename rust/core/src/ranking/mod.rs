//! Full ranking: every item is scored for every user, the seen ones are taken out, the best k stay.

// Comparisons are negated where NaN has to pass, and lanes are counted where several vectors run side by side.
#![allow(clippy::neg_cmp_op_on_partial_ord, clippy::needless_range_loop)]

mod block;
mod bounded;
mod kernel;
mod top;

use crate::cpu::Level;
use crate::csr::Csr;
use crate::threads::{self, share};
use crate::{Cancel, Error, Result};
use block::Job;
use bounded::Bounded;

/// How the text term of a score is made of user and item vectors.
#[derive(Debug, Clone, Copy)]
pub enum Form<'a> {
    /// query · item.
    Dot,
    /// (query · item) / (query · mass + eps).
    Ratio {
        /// Item masses `[items, dim]`.
        mass: &'a [f32],
        /// What keeps the denominator from 0.
        eps: f32,
    },
}

/// The collaborative term: Σ over the items j of the user's history of `item_item[j, i]`.
#[derive(Debug, Clone, Copy)]
pub struct Collaborative<'a> {
    /// Items of each user.
    pub history: &'a Csr,
    /// Where the item-item table has entries: row j holds what j adds to other items.
    pub item_item: &'a Csr,
    /// The entries, one for each of the indices of `item_item`.
    pub values: &'a [f32],
}

/// All that a score is made of: (text term + collaborative term) + (user bias + item bias), in float32.
///
/// Terms are added in this order, those of the history in its order.
#[derive(Debug, Clone, Copy)]
pub struct Scorer<'a> {
    /// Length of the vectors; 0 for none.
    pub dim: usize,
    /// Row-major user vectors `[users, dim]`.
    pub query: &'a [f32],
    /// Row-major item vectors `[items, dim]`.
    pub item: &'a [f32],
    /// How they make the text term.
    pub form: Form<'a>,
    /// `[items]`
    pub item_bias: &'a [f32],
    /// `[users]`
    pub user_bias: Option<&'a [f32]>,
    /// Number of users.
    pub num_users: usize,
    /// The collaborative term, where there is one.
    pub collaborative: Option<Collaborative<'a>>,
}

/// What to rank, and against what.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Users to rank for: rows of the scorer and of both tables.
    pub users: &'a [i32],
    /// Length of the lists.
    pub k: usize,
    /// Items that are no candidates, by user.
    pub seen: Option<&'a Csr>,
    /// Relevant items by user, for the AUC; those that are seen too do not count.
    pub relevant: Option<&'a Csr>,
}

/// The best k candidates of each user.
#[derive(Debug, PartialEq)]
pub struct Lists {
    /// `[users, k]`, best first, equal scores by smaller item; -1 where there are fewer candidates than k.
    pub items: Vec<i32>,
    /// `[users, k]`; -inf beside item -1.
    pub scores: Vec<f32>,
    /// `[users]` if relevant items were given: the share of (relevant, other) pairs of candidates in which
    /// the relevant one has the higher score, ties half; NaN for a user without such a pair.
    pub auc: Option<Vec<f64>>,
}

/// Ranks all candidates of each user. Memory: users × k, and a copy of the item vectors.
///
/// # Errors
/// [`Error::Argument`] where lengths or indices do not fit, and for a score that is NaN or +inf (of a
/// candidate or not), naming the user and the item; among several the first in the order of `users`.
pub fn rank(scorer: &Scorer, request: Request, cancel: &Cancel) -> Result<Lists> {
    rank_at(Level::best(), scorer, request, cancel)
}

fn rank_at(level: Level, scorer: &Scorer, request: Request, cancel: &Cancel) -> Result<Lists> {
    check(scorer, &request)?;
    if let Some(bounded) = Bounded::new(scorer, request, cancel)? {
        return in_blocks(request, bounded::MAX_USERS, |users, workspace, part| {
            bounded.rank(level, users, workspace, part)
        });
    }
    let job = Job::new(scorer, request, cancel)?;
    in_blocks(request, block::MAX_USERS, |users, workspace, part| {
        job.rank(level, users, workspace, part)
    })
}

/// Gives blocks of at most `max_users` to the threads, each with a workspace of its own.
fn in_blocks<W: Default + Send>(
    request: Request,
    max_users: usize,
    rank: impl Fn(&[i32], &mut W, &mut Part) -> Result<()> + Sync,
) -> Result<Lists> {
    // Full blocks use the cache best, but every thread should have one.
    let fair_share = request.users.len().div_ceil(threads::count()?);
    let rows = fair_share.clamp(1, max_users);
    let mut lists = Lists {
        items: filled(-1, request)?,
        scores: filled(f32::NEG_INFINITY, request)?,
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
    let parts = split(&mut lists.items, &mut lists.scores, auc, rows, request.k);
    let blocks = parts.into_iter().zip(request.users.chunks(rows));
    share(blocks, |workspace: &mut W, (mut part, users)| {
        rank(users, workspace, &mut part)
    })?;
    Ok(lists)
}

/// A value for each place of the lists.
fn filled<T: Copy>(value: T, request: Request) -> Result<Vec<T>> {
    let beyond = || Error::Argument(format!("k = {} is beyond memory", request.k));
    let length = request
        .users
        .len()
        .checked_mul(request.k)
        .ok_or_else(beyond)?;
    let mut values = Vec::new();
    values.try_reserve_exact(length).map_err(|_| beyond())?;
    values.resize(length, value);
    Ok(values)
}

/// Where one block of users writes.
pub(super) struct Part<'a> {
    items: &'a mut [i32],
    scores: &'a mut [f32],
    auc: &'a mut [f64],
}

fn split<'a>(
    mut items: &'a mut [i32],
    mut scores: &'a mut [f32],
    auc: &'a mut [f64],
    rows: usize,
    k: usize,
) -> Vec<Part<'a>> {
    let mut parts = Vec::new();
    for auc in auc.chunks_mut(rows) {
        let size = auc.len() * k;
        parts.push(Part {
            items: items.split_off_mut(..size).expect("k items a user"),
            scores: scores.split_off_mut(..size).expect("k scores a user"),
            auc,
        });
    }
    parts
}

fn check(scorer: &Scorer, request: &Request) -> Result<()> {
    let (num_users, num_items) = (scorer.num_users, scorer.item_bias.len());
    let wrong = |message: String| Err(Error::Argument(message));
    if num_items > i32::MAX as usize {
        return wrong(format!("{num_items} items do not fit into int32 indices"));
    }
    let mut lengths = vec![
        ("query", scorer.query.len(), num_users * scorer.dim),
        ("item", scorer.item.len(), num_items * scorer.dim),
    ];
    if let Form::Ratio { mass, eps } = scorer.form {
        lengths.push(("item_mass", mass.len(), num_items * scorer.dim));
        if !(eps.is_finite() && eps >= 0.0) {
            return wrong(format!("eps is {eps}; it must be finite and not negative"));
        }
    }
    if let Some(user_bias) = scorer.user_bias {
        lengths.push(("user_bias", user_bias.len(), num_users));
    }
    if let Some(term) = scorer.collaborative {
        term.history.expect("history", Some(num_users), num_items)?;
        term.item_item
            .expect("item_item", Some(num_items), num_items)?;
        let entries = term.item_item.indices().len();
        lengths.push(("item_item values", term.values.len(), entries));
    }
    if let Some((name, found, expected)) = lengths
        .iter()
        .find(|(_, found, expected)| found != expected)
    {
        return wrong(format!(
            "{name} holds {found} numbers, expected {expected} for {num_users} users, {num_items} items and \
             vectors of {}",
            scorer.dim
        ));
    }
    for (name, table) in [("seen", request.seen), ("relevant", request.relevant)] {
        if let Some(table) = table {
            table.expect(name, Some(num_users), num_items)?;
        }
    }
    let outside = |user: &i32| *user < 0 || *user as usize >= num_users;
    if let Some(position) = request.users.iter().position(outside) {
        let user = request.users[position];
        return wrong(format!(
            "user_rows[{position}] is {user}, but the scorer has {num_users} users"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
