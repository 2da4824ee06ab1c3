//! Compressed sparse row (CSR) tables of item indices: positives, seen items, histories, relevant items.

use std::sync::OnceLock;

use crate::cpu::prefetch;
use crate::{Error, Result};

/// A CSR table whose indices are sorted and unique within each row; validated once, at construction.
#[derive(Debug, Clone)]
pub struct Csr {
    indptr: Vec<i64>,
    indices: Vec<i32>,
    num_columns: usize,
    filter: OnceLock<Vec<u64>>,
}

/// Indices per 64-bit word of the filter: at 32 bits per index, about one absent index in 32 is a false
/// positive.
const INDICES_PER_WORD: usize = 2;

const HASH_MULTIPLIER: u32 = 0x9e37_79b1;

/// A Bloom filter with one hash function over the indices of one row.
#[derive(Debug, Clone, Copy)]
pub struct RowFilter<'a>(&'a [u64]);

impl RowFilter<'_> {
    /// Whether the row may contain `index`: always true for its indices, false for most others.
    #[inline(always)]
    pub fn may_contain(self, index: u32) -> bool {
        let (word, bit) = filter_bit(index, self.0.len());
        (self.0[word] >> bit) & 1 == 1
    }
}

/// Word and bit of an index in a filter of `words` words.
#[inline(always)]
fn filter_bit(index: u32, words: usize) -> (usize, u32) {
    // Multiplicative hashing (Knuth, The Art of Computer Programming 3, 6.4): its high bits are well mixed.
    let hash = index.wrapping_mul(HASH_MULTIPLIER);
    (
        ((u64::from(hash) * words as u64) >> 32) as usize,
        index % 64,
    )
}

impl Csr {
    /// A table of row pointers `[rows + 1]` and indices `[nnz]`.
    ///
    /// # Errors
    /// [`Error::Argument`] if `indptr` does not start at 0, decreases or does not end at the number of
    /// indices, or if a row has negative, unsorted or duplicate indices; the message names the first such
    /// row.
    pub fn new(indptr: Vec<i64>, indices: Vec<i32>) -> Result<Self> {
        let invalid = |message: String| Err(Error::Argument(message));
        let (Some(&first), Some(&last)) = (indptr.first(), indptr.last()) else {
            return invalid(
                "indptr is empty; it must have one entry more than there are rows".into(),
            );
        };
        if first != 0 || last != indices.len() as i64 {
            let count = indices.len();
            return invalid(format!(
                "indptr runs from {first} to {last}; it must run from 0 to {count}, the number of indices"
            ));
        }
        if let Some(row) = indptr.windows(2).position(|pair| pair[0] > pair[1]) {
            return invalid(format!("indptr decreases after row {row}"));
        }
        let mut num_columns = 0;
        for (row, bounds) in indptr.windows(2).enumerate() {
            let items = &indices[bounds[0] as usize..bounds[1] as usize];
            let (Some(&low), Some(&high)) = (items.first(), items.last()) else {
                continue;
            };
            if low < 0 {
                return invalid(format!("row {row} holds the negative index {low}"));
            }
            if let Some(pair) = items.windows(2).find(|pair| pair[0] >= pair[1]) {
                let problem = if pair[0] == pair[1] {
                    "twice"
                } else {
                    "out of order"
                };
                return invalid(format!(
                    "row {row} holds index {} {problem}; rows must be sorted and unique",
                    pair[1]
                ));
            }
            num_columns = num_columns.max(high as usize + 1);
        }
        Ok(Self {
            indptr,
            indices,
            num_columns,
            filter: OnceLock::new(),
        })
    }

    /// The Bloom filters of all rows, 4 bytes per index and 8 per row; built at the first call.
    pub fn filter(&self) -> &[u64] {
        self.filter.get_or_init(|| {
            let mut words = vec![0; self.indices.len() / INDICES_PER_WORD + self.num_rows()];
            for row in 0..self.num_rows() {
                let range = self.filter_range(row);
                let words = &mut words[range];
                for &index in self.row(row) {
                    let (word, bit) = filter_bit(index as u32, words.len());
                    words[word] |= 1 << bit;
                }
            }
            words
        })
    }

    /// The filter of one row, a part of [`filter`](Self::filter).
    #[inline(always)]
    pub fn row_filter<'a>(&self, filter: &'a [u64], row: usize) -> RowFilter<'a> {
        RowFilter(&filter[self.filter_range(row)])
    }

    /// [`RowFilter::may_contain`] for eight (row, item) pairs: 1 if row `rows[i]` may contain `items[i]` or
    /// `items[i]` is negative, else 0. Gathers eight words at once, which is twice as fast as one by one.
    ///
    /// # Safety
    /// The processor supports [`Level::Avx512`](crate::cpu::Level), all `rows` are below
    /// [`num_rows`](Self::num_rows), and `filter` is [`filter`](Self::filter).
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    pub unsafe fn may_contain_x8(
        &self,
        filter: &[u64],
        rows: &[i32; 8],
        items: &[i32; 8],
    ) -> [u8; 8] {
        use std::arch::x86_64::*;
        const { assert!(INDICES_PER_WORD == 2, "a shift by one divides") };
        // SAFETY: eight numbers are 256 bits, of any alignment.
        let [rows, items] =
            [rows, items].map(|eight| unsafe { _mm256_loadu_si256(eight.as_ptr().cast()) });
        let rows = _mm512_cvtepi32_epi64(rows);
        let indptr: *const i64 = self.indptr.as_ptr();
        // SAFETY: a row below num_rows has row pointers at its index and at the next.
        let (start, end) = unsafe {
            (
                _mm512_i64gather_epi64::<8>(rows, indptr),
                _mm512_i64gather_epi64::<8>(rows, indptr.add(1)),
            )
        };
        // As in `filter_range`.
        let first = _mm512_add_epi64(_mm512_srli_epi64::<1>(start), rows);
        let last = _mm512_add_epi64(_mm512_srli_epi64::<1>(end), rows);
        let words = _mm512_add_epi64(_mm512_sub_epi64(last, first), _mm512_set1_epi64(1));
        // As in `filter_bit`.
        let hash = _mm256_mullo_epi32(items, _mm256_set1_epi32(HASH_MULTIPLIER as i32));
        let word = _mm512_mul_epu32(_mm512_cvtepu32_epi64(hash), words);
        let word = _mm512_add_epi64(first, _mm512_srli_epi64::<32>(word));
        let bit = _mm512_and_si512(_mm512_cvtepu32_epi64(items), _mm512_set1_epi64(63));
        // SAFETY: below `last` of the row, whose words the filter has.
        let found = unsafe { _mm512_i64gather_epi64::<8>(word, filter.as_ptr().cast()) };
        let contained = _mm512_test_epi64_mask(_mm512_srlv_epi64(found, bit), _mm512_set1_epi64(1));
        let result = contained | _mm256_cmplt_epi32_mask(items, _mm256_setzero_si256());
        _pdep_u64(result.into(), 0x0101_0101_0101_0101).to_le_bytes()
    }

    /// Prefetches the filter of a row.
    #[inline(always)]
    pub fn prefetch_filter(&self, filter: &[u64], row: usize) {
        if row < self.num_rows()
            && let Some(word) = filter.get(self.filter_range(row).start)
        {
            prefetch(word);
        }
    }

    /// Range of the filter words of a row: one word per [`INDICES_PER_WORD`] indices and at least one. Rounding down
    /// the row pointers loses at most one word, so each row gets an extra one.
    #[inline(always)]
    fn filter_range(&self, row: usize) -> std::ops::Range<usize> {
        let range = self.range(row);
        range.start / INDICES_PER_WORD + row..range.end / INDICES_PER_WORD + row + 1
    }

    /// Number of rows.
    pub fn num_rows(&self) -> usize {
        self.indptr.len() - 1
    }

    /// Row pointers `[rows + 1]`.
    pub fn indptr(&self) -> &[i64] {
        &self.indptr
    }

    /// Indices of all rows, concatenated.
    pub fn indices(&self) -> &[i32] {
        &self.indices
    }

    /// Range of one row in [`indices`](Self::indices).
    pub fn range(&self, row: usize) -> std::ops::Range<usize> {
        self.indptr[row] as usize..self.indptr[row + 1] as usize
    }

    /// Sorted unique indices of one row.
    pub fn row(&self, row: usize) -> &[i32] {
        &self.indices[self.range(row)]
    }

    /// Checks that the table has `num_rows` rows (`None`: any number) and only indices below `num_columns`.
    ///
    /// # Errors
    /// [`Error::Argument`] naming the table `name`.
    pub fn check_shape(
        &self,
        name: &str,
        num_rows: Option<usize>,
        num_columns: usize,
    ) -> Result<()> {
        if let Some(expected) = num_rows
            && expected != self.num_rows()
        {
            let found = self.num_rows();
            return Err(Error::Argument(format!(
                "{name} has {found} rows, expected {expected}"
            )));
        }
        if self.num_columns > num_columns {
            let highest = self.num_columns - 1;
            return Err(Error::Argument(format!(
                "{name} holds index {highest}, but there are {num_columns} items"
            )));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_the_given_slices() {
        let csr = Csr::new(vec![0, 2, 2, 3], vec![1, 4, 0]).unwrap();
        assert_eq!(csr.num_rows(), 3);
        assert_eq!(
            (csr.row(0), csr.row(1), csr.row(2)),
            (&[1, 4][..], &[][..], &[0][..])
        );
        assert!(csr.check_shape("seen", Some(3), 5).is_ok());
        let error = csr.check_shape("seen", Some(3), 4).unwrap_err().to_string();
        assert_eq!(error, "seen holds index 4, but there are 4 items");
    }

    #[test]
    fn eight_at_once_match_one_by_one() {
        let mut stream = crate::random::Stream::new(5, 0, 0);
        let (mut indptr, mut indices) = (vec![0], vec![]);
        for row in 0..200 {
            let step = 1 + stream.below(40) as i32;
            indices.extend((0..row % 23).map(|position| position * step));
            indptr.push(indices.len() as i64);
        }
        let csr = Csr::new(indptr, indices).unwrap();
        let filter = csr.filter();
        for _ in 0..5000 {
            let rows: [i32; 8] = std::array::from_fn(|_| stream.below(200) as i32);
            let items: [i32; 8] = std::array::from_fn(|lane| match stream.below(4) {
                0 => -1,
                1 => i32::MAX,
                2 => csr.row(rows[lane] as usize).last().copied().unwrap_or(3),
                _ => stream.below(900) as i32,
            });
            let single: [u8; 8] = std::array::from_fn(|lane| {
                let row_filter = csr.row_filter(filter, rows[lane] as usize);
                u8::from(items[lane] < 0 || row_filter.may_contain(items[lane] as u32))
            });
            for lane in 0..8 {
                if csr.row(rows[lane] as usize).contains(&items[lane]) {
                    assert_eq!(single[lane], 1);
                }
            }
            #[cfg(target_arch = "x86_64")]
            if crate::cpu::Level::best() == crate::cpu::Level::Avx512 {
                // SAFETY: the rows are below 200, and the filter is that of the table.
                let eight = unsafe { csr.may_contain_x8(filter, &rows, &items) };
                assert_eq!(eight, single, "{rows:?} {items:?}");
            }
        }
    }

    #[test]
    fn errors_name_the_row() {
        let cases: [(&[i64], &[i32], &str); 7] = [
            (&[], &[], "indptr is empty"),
            (&[1, 1], &[0], "runs from 1 to 1"),
            (&[0, 3], &[0, 1], "runs from 0 to 3"),
            (&[0, 2, 1, 2], &[0, 1], "decreases after row 1"),
            (&[0, 1, 2], &[0, -1], "row 1 holds the negative index -1"),
            (&[0, 3], &[0, 2, 2], "row 0 holds index 2 twice"),
            (&[0, 0, 3], &[0, 2, 1], "row 1 holds index 1 out of order"),
        ];
        for (indptr, indices, message) in cases {
            let error = Csr::new(indptr.to_vec(), indices.to_vec()).unwrap_err();
            assert!(
                error.to_string().contains(message),
                "{error} lacks {message:?}"
            );
        }
    }
}
