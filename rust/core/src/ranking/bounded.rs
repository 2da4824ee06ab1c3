//! The ratio form without scoring every item: exact, by two bounds.
//!
//! With q, Q >= 0 the text term (q·P) / (q·Q + eps) is a mean of the items' ratios P_k / Q_k with weights that
//! sum to less than 1, so it is at most max(0, max_k P_k / Q_k). Items are visited by falling bound, and a
//! user is done when the k-th best score is above what is left. And a score is compared with the k-th best
//! without its division, `q·P < (bar - biases) (q·Q + eps)`, which is made only where that does not decide.
//! Every comparison leaves room for rounding; what passes gets the score that [`Job`](super::block::Job)
//! gives, bit for bit.

use rayon::prelude::*;

use super::kernel::{LANES, Panels, Strip, quotients_to_beat};
use super::top::Top;
use super::{Form, Part, Request, Scorer};
use crate::cpu::{Level, dispatch};
use crate::threads::{self, share};
use crate::{Cancel, Result};

/// Most users of a block: each tile that was loaded serves all of them.
pub const MAX_USERS: usize = 64;
/// Items whose bounds one thread finds at a time.
const PIECE: usize = 1 << 10;
/// Panels of a tile: they stay in the innermost cache while the users pass.
const TILE: usize = 12;
/// Room for rounding, in proportion to the terms of a comparison: each takes less than ten roundings of
/// 2^-24.
const ROOM: f32 = 1.0 / (1 << 20) as f32;
/// No product or sum of numbers below this is infinite.
const LARGE: f64 = 1e36;

/// The items of a scorer of ratio form, by falling bound.
pub struct Bounded<'a> {
    scorer: &'a Scorer<'a>,
    request: Request<'a>,
    eps: f32,
    panels: Panels,
    masses: Panels,
    /// By panel, as the vectors.
    biases: Vec<Strip>,
    items: Vec<[i32; LANES]>,
    /// What no text term plus item bias of this panel or a later one exceeds.
    bounds: Vec<f32>,
    largest_bias: f32,
    cancel: &'a Cancel,
}

/// Buffers of one thread.
#[derive(Default)]
pub struct Workspace {
    rows: Vec<Row>,
    /// Those of `rows` that are not done.
    active: Vec<usize>,
}

#[derive(Default)]
struct Row {
    user: usize,
    bias: f32,
    top: Top,
    /// What a score has to reach, less the room for rounding.
    cut: f32,
}

impl<'a> Bounded<'a> {
    /// Orders the items; `None` where the bounds do not hold, or all scores are asked for.
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
        share(
            order.chunks_mut(PIECE).enumerate(),
            |_: &mut (), (piece, order)| {
                cancel.check()?;
                for (place, entry) in order.iter_mut().enumerate() {
                    let item = piece * PIECE + place;
                    *entry = (bound(item), item as i32);
                }
                Ok(())
            },
        )?;
        threads::install(|| {
            order.par_sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)))
        })?;
        let gathered = |vectors: &[f32]| -> Vec<f32> {
            let vector = |&(_, item): &(f32, i32)| &vectors[item as usize * dim..][..dim];
            order.iter().flat_map(vector).copied().collect()
        };
        let num_panels = order.len().div_ceil(LANES);
        let mut biases = vec![Strip([f32::NEG_INFINITY; LANES]); num_panels];
        let mut items = vec![[-1; LANES]; num_panels];
        for (place, &(_, item)) in order.iter().enumerate() {
            biases[place / LANES].0[place % LANES] = scorer.item_bias[item as usize];
            items[place / LANES][place % LANES] = item;
        }
        Ok(Some(Self {
            scorer,
            request,
            eps,
            panels: Panels::new(&gathered(scorer.item), dim, cancel)?,
            masses: Panels::new(&gathered(mass), dim, cancel)?,
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

    /// Ranks for these users.
    pub fn rank(
        &self,
        level: Level,
        users: &[i32],
        workspace: &mut Workspace,
        part: &mut Part,
    ) -> Result<()> {
        dispatch!(level, (
            bounded: &Bounded = self,
            users: &[i32] = users,
            workspace: &mut Workspace = workspace,
            part: &mut Part = part,
        ) -> Result<()> {
            portable: bounded.rank_with::<{ cfg!(target_arch = "aarch64") }, false>(users, workspace, part),
            avx2: bounded.rank_with::<true, false>(users, workspace, part),
            avx512: bounded.rank_with::<true, true>(users, workspace, part),
        })
    }

    #[inline(always)]
    fn rank_with<const FMA: bool, const WIDE: bool>(
        &self,
        users: &[i32],
        workspace: &mut Workspace,
        part: &mut Part,
    ) -> Result<()> {
        let Workspace { rows, active } = workspace;
        if rows.len() < users.len() {
            rows.resize_with(users.len(), Row::default);
        }
        for (row, &user) in rows.iter_mut().zip(users) {
            row.user = user as usize;
            row.bias = self.scorer.user_bias.map_or(0.0, |bias| bias[row.user]);
            row.top.clear(self.request.k);
            row.cut = f32::NAN;
        }
        active.clear();
        active.extend(0..users.len());
        for first in (0..self.items.len()).step_by(TILE) {
            self.cancel.check()?;
            let tile = first..self.items.len().min(first + TILE);
            active.retain(|&index| self.pass::<FMA, WIDE>(&mut rows[index], tile.clone()));
            if active.is_empty() {
                break;
            }
        }
        let k = self.request.k;
        for (index, row) in rows[..users.len()].iter_mut().enumerate() {
            let list = index * k..(index + 1) * k;
            row.top
                .write(&mut part.items[list.clone()], &mut part.scores[list]);
        }
        Ok(())
    }

    /// Offers the panels of a tile to a user; false when no later item can enter the list.
    #[inline(always)]
    fn pass<const FMA: bool, const WIDE: bool>(
        &self,
        row: &mut Row,
        tile: std::ops::Range<usize>,
    ) -> bool {
        let dim = self.scorer.dim;
        let query = &self.scorer.query[row.user * dim..][..dim];
        let (mut texts, mut masses) = (Strip::ZERO, Strip::ZERO);
        for panel in tile {
            // Neither holds where the cut is NaN, as no k candidates are known.
            if row.bias + self.bounds[panel] < row.cut {
                return false;
            }
            let mut enters = quotients_to_beat::<FMA, WIDE>(
                (self.panels.panel(panel), self.masses.panel(panel)),
                query,
                self.eps,
                (row.cut, row.bias, &self.biases[panel]),
                (&mut texts, &mut masses),
            );
            if enters == 0 {
                continue;
            }
            row.top.make_room();
            while enters != 0 {
                let lane = enters.trailing_zeros() as usize;
                enters &= enters - 1;
                let item = self.items[panel][lane];
                let text = texts.0[lane] / (masses.0[lane] + self.eps);
                let score = text + (row.bias + self.biases[panel].0[lane]);
                // An equal score may be that of a smaller item.
                if !(score < row.top.bar) && item >= 0 && !self.is_seen(row.user, item) {
                    row.top.push(score, item);
                }
            }
            let bar = row.top.bar;
            row.cut = bar - ROOM * (bar.abs() + row.bias.abs() + self.largest_bias);
        }
        true
    }

    fn is_seen(&self, user: usize, item: i32) -> bool {
        let seen = self.request.seen;
        seen.is_some_and(|seen| seen.row(user).binary_search(&item).is_ok())
    }
}

/// Whether an item's bound holds for all users, and not all scores are asked for: the largest item bias.
fn bounds_hold(scorer: &Scorer, request: &Request, mass: &[f32], eps: f32) -> Option<f32> {
    if scorer.collaborative.is_some() || request.relevant.is_some() || request.k == 0 {
        return None;
    }
    let query = largest(scorer.query, 0.0)?;
    let numerator = f64::from(query) * f64::from(largest(scorer.item, f32::MIN)?);
    let denominator = f64::from(query) * f64::from(largest(mass, 0.0)?);
    let user_bias = largest(scorer.user_bias.unwrap_or(&[]), f32::MIN)?;
    // An item bias may be -inf.
    let finite: Vec<f32> = scorer
        .item_bias
        .iter()
        .copied()
        .filter(|b| *b > f32::NEG_INFINITY)
        .collect();
    let nan = scorer.item_bias.iter().any(|bias| bias.is_nan());
    let largest_bias = largest(&finite, f32::MIN)?;
    let sums = numerator
        .max(denominator)
        .max(f64::from(user_bias + largest_bias));
    let safe = sums * scorer.dim as f64 / f64::from(eps).min(1.0) < LARGE;
    let hold = !nan && safe && eps > 0.0 && scorer.dim > 0;
    hold.then_some(largest_bias)
}

/// The largest magnitude; `None` if a number is below `least` or not finite.
fn largest(numbers: &[f32], least: f32) -> Option<f32> {
    let good = numbers.iter().all(|n| (least..=f32::MAX).contains(n));
    let largest = numbers
        .iter()
        .fold(0.0, |largest: f32, n| largest.max(n.abs()));
    good.then_some(largest)
}

/// What the computed text term plus bias of an item does not exceed, whatever the query.
fn upper_bound(item: &[f32], mass: &[f32], bias: f32) -> f32 {
    let ratios = item.iter().zip(mass).filter(|(p, _)| **p != 0.0);
    let ratios = ratios.map(|(&p, &q)| f64::from(p) / f64::from(q));
    let (best, size) = ratios.fold((0.0, 0.0), |(best, size): (f64, f64), ratio| {
        (best.max(ratio), size.max(ratio.abs()))
    });
    // Sums of dim terms, a division, a sum: 2 dim + 3 roundings of 2^-24 of the largest ratio.
    let rounding = (2 * item.len() + 8) as f64 * 2f64.powi(-24) * size;
    let bound = (best + rounding + f64::from(bias)) as f32;
    match bound.is_nan() {
        true => f32::INFINITY, // -inf + inf
        false => bound.next_up(),
    }
}
