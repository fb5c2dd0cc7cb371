"""What a gate judges: a reply beside its source, both read, and what the source may be said to name."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from refine.registers import lexicon
from refine.registers.instances import swapped
from refine.registers.reading import COLOURED, Reading, broader
from schemas.records import Platform

# What is quoted of a board or a sheet.
QUOTED = re.compile(r"(?<!\w)['‘\"“](?=\w)([^\"“”]+?)(?<=[\w.!?,…])['’\"”](?!\w)")
LONGEST_NAME = 2


@dataclass(frozen=True)
class Case:
    """A reply beside its source. `texts` are the caption and the queries, read.

    `lettering` is what the source quotes of boards; it stands in none of the texts, nor in the source any more.
    """

    platform: Platform
    source: Reading
    caption: Reading
    queries: tuple[Reading, ...]
    supported: frozenset[str]
    lettering: tuple[str, ...] = ()

    @cached_property
    def swaps(self) -> tuple[tuple[str, str], ...]:
        """Attributes said of the wrong one of two things of a kind, as (dimension, words)."""
        return tuple(
            dict.fromkeys(
                pair for text in self.texts for pair in swapped(self.source.text, text.text, self.caption.text)
            )
        )

    @cached_property
    def texts(self) -> tuple[Reading, ...]:
        return (self.caption, *self.queries)

    @cached_property
    def fresh(self) -> tuple[Reading, ...]:
        """The caption, and the queries that are not word for word in it."""
        return (self.caption, *(query for query in self.queries if query.words not in self.caption.words))


def comma_list(words: Iterable[str]) -> str:
    """The words, each once, in the order they came in."""
    return ", ".join(dict.fromkeys(words))


def lettering_of(source: str) -> tuple[str, ...]:
    """What the source quotes of boards, but for mere names."""
    return tuple(m.group(1) for m in QUOTED.finditer(source) if len(m.group(1).split()) > LONGEST_NAME)


def without_lettering(source: str, *texts: str) -> tuple[str, ...]:
    """The texts without the lettering that the source quotes, but for mere names.

    A board that says 'GREET EVERY VISITOR' is to be seen; it gives no orders, and puts no visitor into the scene.
    """
    quoted = lettering_of(source)
    if not quoted:
        return texts
    boards = re.compile("|".join(rf"['‘\"“]?{re.escape(words)}['’\"”]?" for words in quoted), re.IGNORECASE)
    return tuple(boards.sub(" ", text) for text in texts)


def uncoloured(source: Reading, word: str) -> bool:
    """Whether the source has the word, and not as the name of a colour: brick of "brick colour"."""
    found = [at for at, token in enumerate(source.tokens) if token == word]
    behind = ([t for t in source.tokens[at + 1 : at + 3] if t != "-"][:1] for at in found)
    return any(not after or after[0] not in COLOURED for after in behind)


def supported(source: Reading) -> frozenset[str]:
    """Every concept the source may be said to name: its own, their broader ones, and its words read loosely."""
    lex = lexicon()
    concepts = {m.concept for m in source.mentions if m.kind in ("object", "material", "colour")}
    coloured = not COLOURED.isdisjoint(source.tokens)
    tints = {token for token in source.tokens if not uncoloured(source, token)} if coloured else set()
    stems_of = source.stems - tints
    concepts |= {concept for stem in stems_of for _, concept in lex.senses.get(stem, ())}
    if "object:building" in concepts and source.stems & {"tall", "high", "towering"}:
        concepts.add("object:tower")
    wider = {up for concept in concepts for up in lex.broader.get(concept, (concept,))}
    wider |= {up for _, concept in source.things for up in broader(concept)}
    return frozenset(wider.union(*(lex.implied.get(concept, frozenset()) for concept in wider)))
