use super::*;
use crate::random::Stream;

/// A random scorer with few distinct values, so that ties are common, and its tables.
struct Fixture {
    dim: usize,
    query: Vec<f32>,
    item: Vec<f32>,
    mass: Vec<f32>,
    item_bias: Vec<f32>,
    user_bias: Vec<f32>,
    history: Csr,
    item_item: Csr,
    values: Vec<f32>,
    seen: Csr,
    relevant: Csr,
}

impl Fixture {
    fn new(num_users: usize, num_items: usize, dim: usize, seed: u64) -> Self {
        let mut stream = Stream::new(seed, 0, 0);
        let mut numbers = |count: usize, least: i32| -> Vec<f32> {
            (0..count)
                .map(|_| (stream.below(4) as i32 + least) as f32)
                .collect()
        };
        let query = numbers(num_users * dim, 0);
        let item = numbers(num_items * dim, -2);
        let mass = numbers(num_items * dim, 0);
        let (item_bias, user_bias) = (numbers(num_items, 0), numbers(num_users, 0));
        let mut table = |rows: usize, percent: u32| {
            let (mut indptr, mut indices) = (vec![0], vec![]);
            for _ in 0..rows {
                indices.extend((0..num_items as i32).filter(|_| stream.below(100) < percent));
                indptr.push(indices.len() as i64);
            }
            Csr::new(indptr, indices).unwrap()
        };
        let (history, item_item) = (table(num_users, 10), table(num_items, 20));
        let (seen, relevant) = (table(num_users, 30), table(num_users, 5));
        let values = (0..item_item.indices().len())
            .map(|_| stream.below(3) as f32)
            .collect();
        Self {
            dim,
            query,
            item,
            mass,
            item_bias,
            user_bias,
            history,
            item_item,
            values,
            seen,
            relevant,
        }
    }

    fn scorer(&self, ratio: bool) -> Scorer<'_> {
        Scorer {
            dim: self.dim,
            query: &self.query,
            item: &self.item,
            form: if ratio {
                Form::Ratio {
                    mass: &self.mass,
                    eps: 0.5,
                }
            } else {
                Form::Dot
            },
            item_bias: &self.item_bias,
            user_bias: Some(&self.user_bias),
            num_users: self.user_bias.len(),
            collaborative: Some(Collaborative {
                history: &self.history,
                item_item: &self.item_item,
                values: &self.values,
            }),
        }
    }

    fn request<'a>(&'a self, users: &'a [i32], k: usize) -> Request<'a> {
        Request {
            users,
            k,
            seen: Some(&self.seen),
            relevant: Some(&self.relevant),
        }
    }

    /// Scores of one user by the formula; exact except for the division, as all values are small integers.
    fn scores(&self, ratio: bool, user: usize) -> Vec<f32> {
        let dot = |vectors: &[f32], item: usize| -> f32 {
            (0..self.dim)
                .map(|axis| self.query[user * self.dim + axis] * vectors[item * self.dim + axis])
                .sum()
        };
        let score = |item: usize| {
            let mut text = dot(&self.item, item);
            if ratio {
                text /= dot(&self.mass, item) + 0.5;
            }
            let mut collaborative = 0.0;
            for &j in self.history.row(user) {
                let row = self.item_item.range(j as usize);
                if let Some(index) = self
                    .item_item
                    .row(j as usize)
                    .iter()
                    .position(|&other| other as usize == item)
                {
                    collaborative += self.values[row.start + index];
                }
            }
            (text + collaborative) + (self.user_bias[user] + self.item_bias[item])
        };
        (0..self.item_bias.len()).map(score).collect()
    }
}

fn reference(fixture: &Fixture, ratio: bool, users: &[i32], k: usize) -> Lists {
    let (mut items, mut scores, mut auc) = (vec![], vec![], vec![]);
    for &user in users {
        let user = user as usize;
        let all = fixture.scores(ratio, user);
        let seen = fixture.seen.row(user);
        let relevant = fixture.relevant.row(user);
        let mut order: Vec<i32> = (0..all.len() as i32)
            .filter(|item| !seen.contains(item))
            .collect();
        order.sort_by(|&a, &b| {
            all[b as usize]
                .partial_cmp(&all[a as usize])
                .unwrap()
                .then(a.cmp(&b))
        });
        let (mut wins, mut pairs) = (0.0, 0);
        for &positive in order.iter().filter(|item| relevant.contains(item)) {
            for &negative in order.iter().filter(|item| !relevant.contains(item)) {
                pairs += 1;
                wins += match all[positive as usize]
                    .partial_cmp(&all[negative as usize])
                    .unwrap()
                {
                    std::cmp::Ordering::Greater => 1.0,
                    std::cmp::Ordering::Equal => 0.5,
                    std::cmp::Ordering::Less => 0.0,
                };
            }
        }
        auc.push(if pairs == 0 {
            -1.0
        } else {
            wins / f64::from(pairs)
        });
        order.resize(k, -1);
        scores.extend(order.iter().map(|&item| match item {
            -1 => f32::NEG_INFINITY,
            _ => all[item as usize],
        }));
        items.extend(order);
    }
    Lists {
        items,
        scores,
        auc: Some(auc),
    }
}

/// Replaces NaN, which is not equal to itself, by -1.
fn without_nan(mut lists: Lists) -> Lists {
    for auc in lists.auc.iter_mut().flatten() {
        if auc.is_nan() {
            *auc = -1.0;
        }
    }
    lists
}

#[test]
fn agrees_with_a_full_sort() {
    let shapes = [
        (1, 1, 3),
        (3, 0, 2),
        (5, 15, 1),
        (7, 16, 4),
        (13, 17, 0),
        (200, 300, 5),
        (2, 530, 33),
    ];
    for (num_users, num_items, dim) in shapes {
        let fixture = Fixture::new(num_users, num_items, dim, 9);
        let users: Vec<i32> = (0..num_users as i32).rev().collect();
        for ratio in [false, true] {
            for k in [0, 1, 10, num_items + 3] {
                let expected = reference(&fixture, ratio, &users, k);
                for level in Level::all() {
                    let request = fixture.request(&users, k);
                    let found =
                        rank_at_level(level, &fixture.scorer(ratio), request, &Cancel::new());
                    assert_eq!(without_nan(found.unwrap()), expected, "{level:?}");
                }
            }
        }
    }
}

/// Lists of the bounded ranker: ratio form, without AUC and collaborative term.
fn bounded_lists(fixture: &Fixture, k: usize, level: Level, scorer: &Scorer) -> Lists {
    let users: Vec<i32> = (0..fixture.user_bias.len() as i32).collect();
    let request = Request {
        relevant: None,
        ..fixture.request(&users, k)
    };
    assert!(
        BoundedRanker::new(scorer, request, &Cancel::new())
            .unwrap()
            .is_some()
    );
    rank_at_level(level, scorer, request, &Cancel::new()).unwrap()
}

#[test]
fn bounded_lists_match_full_ranking() {
    // Few distinct values: masses of 0, equal scores, equal bounds.
    for (num_users, num_items, dim) in [(1, 1, 1), (7, 33, 2), (70, 700, 5), (5, 1500, 1)] {
        for seed in 0..6 {
            let mut fixture = Fixture::new(num_users, num_items, dim, seed);
            // Items without mass have no text term, as for an item without words in a model.
            for (item, mass) in fixture.item.iter_mut().zip(&fixture.mass) {
                *item *= f32::from(u8::from(*mass > 0.0 || seed == 5));
            }
            fixture.item_bias[0] = f32::NEG_INFINITY;
            let scorer = Scorer {
                collaborative: None,
                ..fixture.scorer(true)
            };
            let users: Vec<i32> = (0..num_users as i32).collect();
            for k in [1, 10, num_items + 3] {
                let every_score =
                    rank(&scorer, fixture.request(&users, k), &Cancel::new()).unwrap();
                for level in Level::all() {
                    let found = bounded_lists(&fixture, k, level, &scorer);
                    assert_eq!(found.items, every_score.items, "{level:?}, seed {seed}");
                    assert_eq!(found.scores, every_score.scores, "{level:?}, seed {seed}");
                }
            }
        }
    }
}

#[test]
fn bounded_lists_match_for_scores_that_differ_by_rounding() {
    let (num_users, num_items, dim) = (40, 2000, 5);
    for seed in 0..6 {
        let mut fixture = Fixture::new(num_users, num_items, dim, seed);
        let mut stream = Stream::new(seed, 1, 0);
        let mut near =
            |middle: f32, steps: u32| f32::from_bits(middle.to_bits() + stream.below(steps));
        fixture.mass.fill_with(|| near(100.0, 1 << 20));
        for (item, mass) in fixture.item.iter_mut().zip(&fixture.mass) {
            *item = near(0.7, 4) * mass;
        }
        fixture
            .item_bias
            .fill_with(|| near(if seed % 2 == 0 { 3.0 } else { 1e-3 }, 4));
        fixture.query.fill_with(|| near(0.5, 1 << 22));
        let scorer = Scorer {
            collaborative: None,
            ..fixture.scorer(true)
        };
        let users: Vec<i32> = (0..num_users as i32).collect();
        let every_score = rank(&scorer, fixture.request(&users, 20), &Cancel::new()).unwrap();
        for level in Level::all().filter(|level| *level > Level::Portable) {
            let found = bounded_lists(&fixture, 20, level, &scorer);
            assert_eq!(found.items, every_score.items, "{level:?}, seed {seed}");
        }
    }
}

#[test]
fn bounds_are_used_only_where_they_hold() {
    let fixture = Fixture::new(5, 90, 3, 2);
    let users: Vec<i32> = (0..5).collect();
    let request = Request {
        relevant: None,
        ..fixture.request(&users, 4)
    };
    let bounded = |change: &dyn Fn(&mut Fixture, &mut f32)| {
        let (mut fixture, mut eps) = (Fixture::new(5, 90, 3, 2), 0.5);
        change(&mut fixture, &mut eps);
        let scorer = Scorer {
            collaborative: None,
            form: Form::Ratio {
                mass: &fixture.mass,
                eps,
            },
            ..fixture.scorer(true)
        };
        BoundedRanker::new(&scorer, request, &Cancel::new())
            .unwrap()
            .is_some()
    };
    assert!(bounded(&|_, _| ()));
    assert!(!bounded(&|fixture, _| fixture.query[4] = -1.0));
    assert!(!bounded(&|fixture, _| fixture.mass[4] = -1.0));
    assert!(!bounded(&|fixture, _| fixture.item[4] = f32::NAN));
    assert!(!bounded(&|fixture, _| fixture.item[4] = 1e37));
    assert!(!bounded(&|fixture, _| fixture.item_bias[4] = f32::NAN));
    assert!(!bounded(&|fixture, _| fixture.item_bias[4] = f32::INFINITY));
    assert!(!bounded(
        &|fixture, _| fixture.user_bias[4] = f32::NEG_INFINITY
    ));
    assert!(!bounded(&|_, eps| *eps = 0.0));
    assert!(!bounded(&|_, eps| *eps = 1e-37));
}

#[test]
fn results_do_not_depend_on_threads() {
    let fixture = Fixture::new(300, 100, 7, 4);
    let users: Vec<i32> = (0..300).collect();
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let lists = pool.install(|| {
            rank(
                &fixture.scorer(true),
                fixture.request(&users, 10),
                &Cancel::new(),
            )
        });
        without_nan(lists.unwrap())
    };
    let one = run(1);
    assert_eq!(one, run(2));
    assert_eq!(one, run(8));
}

#[test]
fn invalid_scores_name_the_first_user_and_item() {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut fixture = Fixture::new(300, 400, 2, 5);
        fixture.item_bias[397] = bad;
        fixture.item_bias[300] = bad;
        let users: Vec<i32> = (0..300).rev().collect();
        let error = rank(
            &fixture.scorer(false),
            fixture.request(&users, 5),
            &Cancel::new(),
        )
        .unwrap_err();
        assert!(
            error.to_string().contains("user 299 and item 300 is"),
            "{error}"
        );
    }
}

#[test]
fn minus_infinity_ranks_last() {
    let mut fixture = Fixture::new(1, 3, 1, 6);
    fixture.item_bias = vec![f32::NEG_INFINITY, 0.0, 1.0];
    let mut scorer = fixture.scorer(false);
    (scorer.dim, scorer.query, scorer.item, scorer.collaborative) = (0, &[], &[], None);
    let request = Request {
        users: &[0],
        k: 4,
        seen: None,
        relevant: None,
    };
    let lists = rank(&scorer, request, &Cancel::new()).unwrap();
    assert_eq!(lists.items, [2, 1, 0, -1]);
    assert_eq!(lists.auc, None);
}

#[test]
fn inconsistent_arguments_are_refused() {
    let fixture = Fixture::new(4, 9, 2, 7);
    let message = |scorer: &Scorer, request: Request| {
        rank(scorer, request, &Cancel::new())
            .unwrap_err()
            .to_string()
    };
    let mut scorer = fixture.scorer(true);
    scorer.query = &fixture.query[1..];
    assert!(message(&scorer, fixture.request(&[0], 1)).contains("query has 7 values, expected 8"));
    let scorer = fixture.scorer(false);
    assert!(message(&scorer, fixture.request(&[0, 4], 1)).contains("user_rows[1] is 4"));
    let mut request = fixture.request(&[0], 1);
    request.seen = Some(&fixture.item_item);
    assert!(message(&scorer, request).contains("seen has 9 rows, expected 4"));
    let mut scorer = fixture.scorer(true);
    scorer.form = Form::Ratio {
        mass: &fixture.mass,
        eps: -1.0,
    };
    assert!(message(&scorer, fixture.request(&[0], 1)).contains("eps is -1"));
}

#[test]
fn a_set_flag_cancels_the_ranking() {
    let fixture = Fixture::new(4, 9, 2, 8);
    let cancel = Cancel::new();
    cancel.set();
    let result = rank(&fixture.scorer(false), fixture.request(&[0, 1], 3), &cancel);
    assert!(matches!(result, Err(Error::Interrupted)));
}
