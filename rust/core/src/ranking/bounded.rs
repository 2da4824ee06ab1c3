//! Exact ranking of the ratio form that skips items by upper bounds on their scores.
//!
//! With q, Q >= 0, the text term (q·P) / (q·Q + eps) is an average of the ratios P_k / Q_k of the item with
//! weights that sum to less than 1, so it is at most max(0, max_k P_k / Q_k). Items are visited by descending
//! bound, and a user is finished when the k-th best score exceeds the bound of all remaining items. Before
//! that, a score is compared with the k-th best by `q·P < (threshold - biases) (q·Q + eps)`, and divided only
//! if the comparison does not exclude it. Every comparison has a margin for rounding errors; scores in the
//! lists are bit-identical to those of [`FullRanker`](super::block::FullRanker).

use rayon::prelude::*;

use super::kernel::{LANES, Lanes, Panels, ratio_candidates};
use super::top::TopK;
use super::{Form, ListsBlock, Request, Scorer};
use crate::cpu::{Level, dispatch};
use crate::threads::{self, parallel_for_each};
use crate::{Cancel, Result};

/// Most users of a block, which share each load of a tile.
pub const MAX_USERS: usize = 64;
/// Items whose bounds are computed per task.
const ITEMS_PER_TASK: usize = 1 << 10;
/// Panels per tile, which stays in the L1 cache while all users of a block are processed.
const TILE: usize = 12;
/// Margin for rounding errors, relative to the terms of a comparison: each has fewer than ten roundings of
/// 2^-24.
const ROUNDING_MARGIN: f32 = 1.0 / (1 << 20) as f32;
/// Limit of the magnitude of sums, far enough below the largest float32 to exclude overflow.
const MAX_SUM: f64 = 1e36;

/// A ranker of the ratio form, with items packed by descending bound.
pub struct BoundedRanker<'a> {
    scorer: &'a Scorer<'a>,
    request: Request<'a>,
    eps: f32,
    panels: Panels,
    masses: Panels,
    /// Item biases by panel, padded with -inf.
    biases: Vec<Lanes>,
    /// Items by panel, padded with -1.
    items: Vec<[i32; LANES]>,
    /// For each panel, an upper bound on text term plus item bias in it and all later panels.
    bounds: Vec<f32>,
    largest_bias: f32,
    cancel: &'a Cancel,
}

/// Buffers of one thread.
#[derive(Default)]
pub struct Workspace {
    states: Vec<UserState>,
    /// Indices of the users that are not finished.
    active: Vec<usize>,
}

/// State of one user during the scan of the tiles.
#[derive(Default)]
struct UserState {
    user: usize,
    bias: f32,
    top: TopK,
    /// Score that an item must reach to enter the top k, minus the margin for rounding errors.
    min_score: f32,
}

impl<'a> BoundedRanker<'a> {
    /// Sorts and packs the items; `None` if the bounds do not hold or all scores are needed.
    pub fn new(
        scorer: &'a Scorer,
        request: Request<'a>,
        cancel: &'a Cancel,
    ) -> Result<Option<Self>> {
        let Form::Ratio { mass, eps } = scorer.form else {
            return Ok(None);
        };
        let Some(largest_bias) = bounds_hold(scorer, &request, mass, eps) else {
            return Ok(None);
        };
        let dim = scorer.dim;
        let bound = |item: usize| {
            let range = item * dim..(item + 1) * dim;
            upper_bound(
                &scorer.item[range.clone()],
                &mass[range],
                scorer.item_bias[item],
            )
        };
        let num_items = scorer.item_bias.len();
        let mut order = vec![(0.0, 0); num_items];
        parallel_for_each(
            order.chunks_mut(ITEMS_PER_TASK).enumerate(),
            |_: &mut (), (task, order)| {
                cancel.check()?;
                for (index, entry) in order.iter_mut().enumerate() {
                    let item = task * ITEMS_PER_TASK + index;
                    *entry = (bound(item), item as i32);
                }
                Ok(())
            },
        )?;
        threads::install(|| {
            order.par_sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)))
        })?;
        let sorted = |vectors: &[f32]| -> Vec<f32> {
            let vector = |&(_, item): &(f32, i32)| &vectors[item as usize * dim..][..dim];
            order.iter().flat_map(vector).copied().collect()
        };
        let num_panels = order.len().div_ceil(LANES);
        let mut biases = vec![Lanes([f32::NEG_INFINITY; LANES]); num_panels];
        let mut items = vec![[-1; LANES]; num_panels];
        for (index, &(_, item)) in order.iter().enumerate() {
            biases[index / LANES].0[index % LANES] = scorer.item_bias[item as usize];
            items[index / LANES][index % LANES] = item;
        }
        Ok(Some(Self {
            scorer,
            request,
            eps,
            panels: Panels::new(&sorted(scorer.item), dim, cancel)?,
            masses: Panels::new(&sorted(mass), dim, cancel)?,
            biases,
            items,
            bounds: order
                .iter()
                .step_by(LANES)
                .map(|(bound, _)| *bound)
                .collect(),
            largest_bias,
            cancel,
        }))
    }

    /// Ranks the items of a block of users.
    pub fn rank(
        &self,
        level: Level,
        users: &[i32],
        workspace: &mut Workspace,
        block: &mut ListsBlock,
    ) -> Result<()> {
        dispatch!(level, (
            ranker: &BoundedRanker = self,
            users: &[i32] = users,
            workspace: &mut Workspace = workspace,
            block: &mut ListsBlock = block,
        ) -> Result<()> {
            portable: ranker.rank_with::<{ cfg!(target_arch = "aarch64") }, false>(users, workspace, block),
            avx2: ranker.rank_with::<true, false>(users, workspace, block),
            avx512: ranker.rank_with::<true, true>(users, workspace, block),
        })
    }

    #[inline(always)]
    fn rank_with<const FMA: bool, const AVX512: bool>(
        &self,
        users: &[i32],
        workspace: &mut Workspace,
        block: &mut ListsBlock,
    ) -> Result<()> {
        let Workspace { states, active } = workspace;
        if states.len() < users.len() {
            states.resize_with(users.len(), UserState::default);
        }
        for (state, &user) in states.iter_mut().zip(users) {
            state.user = user as usize;
            state.bias = self.scorer.user_bias.map_or(0.0, |bias| bias[state.user]);
            state.top.clear(self.request.k);
            state.min_score = f32::NAN;
        }
        active.clear();
        active.extend(0..users.len());
        for first in (0..self.items.len()).step_by(TILE) {
            self.cancel.check()?;
            let tile = first..self.items.len().min(first + TILE);
            active.retain(|&index| self.scan_tile::<FMA, AVX512>(&mut states[index], tile.clone()));
            if active.is_empty() {
                break;
            }
        }
        let k = self.request.k;
        for (index, state) in states[..users.len()].iter_mut().enumerate() {
            let list = index * k..(index + 1) * k;
            state
                .top
                .write_sorted(&mut block.items[list.clone()], &mut block.scores[list]);
        }
        Ok(())
    }

    /// Scans the panels of a tile for a user; false if no later item can enter the top k.
    #[inline(always)]
    fn scan_tile<const FMA: bool, const AVX512: bool>(
        &self,
        state: &mut UserState,
        tile: std::ops::Range<usize>,
    ) -> bool {
        let dim = self.scorer.dim;
        let query = &self.scorer.query[state.user * dim..][..dim];
        let (mut texts, mut masses) = (Lanes::ZERO, Lanes::ZERO);
        for panel in tile {
            // False if `min_score` is NaN, which it is until k candidates have been selected.
            if state.bias + self.bounds[panel] < state.min_score {
                return false;
            }
            let mut mask = ratio_candidates::<FMA, AVX512>(
                (self.panels.panel(panel), self.masses.panel(panel)),
                query,
                self.eps,
                (state.min_score, state.bias, &self.biases[panel]),
                (&mut texts, &mut masses),
            );
            if mask == 0 {
                continue;
            }
            state.top.make_room();
            while mask != 0 {
                let lane = mask.trailing_zeros() as usize;
                mask &= mask - 1;
                let item = self.items[panel][lane];
                let text = texts.0[lane] / (masses.0[lane] + self.eps);
                let score = text + (state.bias + self.biases[panel].0[lane]);
                // A smaller item wins a tie, and items are not visited in ascending order.
                if !(score < state.top.threshold) && item >= 0 && !self.is_seen(state.user, item) {
                    state.top.push(score, item);
                }
            }
            let threshold = state.top.threshold;
            state.min_score = threshold
                - ROUNDING_MARGIN * (threshold.abs() + state.bias.abs() + self.largest_bias);
        }
        true
    }

    /// Whether an item is excluded from the candidates of a user.
    fn is_seen(&self, user: usize, item: i32) -> bool {
        let seen = self.request.seen;
        seen.is_some_and(|seen| seen.row(user).binary_search(&item).is_ok())
    }
}

/// The largest item bias if bounds hold for all users and not all scores are needed; else `None`.
fn bounds_hold(scorer: &Scorer, request: &Request, mass: &[f32], eps: f32) -> Option<f32> {
    if scorer.collaborative.is_some() || request.relevant.is_some() || request.k == 0 {
        return None;
    }
    let query = max_magnitude(scorer.query, 0.0)?;
    let numerator = f64::from(query) * f64::from(max_magnitude(scorer.item, f32::MIN)?);
    let denominator = f64::from(query) * f64::from(max_magnitude(mass, 0.0)?);
    let user_bias = max_magnitude(scorer.user_bias.unwrap_or(&[]), f32::MIN)?;
    // An item bias may be -inf.
    let finite: Vec<f32> = scorer
        .item_bias
        .iter()
        .copied()
        .filter(|b| *b > f32::NEG_INFINITY)
        .collect();
    let nan = scorer.item_bias.iter().any(|bias| bias.is_nan());
    let largest_bias = max_magnitude(&finite, f32::MIN)?;
    let sums = numerator
        .max(denominator)
        .max(f64::from(user_bias + largest_bias));
    let safe = sums * scorer.dim as f64 / f64::from(eps).min(1.0) < MAX_SUM;
    let hold = !nan && safe && eps > 0.0 && scorer.dim > 0;
    hold.then_some(largest_bias)
}

/// The largest magnitude; `None` if a value is below `least` or not finite.
fn max_magnitude(numbers: &[f32], least: f32) -> Option<f32> {
    let good = numbers.iter().all(|n| (least..=f32::MAX).contains(n));
    let max_magnitude = numbers
        .iter()
        .fold(0.0, |max_magnitude: f32, n| max_magnitude.max(n.abs()));
    good.then_some(max_magnitude)
}

/// An upper bound on the computed text term plus bias of an item, for every query.
fn upper_bound(item: &[f32], mass: &[f32], bias: f32) -> f32 {
    let ratios = item.iter().zip(mass).filter(|(p, _)| **p != 0.0);
    let ratios = ratios.map(|(&p, &q)| f64::from(p) / f64::from(q));
    let (best, size) = ratios.fold((0.0, 0.0), |(best, size): (f64, f64), ratio| {
        (best.max(ratio), size.max(ratio.abs()))
    });
    // Two sums of dim terms, a division and a sum: 2 dim + 3 roundings of 2^-24 relative to the largest
    // ratio.
    let rounding = (2 * item.len() + 8) as f64 * 2f64.powi(-24) * size;
    let bound = (best + rounding + f64::from(bias)) as f32;
    match bound.is_nan() {
        true => f32::INFINITY, // -inf + inf
        false => bound.next_up(),
    }
}
