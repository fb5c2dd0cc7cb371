"""Word by word, what one text has that another has not, as (operation, text) pairs for a page or a terminal to show."""

import re
import unicodedata
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import lru_cache
from typing import Literal

Op = Literal["same", "del", "ins"]
Diff = tuple[tuple[Op, str], ...]
MOST_WORDS = 1500  # a longer pair is shown as one text replaced by the other: comparing takes the product of both
_WORD = re.compile(r"\s*(?:\w+(?:[-'’]\w+)*|[^\w\s]|\s+$)")


@lru_cache(maxsize=4096)
def word_diff(old: str, new: str) -> Diff:
    """What turns `old` into `new`: same and del in order give old, same and ins give new."""
    if old == new:
        return (("same", old),) if old else ()
    a, b = _words(old), _words(new)
    if max(len(a), len(b)) > MOST_WORDS:
        return _joined([("del", old), ("ins", new)])
    parts: list[tuple[Op, str]] = []
    # Compared without their spaces and case of the first letter kept: a moved sentence is not a changed word.
    for op, i, k, m, n in SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if op == "equal":
            parts.append(("same", "".join(a[i:k])))
        else:
            parts += [("del", "".join(a[i:k])), ("ins", "".join(b[m:n]))]
    return _joined(parts)


def _words(text: str) -> list[str]:
    """Words with the space before them; joined they are the text."""
    words = _WORD.findall(text)
    return words if "".join(words) == text else re.findall(r"\s+|\S+", text)


def _joined(parts: Sequence[tuple[Op, str]]) -> Diff:
    joined: list[tuple[Op, str]] = []
    for op, text in parts:
        if joined and joined[-1][0] == op:
            joined[-1] = (op, joined[-1][1] + text)
        elif text:
            joined.append((op, text))
    return tuple(joined)


def visible(text: str) -> str:
    """The text with every character that is not seen, or that reorders others, written as its code point."""
    if text.isprintable():
        return text
    return "".join(
        c if c.isprintable() or c in "\n\u00a0" or unicodedata.category(c) == "Zs" else f"⟨U+{ord(c):04X}⟩"
        for c in text
    )
