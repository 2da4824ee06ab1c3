//! A block of users against the catalogue, panel by panel: scores go from registers into the lists.

use super::kernel::{Counts, LANES, Panels, Strip};
use super::top::Top;
use super::{Collaborative, Form, Part, Request, Scorer};
use crate::cpu::{Level, dispatch};
use crate::{Cancel, Error, Result};

/// Most users of a block: each item panel that was loaded serves all of them.
pub const MAX_USERS: usize = 96;
/// Panels between two looks at the cancel flag.
const STEP: usize = 64;

/// What all blocks share.
pub struct Job<'a> {
    scorer: &'a Scorer<'a>,
    request: Request<'a>,
    panels: Panels,
    masses: Option<(Panels, f32)>,
    num_items: usize,
    /// Those of the scorer by panel, and -inf behind the last item.
    item_bias: Vec<Strip>,
    cancel: &'a Cancel,
}

/// Buffers of one thread.
#[derive(Default)]
pub struct Workspace {
    /// Queries as `[groups][dim][users of a group]`.
    queries: Vec<f32>,
    /// One user's collaborative term for every item, all 0 between users.
    dense: Vec<f32>,
    /// Bit i: the term of item i was touched.
    touched: Vec<u64>,
    rows: Vec<Row>,
}

/// One user while the panels pass.
#[derive(Default)]
struct Row {
    user: usize,
    bias: f32,
    top: Top,
    /// How many of the user's seen items lie before the current panel.
    seen_passed: usize,
    /// The collaborative term where it is not empty, by item; and how many of them were added.
    boosts: Vec<(u32, f32)>,
    boosts_passed: usize,
    /// As [`next_item`](Self::next_item) says.
    next: usize,
    /// Scores of the relevant candidates.
    relevant: Vec<f32>,
    /// Twice the number of (relevant, candidate) pairs that the relevant one wins, a tie counting half:
    /// by lane since the last look at the cancel flag, and in all before.
    lanes_won: Counts,
    twice_won: u64,
}

impl<'a> Job<'a> {
    /// Lays out the items.
    pub fn new(scorer: &'a Scorer, request: Request<'a>, cancel: &'a Cancel) -> Result<Self> {
        let num_items = scorer.item_bias.len();
        let mut item_bias = vec![Strip([f32::NEG_INFINITY; LANES]); num_items.div_ceil(LANES)];
        for (strip, biases) in item_bias.iter_mut().zip(scorer.item_bias.chunks(LANES)) {
            strip.0[..biases.len()].copy_from_slice(biases);
        }
        let masses = match scorer.form {
            Form::Dot => None,
            Form::Ratio { mass, eps } => Some((Panels::new(mass, scorer.dim, cancel)?, eps)),
        };
        Ok(Self {
            scorer,
            request,
            panels: Panels::new(scorer.item, scorer.dim, cancel)?,
            masses,
            num_items,
            item_bias,
            cancel,
        })
    }

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
        let size = self.scorer.dim * GROUP;
        let rows = &mut workspace.rows[..users.len()];
        let (mut texts, mut masses) = ([Strip::ZERO; GROUP], [Strip::ZERO; GROUP]);
        for (panel, biases) in self.item_bias.iter().enumerate() {
            if panel % STEP == 0 {
                self.cancel.check()?;
                rows.iter_mut().for_each(Row::add_up);
            }
            for (index, rows) in rows.chunks_mut(GROUP).enumerate() {
                // Texts go no further than the innermost cache.
                let (queries, _) = workspace.queries[index * size..][..size].as_chunks::<GROUP>();
                self.panels
                    .multiply::<GROUP, FMA, WIDE>(panel, queries, &mut texts);
                if let Some((panels, eps)) = &self.masses {
                    panels.multiply::<GROUP, FMA, WIDE>(panel, queries, &mut masses);
                    for (text, mass) in texts.iter_mut().zip(&masses) {
                        text.divide(mass, *eps);
                    }
                }
                for (row, text) in rows.iter_mut().zip(&mut texts) {
                    self.finish::<WIDE>(row, panel * LANES, biases, text)?;
                }
            }
        }
        let k = self.request.k;
        for (index, row) in rows.iter_mut().enumerate() {
            row.add_up();
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
            row.next = row.next_item(self.seen(user), self.num_items);
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

    /// One score, bit for bit as the panels give it.
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

    /// Turns a panel's text terms into scores, and takes the seen items, the AUC and the best from it.
    #[inline(always)]
    fn finish<const WIDE: bool>(
        &self,
        row: &mut Row,
        first: usize,
        biases: &Strip,
        scores: &mut Strip,
    ) -> Result<()> {
        let special = row.next < first + LANES;
        if special {
            row.add_boosts(first, scores);
        }
        let (bad, enters) = scores.finish::<WIDE>(row.bias, biases, row.top.bar);
        if bad && let Some(error) = bad_score(row.user, first, self.num_items, scores) {
            return Err(error);
        }
        if special {
            row.hide(first, self.seen(row.user), self.num_items, scores);
        }
        for &relevant in &row.relevant {
            row.lanes_won.add(scores, relevant);
        }
        if enters != 0 {
            row.top.offer(first, scores, enters);
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

impl Row {
    /// The next item that is seen or has a collaborative term, or the place behind the last item.
    fn next_item(&self, seen: &[i32], num_items: usize) -> usize {
        let boosted = self
            .boosts
            .get(self.boosts_passed)
            .map(|boost| boost.0 as usize);
        let seen = seen.get(self.seen_passed).map(|&item| item as usize);
        boosted.into_iter().chain(seen).min().unwrap_or(num_items)
    }

    /// Adds the collaborative term to the texts of the items `first..`.
    #[inline(never)]
    fn add_boosts(&mut self, first: usize, texts: &mut Strip) {
        while let Some(&(item, boost)) = self.boosts.get(self.boosts_passed)
            && (item as usize) < first + LANES
        {
            texts.0[item as usize - first] += boost;
            self.boosts_passed += 1;
        }
    }

    /// Marks the items `first..` that are no candidates, and the places behind the last item.
    #[inline(never)]
    fn hide(&mut self, first: usize, seen: &[i32], num_items: usize, scores: &mut Strip) {
        while let Some(&item) = seen.get(self.seen_passed)
            && (item as usize) < first + LANES
        {
            scores.0[item as usize - first] = f32::NAN;
            self.seen_passed += 1;
        }
        if num_items < first + LANES {
            scores.0[num_items - first..].fill(f32::NAN);
        }
        self.next = self.next_item(seen, num_items);
    }

    /// Empties the counters of the lanes before they can overflow.
    fn add_up(&mut self) {
        self.twice_won += self.lanes_won.take();
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

/// What to say where one of the scores of the items `first..` is NaN or +inf.
#[cold]
fn bad_score(user: usize, first: usize, num_items: usize, scores: &Strip) -> Option<Error> {
    let bad = |score: &f32| score.is_nan() || *score == f32::INFINITY;
    let lane = scores.0.iter().take(num_items - first).position(bad)?;
    Some(Error::Argument(format!(
        "the score of user {user} and item {} is {}; look for NaN, infinity or overflow in their vectors and \
         biases",
        first + lane,
        scores.0[lane]
    )))
}
