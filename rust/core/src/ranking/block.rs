//! Ranking that scores every item, for blocks of users, one item panel at a time.

use super::kernel::{Counts, LANES, Lanes, Panels};
use super::top::TopK;
use super::{Collaborative, Form, ListsBlock, Request, Scorer};
use crate::cpu::{Level, dispatch};
use crate::{Cancel, Error, Result};

/// Most users of a block, which share each load of an item panel.
pub const MAX_USERS: usize = 96;
/// Panels between two checks of the cancel flag.
const PANELS_PER_CHECK: usize = 64;

/// A ranker that scores every item of every user; shared by all blocks.
pub struct FullRanker<'a> {
    scorer: &'a Scorer<'a>,
    request: Request<'a>,
    panels: Panels,
    masses: Option<(Panels, f32)>,
    num_items: usize,
    /// Item biases by panel, padded with -inf.
    item_bias: Vec<Lanes>,
    cancel: &'a Cancel,
}

/// Buffers of one thread.
#[derive(Default)]
pub struct Workspace {
    /// Queries packed as `[groups][dim][users of a group]`.
    queries: Vec<f32>,
    /// Collaborative terms of one user, by item; all 0 between users.
    sums: Vec<f32>,
    /// Bit set of the items that have a collaborative term.
    touched: Vec<u64>,
    states: Vec<UserState>,
}

/// State of one user during the scan of the panels.
#[derive(Default)]
struct UserState {
    user: usize,
    bias: f32,
    top: TopK,
    /// Number of the user's seen items before the current panel.
    num_seen_passed: usize,
    /// Collaborative terms as (item, value), by ascending item.
    collaborative: Vec<(u32, f32)>,
    /// Number of these terms that were added.
    num_collaborative_added: usize,
    /// The result of [`next_item`](Self::next_item).
    next_special: usize,
    /// Scores of the relevant candidates.
    relevant: Vec<f32>,
    /// Twice the number of (relevant, candidate) pairs in which the relevant item has the higher score, a tie
    /// counting half: by lane since the last check of the cancel flag, and in total before that.
    lane_wins: Counts,
    double_wins: u64,
}

impl<'a> FullRanker<'a> {
    /// Packs the items into panels.
    pub fn new(scorer: &'a Scorer, request: Request<'a>, cancel: &'a Cancel) -> Result<Self> {
        let num_items = scorer.item_bias.len();
        let mut item_bias = vec![Lanes([f32::NEG_INFINITY; LANES]); num_items.div_ceil(LANES)];
        for (lanes, biases) in item_bias.iter_mut().zip(scorer.item_bias.chunks(LANES)) {
            lanes.0[..biases.len()].copy_from_slice(biases);
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

    /// Ranks the items of a block of users.
    pub fn rank(
        &self,
        level: Level,
        users: &[i32],
        workspace: &mut Workspace,
        block: &mut ListsBlock,
    ) -> Result<()> {
        // 64-bit ARM always has fused multiply-add and 32 registers.
        const PORTABLE: (usize, bool) = match cfg!(target_arch = "aarch64") {
            true => (6, true),
            false => (2, false),
        };
        dispatch!(level, (
            ranker: &FullRanker = self,
            users: &[i32] = users,
            workspace: &mut Workspace = workspace,
            block: &mut ListsBlock = block,
        ) -> Result<()> {
            portable: ranker.rank_with::<{ PORTABLE.0 }, { PORTABLE.1 }, false>(users, workspace, block),
            // The sums of 6 users × 16 items take 12 of 16 registers, of 12 users × 32 items 24 of 32;
            // operands need the others.
            avx2: ranker.rank_with::<6, true, false>(users, workspace, block),
            avx512: ranker.rank_with::<12, true, true>(users, workspace, block),
        })
    }

    #[inline(always)]
    fn rank_with<const GROUP: usize, const FMA: bool, const AVX512: bool>(
        &self,
        users: &[i32],
        workspace: &mut Workspace,
        block: &mut ListsBlock,
    ) -> Result<()> {
        self.prepare::<GROUP, FMA>(users, workspace);
        let size = self.scorer.dim * GROUP;
        let states = &mut workspace.states[..users.len()];
        let (mut texts, mut masses) = ([Lanes::ZERO; GROUP], [Lanes::ZERO; GROUP]);
        for (panel, biases) in self.item_bias.iter().enumerate() {
            if panel % PANELS_PER_CHECK == 0 {
                self.cancel.check()?;
                states.iter_mut().for_each(UserState::flush_wins);
            }
            for (index, states) in states.chunks_mut(GROUP).enumerate() {
                // The text terms stay in the L1 cache.
                let (queries, _) = workspace.queries[index * size..][..size].as_chunks::<GROUP>();
                self.panels
                    .multiply::<GROUP, FMA, AVX512>(panel, queries, &mut texts);
                if let Some((panels, eps)) = &self.masses {
                    panels.multiply::<GROUP, FMA, AVX512>(panel, queries, &mut masses);
                    for (text, mass) in texts.iter_mut().zip(&masses) {
                        text.divide(mass, *eps);
                    }
                }
                for (state, text) in states.iter_mut().zip(&mut texts) {
                    self.finish_panel::<AVX512>(state, panel * LANES, biases, text)?;
                }
            }
        }
        let k = self.request.k;
        for (index, state) in states.iter_mut().enumerate() {
            state.flush_wins();
            let list = index * k..(index + 1) * k;
            state
                .top
                .write_sorted(&mut block.items[list.clone()], &mut block.scores[list]);
            block.auc[index] = self.auc(state);
        }
        Ok(())
    }

    /// Packs the queries and initialises the state of every user.
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
        if workspace.states.len() < users.len() {
            workspace
                .states
                .resize_with(users.len(), UserState::default);
        }
        for (index, &user) in users.iter().enumerate() {
            let user = user as usize;
            let query = &self.scorer.query[user * dim..][..dim];
            let start = index / GROUP * dim * GROUP + index % GROUP;
            for (axis, &value) in query.iter().enumerate() {
                workspace.queries[start + axis * GROUP] = value;
            }
            let state = &mut workspace.states[index];
            state.user = user;
            state.bias = self.scorer.user_bias.map_or(0.0, |bias| bias[user]);
            state.top.clear(self.request.k);
            state.num_seen_passed = 0;
            state.num_collaborative_added = 0;
            state.collaborative.clear();
            if let Some(term) = self.scorer.collaborative {
                workspace.sums.resize(self.num_items, 0.0);
                workspace.touched.resize(self.num_items.div_ceil(64), 0);
                collect_collaborative(
                    term,
                    user,
                    &mut workspace.sums,
                    &mut workspace.touched,
                    &mut state.collaborative,
                );
            }
            state.next_special = state.next_item(self.seen(user), self.num_items);
            state.double_wins = 0;
            state.relevant.clear();
            if let Some(relevant) = self.request.relevant {
                let seen = self.seen(user);
                let candidates = relevant.row(user).iter();
                let candidates = candidates.filter(|item| seen.binary_search(item).is_err());
                let scores = candidates
                    .map(|&item| self.score::<FMA>(user, state.bias, &state.collaborative, item));
                state.relevant.extend(scores);
            }
        }
    }

    /// The seen items of a user.
    fn seen(&self, user: usize) -> &[i32] {
        self.request.seen.map_or(&[], |seen| seen.row(user))
    }

    /// The score of one item, bit-identical to that computed by panel.
    #[inline(always)]
    fn score<const FMA: bool>(
        &self,
        user: usize,
        bias: f32,
        collaborative: &[(u32, f32)],
        item: i32,
    ) -> f32 {
        let item = item as usize;
        let query = &self.scorer.query[user * self.scorer.dim..][..self.scorer.dim];
        let mut text = self.panels.dot::<FMA>(item, query);
        if let Some((panels, eps)) = &self.masses {
            text /= panels.dot::<FMA>(item, query) + eps;
        }
        if let Ok(index) = collaborative.binary_search_by_key(&(item as u32), |term| term.0) {
            text += collaborative[index].1;
        }
        text + (bias + self.scorer.item_bias[item])
    }

    /// Turns the text terms of a panel into scores, excludes seen items, and updates AUC counts and top k.
    #[inline(always)]
    fn finish_panel<const AVX512: bool>(
        &self,
        state: &mut UserState,
        first: usize,
        biases: &Lanes,
        scores: &mut Lanes,
    ) -> Result<()> {
        let special = state.next_special < first + LANES;
        if special {
            state.add_collaborative(first, scores);
        }
        let (invalid, mask) = scores.add_biases::<AVX512>(state.bias, biases, state.top.threshold);
        if invalid && let Some(error) = score_error(state.user, first, self.num_items, scores) {
            return Err(error);
        }
        if special {
            state.exclude(first, self.seen(state.user), self.num_items, scores);
        }
        for &relevant in &state.relevant {
            state.lane_wins.add(scores, relevant);
        }
        if mask != 0 {
            state.top.push_lanes(first, scores, mask);
        }
        Ok(())
    }

    /// The AUC of a user after the scan; NaN without a (relevant, other) pair.
    fn auc(&self, state: &UserState) -> f64 {
        let relevant = state.relevant.len() as u64;
        let candidates = (self.num_items - self.seen(state.user).len()) as u64;
        let pairs = relevant * (candidates - relevant);
        if pairs == 0 {
            return f64::NAN;
        }
        // Every relevant item was also compared with all relevant items. Each pair of them has one win in
        // total, and each item ties with itself, so these comparisons add relevant² to twice the wins.
        (state.double_wins - relevant * relevant) as f64 / (2 * pairs) as f64
    }
}

impl UserState {
    /// The next item that is seen or has a collaborative term; the number of items if there is none.
    fn next_item(&self, seen: &[i32], num_items: usize) -> usize {
        let collaborative = self
            .collaborative
            .get(self.num_collaborative_added)
            .map(|term| term.0 as usize);
        let seen = seen.get(self.num_seen_passed).map(|&item| item as usize);
        collaborative
            .into_iter()
            .chain(seen)
            .min()
            .unwrap_or(num_items)
    }

    /// Adds the collaborative terms to the text terms of the items `first..`.
    #[inline(never)]
    fn add_collaborative(&mut self, first: usize, texts: &mut Lanes) {
        while let Some(&(item, term)) = self.collaborative.get(self.num_collaborative_added)
            && (item as usize) < first + LANES
        {
            texts.0[item as usize - first] += term;
            self.num_collaborative_added += 1;
        }
    }

    /// Sets the scores of seen items and of padding to NaN in the panel of the items `first..`.
    #[inline(never)]
    fn exclude(&mut self, first: usize, seen: &[i32], num_items: usize, scores: &mut Lanes) {
        while let Some(&item) = seen.get(self.num_seen_passed)
            && (item as usize) < first + LANES
        {
            scores.0[item as usize - first] = f32::NAN;
            self.num_seen_passed += 1;
        }
        if num_items < first + LANES {
            scores.0[num_items - first..].fill(f32::NAN);
        }
        self.next_special = self.next_item(seen, num_items);
    }

    /// Adds the lane counters to the total, before they can overflow.
    fn flush_wins(&mut self) {
        self.double_wins += self.lane_wins.take_sum();
    }
}

/// Sums the item-item rows of the user's history into `collaborative`, (item, value) by ascending item.
fn collect_collaborative(
    term: Collaborative,
    user: usize,
    sums: &mut [f32],
    touched: &mut [u64],
    collaborative: &mut Vec<(u32, f32)>,
) {
    for &item in term.history.row(user) {
        let range = term.item_item.range(item as usize);
        for (&other, value) in term.item_item.indices()[range.clone()]
            .iter()
            .zip(&term.values[range])
        {
            sums[other as usize] += value;
            touched[other as usize / 64] |= 1 << (other % 64);
        }
    }
    for (index, word) in touched.iter_mut().enumerate() {
        while *word != 0 {
            let item = index * 64 + word.trailing_zeros() as usize;
            collaborative.push((item as u32, sums[item]));
            sums[item] = 0.0;
            *word &= *word - 1;
        }
    }
}

/// The error for a NaN or +inf among the scores of the items `first..`; `None` if only padding is invalid.
#[cold]
fn score_error(user: usize, first: usize, num_items: usize, scores: &Lanes) -> Option<Error> {
    let invalid = |score: &f32| score.is_nan() || *score == f32::INFINITY;
    let lane = scores.0.iter().take(num_items - first).position(invalid)?;
    Some(Error::Argument(format!(
        "the score of user {user} and item {} is {}; check their vectors and biases for NaN, infinity and \
         overflow",
        first + lane,
        scores.0[lane]
    )))
}
