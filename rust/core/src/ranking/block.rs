//! A block of users against the catalogue, tile by tile, in buffers that stay in the cache.

use super::kernel::{LANES, Panels};
use super::top::Top;
use super::{Collaborative, Part, Request, Scorer};
use crate::cpu::{Level, dispatch};
use crate::{Cancel, Error, Result};

/// Most users of a block: each item panel that was loaded serves all of them.
pub const MAX_USERS: usize = 96;
/// Items of a tile: a whole number of panels.
pub const TILE: usize = STRIPS * LANES;
/// Panels of a tile.
const STRIPS: usize = 8;

/// What all blocks share.
pub struct Job<'a> {
    pub scorer: &'a Scorer<'a>,
    pub request: Request<'a>,
    pub panels: Panels,
    pub masses: Option<(Panels, f32)>,
    pub num_items: usize,
    /// Those of the scorer, and -inf for the places behind the last item, up to a whole number of tiles.
    pub item_bias: Vec<f32>,
    pub cancel: &'a Cancel,
}

/// Buffers of one thread.
#[derive(Default)]
pub struct Workspace {
    /// Queries as `[groups][dim][users of a group]`.
    queries: Vec<f32>,
    /// `[users of the block, TILE]`
    scores: Vec<f32>,
    /// The same for the denominators of the ratio form.
    masses: Vec<f32>,
    /// One user's collaborative term for every item, all 0 between users.
    dense: Vec<f32>,
    /// Bit i: the term of item i was touched.
    touched: Vec<u64>,
    rows: Vec<Row>,
}

/// One user while the tiles pass.
#[derive(Default)]
struct Row {
    user: usize,
    bias: f32,
    top: Top,
    /// How many of the user's seen items lie before the current tile.
    seen_passed: usize,
    /// The collaborative term where it is not empty, by item; and how many of them were added.
    boosts: Vec<(u32, f32)>,
    boosts_passed: usize,
    /// Scores of the relevant candidates.
    relevant: Vec<f32>,
    /// Twice the number of (relevant, candidate) pairs that the relevant one wins, a tie counting half.
    twice_won: u64,
}

impl Job<'_> {
    /// Ranks for these users.
    pub fn rank(
        &self,
        level: Level,
        users: &[i32],
        workspace: &mut Workspace,
        part: &mut Part,
    ) -> Result<()> {
        // 64-bit ARM always has fused multiply-add, and 32 registers.
        const PORTABLE: (usize, bool) = match cfg!(target_arch = "aarch64") {
            true => (6, true),
            false => (2, false),
        };
        dispatch!(level, (
            job: &Job = self,
            users: &[i32] = users,
            workspace: &mut Workspace = workspace,
            part: &mut Part = part,
        ) -> Result<()> {
            portable: job.rank_with::<{ PORTABLE.0 }, { PORTABLE.1 }, false>(users, workspace, part),
            // 6 users × 16 items are 12 of 16 registers, 12 users × 32 items 24 of 32; the rest hold operands.
            avx2: job.rank_with::<6, true, false>(users, workspace, part),
            avx512: job.rank_with::<12, true, true>(users, workspace, part),
        })
    }

    #[inline(always)]
    fn rank_with<const GROUP: usize, const FMA: bool, const WIDE: bool>(
        &self,
        users: &[i32],
        workspace: &mut Workspace,
        part: &mut Part,
    ) -> Result<()> {
        self.prepare::<GROUP, FMA>(users, workspace);
        for first in (0..self.num_items).step_by(TILE) {
            self.cancel.check()?;
            let width = TILE.min(self.num_items - first);
            let Workspace {
                queries,
                scores,
                masses,
                ..
            } = workspace;
            multiply_tile::<GROUP, FMA, WIDE>(
                &self.panels,
                first,
                width,
                queries,
                self.scorer.dim,
                scores,
            );
            if let Some((panels, eps)) = &self.masses {
                multiply_tile::<GROUP, FMA, WIDE>(panels, first, width, queries, self.scorer.dim, masses);
                for (score, mass) in scores.iter_mut().zip(masses) {
                    *score /= *mass + eps;
                }
            }
            let rows = workspace.rows[..users.len()].iter_mut();
            for (row, scores) in rows.zip(workspace.scores.as_chunks_mut::<TILE>().0) {
                self.finish(row, first, scores, width)?;
            }
        }
        let k = self.request.k;
        for (index, row) in workspace.rows[..users.len()].iter_mut().enumerate() {
            let list = index * k..(index + 1) * k;
            row.top
                .write(&mut part.items[list.clone()], &mut part.scores[list]);
            part.auc[index] = self.auc(row);
        }
        Ok(())
    }

    /// Lays out the queries and starts every user's row.
    #[inline(always)]
    fn prepare<const GROUP: usize, const FMA: bool>(
        &self,
        users: &[i32],
        workspace: &mut Workspace,
    ) {
        let dim = self.scorer.dim;
        let groups = users.len().div_ceil(GROUP);
        workspace.scores.resize(groups * GROUP * TILE, 0.0);
        if self.masses.is_some() {
            workspace.masses.resize(groups * GROUP * TILE, 0.0);
        }
        workspace.queries.clear();
        workspace.queries.resize(groups * dim * GROUP, 0.0);
        if workspace.rows.len() < users.len() {
            workspace.rows.resize_with(users.len(), Row::default);
        }
        for (index, &user) in users.iter().enumerate() {
            let user = user as usize;
            let query = &self.scorer.query[user * dim..][..dim];
            let start = index / GROUP * dim * GROUP + index % GROUP;
            for (axis, &value) in query.iter().enumerate() {
                workspace.queries[start + axis * GROUP] = value;
            }
            let row = &mut workspace.rows[index];
            row.user = user;
            row.bias = self.scorer.user_bias.map_or(0.0, |bias| bias[user]);
            row.top.clear(self.request.k);
            row.seen_passed = 0;
            row.boosts_passed = 0;
            row.boosts.clear();
            if let Some(term) = self.scorer.collaborative {
                workspace.dense.resize(self.num_items, 0.0);
                workspace.touched.resize(self.num_items.div_ceil(64), 0);
                collect_boosts(
                    term,
                    user,
                    &mut workspace.dense,
                    &mut workspace.touched,
                    &mut row.boosts,
                );
            }
            row.twice_won = 0;
            row.relevant.clear();
            if let Some(relevant) = self.request.relevant {
                let seen = self.seen(user);
                let candidates = relevant.row(user).iter();
                let candidates = candidates.filter(|item| seen.binary_search(item).is_err());
                let scores =
                    candidates.map(|&item| self.score::<FMA>(user, row.bias, &row.boosts, item));
                row.relevant.extend(scores);
            }
        }
    }

    fn seen(&self, user: usize) -> &[i32] {
        self.request.seen.map_or(&[], |seen| seen.row(user))
    }

    /// One score, bit for bit as the tiles give it.
    #[inline(always)]
    fn score<const FMA: bool>(
        &self,
        user: usize,
        bias: f32,
        boosts: &[(u32, f32)],
        item: i32,
    ) -> f32 {
        let item = item as usize;
        let query = &self.scorer.query[user * self.scorer.dim..][..self.scorer.dim];
        let mut text = self.panels.dot::<FMA>(item, query);
        if let Some((panels, eps)) = &self.masses {
            text /= panels.dot::<FMA>(item, query) + eps;
        }
        if let Ok(place) = boosts.binary_search_by_key(&(item as u32), |boost| boost.0) {
            text += boosts[place].1;
        }
        text + (bias + self.scorer.item_bias[item])
    }

    /// Turns the text terms of a tile into scores, and takes the seen items, the AUC and the best from it.
    #[inline(always)]
    fn finish(&self, row: &mut Row, first: usize, scores: &mut [f32; TILE], width: usize) -> Result<()> {
        let last = first + width;
        while let Some(&(item, boost)) = row.boosts.get(row.boosts_passed)
            && (item as usize) < last
        {
            scores[item as usize - first] += boost;
            row.boosts_passed += 1;
        }
        let bar = row.top.bar();
        let biases = &self.item_bias[first..][..TILE];
        // Bit s: strip s may hold a score that enters the list.
        let (mut finite, mut better) = (true, 0u32);
        let strips = scores.as_chunks_mut::<LANES>().0.iter_mut();
        for (strip, (scores, biases)) in strips.zip(biases.as_chunks::<LANES>().0).enumerate() {
            let mut any = false;
            for (score, item_bias) in scores.iter_mut().zip(biases) {
                *score += row.bias + item_bias;
                finite &= *score < f32::INFINITY;
                any |= !(*score <= bar); // also where no bar is known yet, which is NaN
            }
            better |= u32::from(any) << strip;
        }
        if !finite && let Some(error) = bad_score(row.user, first, &scores[..width]) {
            return Err(error);
        }
        let seen = self.seen(row.user);
        while let Some(&item) = seen.get(row.seen_passed)
            && (item as usize) < last
        {
            scores[item as usize - first] = f32::NAN;
            row.seen_passed += 1;
        }
        for &relevant in &row.relevant {
            row.twice_won += twice_won(relevant, &scores[..width]);
        }
        while better != 0 {
            let start = better.trailing_zeros() as usize * LANES;
            better &= better - 1;
            let end = width.min(start + LANES).max(start);
            row.top.offer(first + start, &scores[start..end]);
        }
        Ok(())
    }

    fn auc(&self, row: &Row) -> f64 {
        let relevant = row.relevant.len() as u64;
        let candidates = (self.num_items - self.seen(row.user).len()) as u64;
        let pairs = relevant * (candidates - relevant);
        if pairs == 0 {
            return f64::NAN;
        }
        // Every relevant item was compared with the relevant ones too, itself included. Two of them share
        // one win between them and each ties with itself, so twice their wins are relevant².
        (row.twice_won - relevant * relevant) as f64 / (2 * pairs) as f64
    }
}

/// Products of the block's users and a tile's items: `[users, TILE]`.
#[inline(always)]
fn multiply_tile<const GROUP: usize, const FMA: bool, const WIDE: bool>(
    panels: &Panels,
    first: usize,
    width: usize,
    queries: &[f32],
    dim: usize,
    products: &mut [f32],
) {
    if dim == 0 {
        products.fill(0.0);
        return;
    }
    // The panel stays in the innermost cache while all users pass it.
    for column in (0..width).step_by(LANES) {
        let groups = queries.chunks_exact(dim * GROUP);
        for (group, products) in groups.zip(products.chunks_exact_mut(GROUP * TILE)) {
            let (group, _) = group.as_chunks::<GROUP>();
            panels.multiply::<GROUP, FMA, WIDE>(
                (first + column) / LANES,
                group,
                &mut products[column..],
                TILE,
            );
        }
    }
}

/// Sums the item-item rows of the user's history, and lists the items that any of them touches.
fn collect_boosts(
    term: Collaborative,
    user: usize,
    dense: &mut [f32],
    touched: &mut [u64],
    boosts: &mut Vec<(u32, f32)>,
) {
    for &item in term.history.row(user) {
        let range = term.item_item.range(item as usize);
        for (&other, value) in term.item_item.indices()[range.clone()]
            .iter()
            .zip(&term.values[range])
        {
            dense[other as usize] += value;
            touched[other as usize / 64] |= 1 << (other % 64);
        }
    }
    for (index, word) in touched.iter_mut().enumerate() {
        while *word != 0 {
            let item = index * 64 + word.trailing_zeros() as usize;
            boosts.push((item as u32, dense[item]));
            dense[item] = 0.0;
            *word &= *word - 1;
        }
    }
}

/// Twice the candidates below `relevant`, plus those equal to it; NaN counts for neither.
#[inline(always)]
fn twice_won(relevant: f32, scores: &[f32]) -> u64 {
    let won = scores.iter().fold(0u32, |won, &score| {
        won + u32::from(score < relevant) + u32::from(score <= relevant)
    });
    u64::from(won)
}

/// What to say where one of the scores is NaN or +inf.
#[cold]
fn bad_score(user: usize, first: usize, scores: &[f32]) -> Option<Error> {
    let bad = |score: &f32| score.is_nan() || *score == f32::INFINITY;
    let lane = scores.iter().position(bad)?;
    Some(Error::Argument(format!(
        "the score of user {user} and item {} is {}; look for NaN, infinity or overflow in their vectors and \
         biases",
        first + lane,
        scores[lane]
    )))
}
