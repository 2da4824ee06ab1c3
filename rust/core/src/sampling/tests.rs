use super::*;
use crate::random::Stream;

fn random_rows(num_users: usize, num_items: usize, seed: u64) -> Csr {
    let mut stream = Stream::new(seed, 0, 0);
    let (mut indptr, mut indices) = (vec![0], vec![]);
    for _ in 0..num_users {
        let density = stream.below(80);
        let row: Vec<i32> = (0..num_items as i32)
            .filter(|_| stream.below(100) < density)
            .collect();
        indices.extend(row);
        indptr.push(indices.len() as i64);
    }
    Csr::new(indptr, indices).unwrap()
}

fn draw(num_items: usize, num_negatives: usize) -> Draw<'static> {
    Draw {
        num_items,
        num_negatives,
        weights: None,
        seed: 242,
        draw: 0,
    }
}

fn table(num_items: usize) -> AliasTable {
    let weights: Vec<f32> = (0..num_items).map(|item| (item % 7) as f32).collect();
    AliasTable::new(&weights).unwrap()
}

#[test]
fn nth_negative_enumerates_the_negatives_in_order() {
    let rows = random_rows(200, 23, 1);
    for user in 0..rows.num_rows() {
        let row = UserPositives::new(&rows, user);
        let positives = rows.row(user);
        let expected: Vec<i32> = (0..23).filter(|item| !positives.contains(item)).collect();
        let found: Vec<i32> = (0..23 - row.items().len() as i32)
            .map(|rank| row.nth_negative(rank))
            .collect();
        assert_eq!(found, expected);
    }
}

#[test]
fn the_filter_accepts_all_positives_and_few_negatives() {
    let rows = random_rows(300, 2000, 5);
    let (mut passed, mut negatives) = (0, 0);
    for user in 0..rows.num_rows() {
        let row_filter = rows.row_filter(rows.filter(), user);
        for item in 0..2000 {
            if rows.row(user).binary_search(&item).is_ok() {
                assert!(row_filter.may_contain(item as u32));
            } else {
                negatives += 1;
                passed += u32::from(!row_filter.may_contain(item as u32));
            }
        }
    }
    assert!(f64::from(passed) > 0.96 * f64::from(negatives));
}

#[test]
fn results_do_not_depend_on_threads_or_simd_level() {
    let rows = random_rows(50, 101, 2);
    let weights = table(101);
    let users: Vec<i32> = (0..30_000).map(|n| n % 50).collect();
    for weights in [None, Some(&weights)] {
        let draw = Draw {
            weights,
            ..draw(101, 3)
        };
        let run = |threads, level| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            pool.install(|| sample_at_level(level, &users, &rows, draw, &Cancel::new()))
                .unwrap()
        };
        let one = run(1, Level::Portable);
        assert_eq!(one, run(2, Level::Portable));
        for level in Level::all() {
            assert_eq!(one, run(8, level), "{level:?}");
        }
        for (negatives, &user) in one.chunks(3).zip(&users) {
            let positives = rows.row(user as usize);
            assert!(negatives.iter().all(|n| !positives.contains(n)));
        }
        if weights.is_some() {
            assert!(one.iter().all(|item| item % 7 != 0));
        }
    }
}

#[test]
fn errors_name_the_first_invalid_user() {
    let rows = Csr::new(vec![0, 1, 4], vec![0, 0, 1, 2]).unwrap();
    let run = |users: &[i32], items| sample_negatives(users, &rows, draw(items, 1), &Cancel::new());
    let message = |result: Result<Vec<i32>>| result.unwrap_err().to_string();
    assert!(message(run(&[0, 1], 3)).contains("user 1 has all 3 items"));
    assert!(message(run(&[0, 2], 3)).contains("users[1] is 2"));
    assert!(message(run(&[-1], 3)).contains("users[0] is -1"));
    assert!(message(run(&[0], 2)).contains("positives holds index 2"));
    assert!(run(&[0, 0], 3).is_ok());
    let mut users = vec![0; 50_000];
    (users[40_000], users[20_000]) = (7, 9);
    assert!(message(run(&users, 3)).contains("users[20000] is 9"));
    let weights = AliasTable::new(&[1.0, 2.0, 3.0, 0.0]).unwrap();
    let weighted = |items| Draw {
        weights: Some(&weights),
        ..draw(items, 1)
    };
    let run = |draw| sample_negatives(&[1], &rows, draw, &Cancel::new());
    assert!(message(run(weighted(4))).contains("user 1 has all 4 items with a weight above 0"));
    assert!(message(run(weighted(3))).contains("weights has 4 entries"));
}

#[test]
fn invalid_weights_are_refused() {
    let message = |weights: &[f32]| AliasTable::new(weights).unwrap_err().to_string();
    assert!(message(&[1.0, -1.0]).contains("the weight of item 1 is -1"));
    assert!(message(&[f32::NAN]).contains("the weight of item 0 is NaN"));
    assert!(message(&[0.0, 0.0]).contains("no item has a weight above 0"));
    assert!(message(&[]).contains("no item has a weight above 0"));
}

/// The chi-square statistic Σ (observed - expected)² / expected, and its degrees of freedom.
fn chi_square(drawn: &[i32], chance: &[f64]) -> (f64, usize) {
    let mut observed = vec![0.0; chance.len()];
    for &item in drawn {
        observed[item as usize] += 1.0;
    }
    let (mut sum, mut cells) = (0.0, 0);
    for (observed, chance) in observed.into_iter().zip(chance) {
        if *chance == 0.0 {
            assert_eq!(observed, 0.0);
            continue;
        }
        let expected: f64 = chance * drawn.len() as f64;
        sum += (observed - expected).powi(2) / expected;
        cells += 1;
    }
    (sum, cells - 1)
}

#[test]
fn draws_follow_the_weights_among_the_negatives() {
    let num_items = 40;
    // The positives of the second user have nearly all of the weight: most negatives are drawn directly.
    let heavy: Vec<i32> = (1..40).filter(|item| *item != 8).collect();
    let light = [3, 4, 30];
    let indptr = vec![0, 3, 3 + heavy.len() as i64];
    let indices = light.iter().chain(&heavy).copied().collect();
    let rows = Csr::new(indptr, indices).unwrap();
    let mut weights: Vec<f32> = (0..num_items).map(|item| (item % 5) as f32).collect();
    (weights[0], weights[8]) = (1e-2, 3e-2);
    let alias = AliasTable::new(&weights).unwrap();
    for (user, positives) in [(0, &light[..]), (1, &heavy)] {
        for weights_given in [false, true] {
            let chance = |item: usize| match positives.contains(&(item as i32)) {
                true => 0.0,
                false if weights_given => f64::from(weights[item]),
                false => 1.0,
            };
            let chances: Vec<f64> = (0..num_items).map(chance).collect();
            let total: f64 = chances.iter().sum();
            let chances: Vec<f64> = chances.into_iter().map(|chance| chance / total).collect();
            let draw = Draw {
                weights: weights_given.then_some(&alias),
                ..draw(num_items, 10)
            };
            let drawn = sample_negatives(&[user; 20_000], &rows, draw, &Cancel::new()).unwrap();
            let (sum, freedom) = chi_square(&drawn, &chances);
            // Mean and three standard deviations of the distribution, and 5 for few degrees of freedom.
            let limit = freedom as f64 + 3.0 * (2.0 * freedom as f64).sqrt() + 5.0;
            assert!(sum < limit, "user {user}: {sum} with {freedom}");
        }
    }
}

#[test]
fn the_alias_table_draws_in_proportion_to_weights() {
    for count in [1, 2, 3, 100, 1000] {
        let mut stream = Stream::new(count as u64, 1, 0);
        let weights: Vec<f32> = (0..count)
            .map(|_| stream.below(4).pow(3) as f32)
            .chain([1.0])
            .collect();
        let table = AliasTable::new(&weights).unwrap();
        let draws = 400 * weights.len() as u64;
        // Evenly spaced numbers, so that every slot is hit on both sides of its threshold.
        let step = u64::MAX / draws;
        let drawn: Vec<i32> = (0..draws).map(|n| table.item(n * step)).collect();
        let total: f32 = weights.iter().sum();
        for (item, &weight) in weights.iter().enumerate() {
            let found = drawn.iter().filter(|d| **d == item as i32).count() as f64;
            let expected = f64::from(weight / total) * draws as f64;
            // One number more or less at each threshold of an item: in its own slot and those it is the alias
            // of.
            let slots = weights.len() as f64 * f64::from(weight / total) + 2.0;
            assert!(
                (found - expected).abs() <= 2.0 * slots,
                "{item}: {found}, {expected}"
            );
        }
    }
}

#[test]
fn the_upper_half_decides_only_where_the_lower_does_not_matter() {
    for count in [1, 2, 7, 1000] {
        let mut stream = Stream::new(count as u64, 2, 0);
        let weights: Vec<f32> = (0..count).map(|_| 1.0 + stream.below(9) as f32).collect();
        let table = AliasTable::new(&weights).unwrap();
        // Random numbers, and those around the boundaries of the slots.
        let random = (0..20_000).map(|_| stream.below(u32::MAX));
        let borders = (0..count as u64).flat_map(|slot| {
            let border = (slot << 32) / count as u64;
            [0, 1, 2].map(|step| (border + step).wrapping_sub(1) as u32)
        });
        let block_u32s: Vec<u32> = random
            .collect::<Vec<_>>()
            .into_iter()
            .chain(borders)
            .collect();
        let mut undecided = 0;
        for &word in &block_u32s {
            let lower = [0, 1, u64::from(u32::MAX)];
            let items = lower.map(|lower| table.item((u64::from(word) << 32) | lower));
            match table.item_from_upper_half(word) {
                -1 => undecided += 1,
                item => assert_eq!(items, [item; 3], "{word} of {count}"),
            }
        }
        assert!(undecided < 2 * count + 20, "{undecided} of {count}");
    }
}

#[test]
fn a_set_flag_cancels_the_draw() {
    let rows = random_rows(1, 10, 3);
    let cancel = Cancel::new();
    cancel.set();
    let result = sample_negatives(&[0; 10], &rows, draw(11, 1), &cancel);
    assert!(matches!(result, Err(Error::Interrupted)));
}
