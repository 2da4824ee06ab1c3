//! Words of texts: boundaries by Unicode (UAX 29), and counts of words.
//!
//! Chinese, Japanese, Thai, Lao, Khmer and Burmese, which are written without blanks, are divided by the
//! dictionaries and models of ICU4X.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::LazyLock;

use icu_segmenter::options::WordBreakInvariantOptions;
use icu_segmenter::{WordSegmenter, WordSegmenterBorrowed};

use crate::threads::parallel_for_each;
use crate::{Cancel, Result};

/// Texts that a thread counts at a time.
const CHUNK: usize = 256;

/// What a span of a text is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// White space.
    Space,
    /// Anything else without letters or digits: punctuation, symbols, emoji.
    Symbols,
    /// A word or a number.
    Word,
}

/// A part of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Bytes of the text.
    pub bytes: Range<usize>,
    /// Characters (code points) of the text.
    pub chars: Range<usize>,
    /// What it is.
    pub kind: Kind,
}

/// Words, runs of symbols and runs of white space, which together cover the text.
///
/// Words are those of UAX 29, but full stops and colons divide words of letters ("good.Then"), which reviews
/// often write without a blank, other than abbreviations ("U.S.A").
pub fn spans(text: &str) -> Vec<Span> {
    let mut spans: Vec<Span> = Vec::with_capacity(text.len() / 3);
    let (mut start, mut char_start) = (0, 0);
    let mut push = |end: usize| {
        let part = &text[start..end];
        let kind = kind_of(part);
        let char_end = char_start + count_chars(part);
        match spans.last_mut() {
            Some(last) if kind != Kind::Word && last.kind == kind => {
                last.bytes.end = end;
                last.chars.end = char_end;
            }
            _ => spans.push(Span {
                bytes: start..end,
                chars: char_start..char_end,
                kind,
            }),
        }
        (start, char_start) = (end, char_end);
    };
    let mut previous = 0;
    for end in SEGMENTER.segment_str(text) {
        if end > previous {
            divide(&text[previous..end], |offset| push(previous + offset));
            push(end);
            previous = end;
        }
    }
    spans
}

/// Words that are counted, in lower case, with their spans.
///
/// A counted word has at least two letters or digits, or is one Han ideograph or Hangul syllable. Apostrophes
/// are straight.
pub fn counted_words(text: &str) -> Vec<(Span, String)> {
    spans(text)
        .into_iter()
        .filter_map(|span| {
            let word = counted_form(&text[span.bytes.clone()], span.kind)?.into_owned();
            Some((span, word))
        })
        .collect()
}

/// Counts of the counted words of texts, a sparse matrix of texts and words.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct WordCounts {
    /// Words in order of their code points.
    pub vocabulary: Vec<String>,
    /// Row pointers, one for each text and one more.
    pub indptr: Vec<i64>,
    /// Word of each entry, ascending in each row.
    pub words: Vec<i64>,
    /// Occurrences.
    pub counts: Vec<i64>,
}

/// Counts the words of each text.
///
/// # Errors
/// [`Error::Interrupted`](crate::Error::Interrupted) once the operation is cancelled.
pub fn count_words<T: AsRef<str> + Sync>(texts: &[T], cancel: &Cancel) -> Result<WordCounts> {
    let mut chunks: Vec<Chunk> = Vec::new();
    chunks.resize_with(texts.len().div_ceil(CHUNK), Chunk::default);
    let tasks = chunks.iter_mut().zip(texts.chunks(CHUNK));
    parallel_for_each(tasks, |_: &mut (), (chunk, texts)| {
        for text in texts {
            cancel.check()?;
            chunk.add(text.as_ref());
        }
        Ok(())
    })?;
    let mut numbers: HashMap<&str, i64> = HashMap::new();
    for chunk in &chunks {
        numbers.extend(chunk.vocabulary.iter().map(|word| (word.as_str(), 0)));
    }
    let mut vocabulary: Vec<&str> = numbers.keys().copied().collect();
    vocabulary.sort_unstable();
    for (number, word) in (0..).zip(&vocabulary) {
        numbers.insert(word, number);
    }
    let entries = chunks.iter().map(|chunk| chunk.entries.len()).sum();
    let mut result = WordCounts {
        vocabulary: vocabulary.iter().map(|&word| word.to_owned()).collect(),
        indptr: vec![0],
        words: Vec::with_capacity(entries),
        counts: Vec::with_capacity(entries),
    };
    for chunk in &chunks {
        cancel.check()?;
        let number: Vec<i64> = chunk
            .vocabulary
            .iter()
            .map(|word| numbers[word.as_str()])
            .collect();
        let mut first = 0;
        for &end in &chunk.ends {
            let mut row: Vec<(i64, i64)> = chunk.entries[first..end]
                .iter()
                .map(|&(word, count)| (number[word], count))
                .collect();
            row.sort_unstable();
            result.words.extend(row.iter().map(|(word, _)| word));
            result.counts.extend(row.iter().map(|(_, count)| count));
            result.indptr.push(result.words.len() as i64);
            first = end;
        }
    }
    Ok(result)
}

/// Word counts of consecutive texts by words of their own.
#[derive(Default)]
struct Chunk {
    numbers: HashMap<String, usize>,
    vocabulary: Vec<String>,
    /// Word and count.
    entries: Vec<(usize, i64)>,
    /// End of each text in `entries`.
    ends: Vec<usize>,
}

impl Chunk {
    fn add(&mut self, text: &str) {
        let mut row: Vec<usize> = spans(text)
            .into_iter()
            .filter_map(|span| counted_form(&text[span.bytes], span.kind))
            .map(|word| self.number(word))
            .collect();
        row.sort_unstable();
        for same in row.chunk_by(|a, b| a == b) {
            self.entries.push((same[0], same.len() as i64));
        }
        self.ends.push(self.entries.len());
    }

    fn number(&mut self, word: Cow<'_, str>) -> usize {
        if let Some(&number) = self.numbers.get(word.as_ref()) {
            return number;
        }
        let number = self.vocabulary.len();
        self.vocabulary.push(word.clone().into_owned());
        self.numbers.insert(word.into_owned(), number);
        number
    }
}

/// Where words may end by UAX 29. Decoding its models takes longer than a short text.
static SEGMENTER: LazyLock<WordSegmenterBorrowed<'static>> =
    LazyLock::new(|| WordSegmenter::new_auto(WordBreakInvariantOptions::default()));

fn kind_of(part: &str) -> Kind {
    if let [byte, ..] = part.as_bytes()
        && byte.is_ascii_alphanumeric()
    {
        Kind::Word
    } else if part.chars().any(is_word_char) {
        Kind::Word
    } else if part.chars().all(char::is_whitespace) {
        Kind::Space
    } else {
        Kind::Symbols
    }
}

/// Whether a character is a letter or a digit. The enclosed letters of U+1F1xx are emoji.
fn is_word_char(char: char) -> bool {
    char.is_alphanumeric() && !matches!(char, '\u{1f100}'..='\u{1f1ff}')
}

/// Calls `border` with the borders inside of a word: those of full stops and colons between letters.
fn divide(word: &str, mut border: impl FnMut(usize)) {
    let is_divider = |char| {
        matches!(
            char,
            '.' | ':' | '\u{2024}' | '\u{fe13}' | '\u{fe52}' | '\u{fe55}' | '\u{ff0e}' | '\u{ff1a}'
        )
    };
    if !word.contains(is_divider) || word.split(is_divider).all(|part| count_chars(part) == 1) {
        return;
    }
    let mut before = None;
    for (start, char) in word.char_indices() {
        let end = start + char.len_utf8();
        // Between digits it belongs to the number.
        if is_divider(char)
            && before.is_some_and(|char: char| !char.is_numeric())
            && word[end..]
                .chars()
                .next()
                .is_some_and(|char| !char.is_numeric())
        {
            border(start);
            border(end);
        }
        before = Some(char);
    }
}

/// The form in which a word is counted, if it is.
fn counted_form(part: &str, kind: Kind) -> Option<Cow<'_, str>> {
    if kind != Kind::Word {
        return None;
    }
    let mut chars = part.chars().filter(|&char| is_word_char(char));
    let first = chars.next()?;
    if chars.next().is_none() && !is_word_alone(first) {
        return None;
    }
    if part
        .bytes()
        .all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase())
    {
        return Some(Cow::Borrowed(part));
    }
    Some(Cow::Owned(part.to_lowercase().replace('\u{2019}', "'")))
}

/// Han ideographs and Hangul syllables.
fn is_word_alone(char: char) -> bool {
    matches!(
        char,
        '\u{3400}'..='\u{4dbf}'
            | '\u{4e00}'..='\u{9fff}'
            | '\u{f900}'..='\u{faff}'
            | '\u{20000}'..='\u{3ffff}'
            | '\u{ac00}'..='\u{d7a3}'
    )
}

fn count_chars(part: &str) -> usize {
    match part.is_ascii() {
        true => part.len(),
        false => part.chars().count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Vec<&str> {
        spans(text)
            .into_iter()
            .map(|span| &text[span.bytes])
            .collect()
    }

    fn counted(text: &str) -> Vec<String> {
        counted_words(text)
            .into_iter()
            .map(|(_, word)| word)
            .collect()
    }

    #[test]
    fn spans_cover_the_text() {
        assert_eq!(
            parts("Don\u{2019}t  buy 3.5mm!!! ok"),
            ["Don\u{2019}t", "  ", "buy", " ", "3.5mm", "!!!", " ", "ok"]
        );
        assert_eq!(
            parts("caf\u{e9} \u{1f600}"),
            ["caf\u{e9}", " ", "\u{1f600}"]
        );
        assert!(spans("").is_empty());
        let text = "\u{1f600} caf\u{e9}s, \u{5409}\u{4ed6}";
        let found = spans(text);
        assert_eq!(found.last().unwrap().chars.end, text.chars().count());
        for pair in found.windows(2) {
            assert_eq!(pair[0].chars.end, pair[1].chars.start);
            assert_eq!(pair[0].bytes.end, pair[1].bytes.start);
        }
        for span in found {
            let chars = span.chars;
            let part: String = text.chars().skip(chars.start).take(chars.len()).collect();
            assert_eq!(part, text[span.bytes]);
        }
    }

    #[test]
    fn full_stops_and_colons_divide_words_of_letters() {
        assert_eq!(parts("good.Then:it"), ["good", ".", "Then", ":", "it"]);
        assert_eq!(
            parts("U.S.A 10.5 v2.0"),
            ["U.S.A", " ", "10.5", " ", "v2.0"]
        );
    }

    #[test]
    fn scripts_without_blanks_are_divided() {
        assert_eq!(
            counted(
                "\u{5409}\u{4ed6}\u{7684}\u{97f3}\u{8272}\u{975e}\u{5e38}\u{597d}\u{ff0c}\u{5f26}\u{5f88}\u{8f6f}"
            ),
            [
                "\u{5409}\u{4ed6}",
                "\u{7684}",
                "\u{97f3}\u{8272}",
                "\u{975e}\u{5e38}",
                "\u{597d}",
                "\u{5f26}",
                "\u{5f88}",
                "\u{8f6f}"
            ]
        );
    }

    #[test]
    fn counted_words_have_two_letters_or_are_ideographs() {
        assert_eq!(
            counted(
                "A GUITAR\u{2019}S x2 7 \u{1f170}\u{fe0f} 1\u{fe0f}\u{20e3} \u{b904} e\u{301}t\u{e9} e\u{301}"
            ),
            ["guitar's", "x2", "\u{b904}", "e\u{301}t\u{e9}"]
        );
        // Words of Hindi end in vowel signs.
        assert_eq!(
            counted("\u{905}\u{91a}\u{94d}\u{91b}\u{93e} \u{939}\u{948}").len(),
            2
        );
    }

    #[test]
    fn counts_do_not_depend_on_the_chunks() {
        let texts: Vec<String> = (0..3 * CHUNK).map(|n| format!("b a2 w{n} b2 a2")).collect();
        let counts = count_words(&texts, &Cancel::new()).unwrap();
        assert!(counts.vocabulary.is_sorted());
        assert_eq!(counts.indptr.len(), texts.len() + 1);
        for (row, pair) in counts.indptr.windows(2).enumerate() {
            let entries = pair[0] as usize..pair[1] as usize;
            let words: Vec<&str> = counts.words[entries.clone()]
                .iter()
                .map(|&word| counts.vocabulary[word as usize].as_str())
                .collect();
            assert_eq!(words[..2], ["a2", "b2"]);
            assert_eq!(words[2], format!("w{row}"));
            assert_eq!(counts.counts[entries], [2, 1, 1]);
        }
        let none = count_words::<&str>(&[], &Cancel::new()).unwrap();
        assert_eq!((none.indptr, none.vocabulary.len()), (vec![0], 0));
    }
}
