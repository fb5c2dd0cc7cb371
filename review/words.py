"""Which captions hold some words, and how many words two texts of a caption do not share: an index over both.

A scan of 200,000 captions takes 100 ms and more. Here a text is its words (what stands between spaces, lower case), so
a search looks through the vocabulary first. What it finds is exactly what `needle in text.lower()` would.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Ints = NDArray[np.int32]
_ROW = np.int64(0xFFFFFFFF)


@dataclass(frozen=True)
class Postings:
    """Where each word of the vocabulary stands: rows[starts[word]:starts[word + 1]], ascending, each row once."""

    starts: NDArray[np.int64]
    rows: Ints

    def of(self, words: NDArray[np.bool_], rows: int) -> NDArray[np.bool_]:
        """Which of the rows hold any of the chosen words: bool [rows], of bool [vocabulary]."""
        held = np.zeros(rows, np.bool_)
        chosen = np.flatnonzero(words)
        if len(chosen) < 1000:
            for word in chosen:
                held[self.rows[self.starts[word] : self.starts[word + 1]]] = True
        else:
            held[self.rows[np.repeat(words, np.diff(self.starts))]] = True
        return held


@dataclass(frozen=True)
class WordIndex:
    """Two texts per row: `left` and `right`.

    Attributes:
        edit: int32 [rows], how many different words only one of the two texts has.
        length: int32 [rows], words of the right text.
    """

    vocabulary: pa.Array
    left: Postings
    right: Postings
    edit: Ints
    length: Ints

    def candidates(self, postings: Postings, needle: str) -> NDArray[np.bool_]:
        """Rows among which are all that hold the needle (lower case, not empty): bool [rows].

        Exactly those, if there is no space in the needle; else those that hold words with its beginning and its end
        and the words between.
        """
        parts = needle.split(" ")
        if len(parts) == 1:
            return postings.of(_mask(pc.match_substring(self.vocabulary, needle)), len(self.length))
        first, *middle, last = parts
        held = np.ones(len(self.length), np.bool_)
        for words in (
            pc.ends_with(self.vocabulary, first),
            pc.starts_with(self.vocabulary, last),
            *(pc.equal(self.vocabulary, word) for word in middle),
        ):
            held &= postings.of(_mask(words), len(self.length))
        return held


def _mask(words: pa.BooleanArray) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = words.to_numpy(zero_copy_only=False).astype(np.bool_)
    return found


def lower(text: str) -> str:
    """Lower case, letter by letter as the index does it."""
    folded: str = pc.utf8_lower(pa.scalar(text)).as_py()
    return folded


def index_words(chunks: Iterable[tuple[pa.Array, pa.Array]]) -> WordIndex:
    """Index chunks of rows, each (left texts, right texts) of equal length. Memory on the way: a chunk's words."""
    numbers: dict[str, int] = {}
    keys: tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]] = ([], [])
    edits: list[Ints] = []
    lengths: list[Ints] = []
    start = 0
    for left, right in chunks:
        (one, _), (two, length) = (_keys(texts, start, numbers) for texts in (left, right))
        for side, found in zip(keys, (one, two), strict=True):
            side.append(found)
        shared = np.intersect1d(one, two, assume_unique=True)
        counts = [np.bincount((k & _ROW) - start, minlength=len(left)) for k in (one, two, shared)]
        edits.append((counts[0] + counts[1] - 2 * counts[2]).astype(np.int32))
        lengths.append(length)
        start += len(left)
    return WordIndex(
        pa.array(list(numbers), pa.string()),
        _postings(keys[0], len(numbers)),
        _postings(keys[1], len(numbers)),
        np.concatenate([*edits, np.empty(0, np.int32)]),
        np.concatenate([*lengths, np.empty(0, np.int32)]),
    )


def _keys(texts: pa.Array, start: int, numbers: dict[str, int]) -> tuple[NDArray[np.int64], Ints]:
    """(word's number << 32) + row, ascending, each once; and the words per row. New words get the next number."""
    words = pc.split_pattern(pc.utf8_lower(texts), " ")
    lengths = pc.list_value_length(words).to_numpy(zero_copy_only=False).astype(np.int32)
    encoded = pc.list_flatten(words).dictionary_encode()
    known = [numbers.setdefault(word, len(numbers)) for word in encoded.dictionary.to_pylist()]
    codes = np.array(known, np.int64)[encoded.indices.to_numpy()] if known else np.empty(0, np.int64)
    rows = np.repeat(np.arange(start, start + len(texts), dtype=np.int64), lengths)
    keys = (codes << 32) | rows
    keys.sort()  # not np.unique, which hashes first and takes ten times as long
    new = np.ones(len(keys), np.bool_)
    np.not_equal(keys[1:], keys[:-1], out=new[1:])
    return keys[new], lengths


def _postings(chunks: Sequence[NDArray[np.int64]], words: int) -> Postings:
    """Merge the chunks, each sorted by word, and their rows ascending from chunk to chunk, without sorting again."""
    counts = [np.bincount(keys >> 32, minlength=words) for keys in chunks]
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(sum(counts, np.zeros(words, np.int64)))])
    rows = np.empty(int(starts[-1]), np.int32)
    free = starts[:-1].copy()
    for keys, count in zip(chunks, counts, strict=True):
        word = keys >> 32
        first = np.cumsum(count) - count
        rows[(free - first)[word] + np.arange(len(keys))] = (keys & _ROW).astype(np.int32)
        free += count
    return Postings(starts, rows)
