//! Sets of items by row: positives, seen items, histories, relevant items.

use std::sync::OnceLock;

use crate::cpu::prefetch;
use crate::{Error, Result};

/// Compressed sparse rows whose items are sorted and unique within a row; checked once, at construction.
#[derive(Debug, Clone)]
pub struct Csr {
    indptr: Vec<i64>,
    indices: Vec<i32>,
    num_columns: usize,
    filter: OnceLock<Vec<u64>>,
}

/// Indices that share a word of 64 bits in the filter: 32 bits each, so that one in 32 of the numbers that a
/// row lacks is taken for one it may have.
const SHARED: usize = 2;

const HASH: u32 = 0x9e37_79b1;

/// The filter of one row.
#[derive(Debug, Clone, Copy)]
pub struct Filtered<'a>(&'a [u64]);

impl Filtered<'_> {
    /// False for most indices that the row lacks, and for none that it has.
    #[inline(always)]
    pub fn may_contain(self, index: u32) -> bool {
        let (word, bit) = place(index, self.0.len());
        (self.0[word] >> bit) & 1 == 1
    }
}

/// Word and bit of an index in a filter of so many words.
#[inline(always)]
fn place(index: u32, words: usize) -> (usize, u32) {
    // Multiplicative hashing (Knuth, The Art of Computer Programming 3, 6.4): its high bits are well mixed.
    let hash = index.wrapping_mul(HASH);
    (
        ((u64::from(hash) * words as u64) >> 32) as usize,
        index % 64,
    )
}

impl Csr {
    /// Takes row borders `[rows + 1]` and items `[nnz]`.
    ///
    /// # Errors
    /// [`Error::Argument`] names the first border or row that is wrong: borders that do not start at 0, do
    /// not grow or do not end at the number of items; items that are negative, unsorted or duplicated.
    pub fn new(indptr: Vec<i64>, indices: Vec<i32>) -> Result<Self> {
        let wrong = |message: String| Err(Error::Argument(message));
        let (Some(&first), Some(&last)) = (indptr.first(), indptr.last()) else {
            return wrong("indptr is empty; it needs one border more than there are rows".into());
        };
        if first != 0 || last != indices.len() as i64 {
            let count = indices.len();
            return wrong(format!(
                "indptr runs from {first} to {last}; it must run from 0 to {count}, the number of indices"
            ));
        }
        if let Some(row) = indptr.windows(2).position(|pair| pair[0] > pair[1]) {
            return wrong(format!("indptr decreases after row {row}"));
        }
        let mut num_columns = 0;
        for (row, border) in indptr.windows(2).enumerate() {
            let items = &indices[border[0] as usize..border[1] as usize];
            let (Some(&low), Some(&high)) = (items.first(), items.last()) else {
                continue;
            };
            if low < 0 {
                return wrong(format!("row {row} holds the negative index {low}"));
            }
            if let Some(pair) = items.windows(2).find(|pair| pair[0] >= pair[1]) {
                let fault = if pair[0] == pair[1] {
                    "twice"
                } else {
                    "out of order"
                };
                return wrong(format!(
                    "row {row} holds index {} {fault}; rows must be sorted and unique",
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

    /// Bits that tell most absent indices at a glance; made at the first call, 4 bytes an index and 8 a row.
    pub fn filter(&self) -> &[u64] {
        self.filter.get_or_init(|| {
            let mut words = vec![0; self.indices.len() / SHARED + self.num_rows()];
            for row in 0..self.num_rows() {
                let range = self.filter_range(row);
                let words = &mut words[range];
                for &index in self.row(row) {
                    let (word, bit) = place(index as u32, words.len());
                    words[word] |= 1 << bit;
                }
            }
            words
        })
    }

    /// The part of [`filter`](Self::filter) that belongs to one row.
    #[inline(always)]
    pub fn filtered<'a>(&self, filter: &'a [u64], row: usize) -> Filtered<'a> {
        Filtered(&filter[self.filter_range(row)])
    }

    /// 1 where row `rows[i]` may have index `items[i]`, or that is negative. As [`Filtered::may_contain`] with the
    /// instructions of [`Level::Avx512`](crate::cpu::Level), which the caller has made sure of: eight reads
    /// from memory at once are twice as fast as one after the other.
    ///
    /// # Safety
    /// All `rows` are below [`num_rows`](Self::num_rows), and `filter` is [`filter`](Self::filter).
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,bmi1,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512dq,avx512vl")]
    #[inline]
    pub unsafe fn eight_may_contain(
        &self,
        filter: &[u64],
        rows: &[i32; 8],
        items: &[i32; 8],
    ) -> [u8; 8] {
        use std::arch::x86_64::*;
        const { assert!(SHARED == 2, "a shift by one divides") };
        // SAFETY: eight numbers are 256 bits, of any alignment.
        let [rows, items] =
            [rows, items].map(|eight| unsafe { _mm256_loadu_si256(eight.as_ptr().cast()) });
        let rows = _mm512_cvtepi32_epi64(rows);
        let borders: *const i64 = self.indptr.as_ptr();
        // SAFETY: a row below num_rows has a border at its own place and one behind.
        let (start, end) = unsafe {
            (
                _mm512_i64gather_epi64::<8>(rows, borders),
                _mm512_i64gather_epi64::<8>(rows, borders.add(1)),
            )
        };
        // As in `filter_range`.
        let first = _mm512_add_epi64(_mm512_srli_epi64::<1>(start), rows);
        let last = _mm512_add_epi64(_mm512_srli_epi64::<1>(end), rows);
        let words = _mm512_add_epi64(_mm512_sub_epi64(last, first), _mm512_set1_epi64(1));
        // As in `place`.
        let hash = _mm256_mullo_epi32(items, _mm256_set1_epi32(HASH as i32));
        let word = _mm512_mul_epu32(_mm512_cvtepu32_epi64(hash), words);
        let word = _mm512_add_epi64(first, _mm512_srli_epi64::<32>(word));
        let bit = _mm512_and_si512(_mm512_cvtepu32_epi64(items), _mm512_set1_epi64(63));
        // SAFETY: below `last` of the row, whose words the filter has.
        let found = unsafe { _mm512_i64gather_epi64::<8>(word, filter.as_ptr().cast()) };
        let known = _mm512_test_epi64_mask(_mm512_srlv_epi64(found, bit), _mm512_set1_epi64(1));
        let either = known | _mm256_cmplt_epi32_mask(items, _mm256_setzero_si256());
        _pdep_u64(either.into(), 0x0101_0101_0101_0101).to_le_bytes()
    }

    /// Asks for the filter of a row that is needed soon.
    #[inline(always)]
    pub fn prefetch_filter(&self, filter: &[u64], row: usize) {
        if row < self.num_rows()
            && let Some(word) = filter.get(self.filter_range(row).start)
        {
            prefetch(word);
        }
    }

    /// Words of a row: at least one, and one for every [`SHARED`] indices. Rounding down the borders leaves a
    /// word too few at most, which the one that every row gets makes up for.
    #[inline(always)]
    fn filter_range(&self, row: usize) -> std::ops::Range<usize> {
        let range = self.range(row);
        range.start / SHARED + row..range.end / SHARED + row + 1
    }

    /// Number of rows.
    pub fn num_rows(&self) -> usize {
        self.indptr.len() - 1
    }

    /// Row borders `[rows + 1]`.
    pub fn indptr(&self) -> &[i64] {
        &self.indptr
    }

    /// Items of all rows, one row after the other.
    pub fn indices(&self) -> &[i32] {
        &self.indices
    }

    /// Positions in [`indices`](Self::indices) of one row.
    pub fn range(&self, row: usize) -> std::ops::Range<usize> {
        self.indptr[row] as usize..self.indptr[row + 1] as usize
    }

    /// Sorted unique items of one row.
    pub fn row(&self, row: usize) -> &[i32] {
        &self.indices[self.range(row)]
    }

    /// Checks that the table has `num_rows` rows (None: any number) and only items below `num_columns`.
    ///
    /// # Errors
    /// [`Error::Argument`] that speaks of the table as `name`.
    pub fn expect(&self, name: &str, num_rows: Option<usize>, num_columns: usize) -> Result<()> {
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
    fn rows_come_back() {
        let csr = Csr::new(vec![0, 2, 2, 3], vec![1, 4, 0]).unwrap();
        assert_eq!(csr.num_rows(), 3);
        assert_eq!(
            (csr.row(0), csr.row(1), csr.row(2)),
            (&[1, 4][..], &[][..], &[0][..])
        );
        assert!(csr.expect("seen", Some(3), 5).is_ok());
        let error = csr.expect("seen", Some(3), 4).unwrap_err().to_string();
        assert_eq!(error, "seen holds index 4, but there are 4 items");
    }

    #[test]
    fn eight_at_once_are_told_what_each_alone_is() {
        let mut stream = crate::random::Stream::new(5, 0, 0);
        let (mut indptr, mut indices) = (vec![0], vec![]);
        for row in 0..200 {
            let step = 1 + stream.below(40) as i32;
            indices.extend((0..row % 23).map(|place| place * step));
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
            let alone: [u8; 8] = std::array::from_fn(|lane| {
                let filtered = csr.filtered(filter, rows[lane] as usize);
                u8::from(items[lane] < 0 || filtered.may_contain(items[lane] as u32))
            });
            for lane in 0..8 {
                if csr.row(rows[lane] as usize).contains(&items[lane]) {
                    assert_eq!(alone[lane], 1);
                }
            }
            #[cfg(target_arch = "x86_64")]
            if crate::cpu::Level::best() == crate::cpu::Level::Avx512 {
                // SAFETY: the rows are below 200, and the filter is that of the table.
                let eight = unsafe { csr.eight_may_contain(filter, &rows, &items) };
                assert_eq!(eight, alone, "{rows:?} {items:?}");
            }
        }
    }

    #[test]
    fn every_fault_is_named() {
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
