"""What an attribute is said of: whether a colour, material or number may be said of the thing a reply says it of.

Evidence refuses, not doubt: where the source leaves open whose an attribute is, the reply is believed.
"""

from refine.gates.case import Case
from refine.gates.clauses import SENTENCE, units_of
from refine.gates.things import heads_meet, may_be_one, same_thing, things_of
from refine.registers.reading import BE, COLOURED, DETERMINERS, PREPOSITIONS, Mention, Reading, plain, related, stems
from refine.thesaurus import bases, is_word, uses


def said_alike(case: Case, reading: Reading, mention: Mention, matching: list[Mention]) -> bool:
    """Whether the reply may say an attribute, which the source has too, of the thing it says it of.

    Only certain bindings speak against it: the reply's thing has another such attribute in the source and never this
    one; or the source's thing has another one in the reply; or the source's thing is in the reply without it while
    another of the source's things has it now.
    """
    source = case.source
    if not mention.sure or any(
        (heads_meet(mention.heads, said.heads | said.loose) or _measures(source, mention, said))
        and not _far(source, mention, said)
        for said in matching
    ):
        return True
    if mention.kind == "number" and any(_alone(source, said) for said in matching):
        return True  # three of the five; banks of six
    if any(_in_portions(reading, mention, said) for said in matching):
        return True
    if any(may_be_one(mention.heads, said.heads) for said in matching):
        return not _otherwise(source, mention, exact=True)
    if _otherwise(source, mention) or (mention.kind == "colour" and all(_far(source, mention, m) for m in matching)):
        return False
    if mention.kind == "material" and all(said.firm and said.concept != mention.concept for said in matching):
        return False  # stone planters before a marble wall
    if not all(said.sure for said in matching):
        return True
    owners = frozenset().union(*(said.heads for said in matching))
    theirs = [m for m in reading.of(mention.kind) if heads_meet(m.heads | m.loose, owners)]
    mine = any(same_thing(head, own) for head in mention.heads for own in things_of(source))
    lost = any(same_thing(owner, own) for owner in owners for own in things_of(reading))
    if mine and mention.kind == "colour" and not _growing_green(mention) and _named_alike(source, reading, mention):
        return False
    return not (mine and lost and not any(related(m.concept, mention.concept) for m in theirs))


def one_too_many(case: Case, mention: Mention, matching: list[Mention]) -> bool:
    """Whether a caption gives a thing, on top of all others, a colour that the source gives to others only."""
    if not mention.firm or _growing_green(mention) or mention.heads.isdisjoint(things_of(case.source)):
        return False
    met = [s for s in matching if s.heads != {"generic"} or s.loose]
    if any(heads_meet(mention.heads, s.heads | s.loose) or may_be_one(mention.heads, s.heads) for s in met):
        return False
    told = [m for m in case.caption.of(mention.kind) if related(m.concept, mention.concept)]
    return len(told) > len([s for s in case.source.of(mention.kind) if related(s.concept, mention.concept)])


def _alone(source: Reading, number: Mention) -> bool:
    """Whether a number of the source has no noun behind it, so that it may count whatever was named before."""
    before, after = source.parsed.token(number.at - 1), source.parsed.token(number.end)
    return before in {"of", "the"} and after in {",", ".", ";", ":", "and"}


def _growing_green(mention: Mention) -> bool:
    """Whether green is said of a plant, which goes without saying."""
    return mention.concept == "colour:green" and any(related(h, "object:vegetation") for h in mention.heads)


def _measures(source: Reading, mention: Mention, said: Mention) -> bool:
    """Whether the thing is a measure of what the source says the attribute of: the sliver of "a sliver of blue sky"."""
    w = source.parsed
    ends = (w.ends[at] for at, concepts in w.nouns.items() if mention.heads & set(concepts))
    return any(w.token(end) == "of" and end < said.at <= end + 3 for end in ends)


def _in_portions(reading: Reading, mention: Mention, said: Mention) -> bool:
    """Whether a reply says of a stuff what the source says of its heaps, and names them: "ridges of black coal"."""
    w = reading.parsed
    before = mention.at - 1
    while w.modifier(before):
        before -= 1
    owner = w.noun_at.get(before - 1) if w.token(before) == "of" else None
    return owner is not None and not said.heads.isdisjoint(w.nouns[owner])


def _named_alike(source: Reading, reading: Reading, mention: Mention) -> bool:
    """Whether the source has the very noun that an attribute stands before."""
    word = owner(reading, mention)
    return bool(word) and any(
        word in bases(source.tokens[source.parsed.ends[at] - 1], "n") for at in source.parsed.nouns
    )


def _far(source: Reading, mention: Mention, said: Mention) -> bool:
    """Whether the source says an attribute of a stretch only, and its sentence does not have the reply's thing."""
    if said.heads - {"generic"} or not said.heads or said.loose or mention.kind == "number":
        return False
    units = units_of(source.text, SENTENCE)
    own = [n for n, unit in enumerate(units) if any(same_thing(h, c) for h in mention.heads for c in unit[0])]
    return bool(own) and said.sentence not in own and len(units) == source.sentences[-1] + 1


def replaced(case: Case, reading: Reading, mention: Mention) -> bool:
    """Whether the reply repeats a phrase of the source with another value: "four arched openings" for three.

    The phrase is the two words behind the value. Values in a list ("red and white buses") may change places.
    """
    phrase = _behind(reading, mention)
    if len(phrase) < 2 or phrase[0] in PREPOSITIONS | {"and", "or", ",", ".", "one", "ones"} or phrase[0] == phrase[-1]:
        return False
    if _listed_value(reading, mention):
        return False
    if any("one" in said.heads and related(said.concept, mention.concept) for said in case.source.of(mention.kind)):
        return False  # white huts and grey ones
    slots = [s for s in case.source.of(mention.kind) if _behind(case.source, s)[:1] == phrase[:1]]
    same = [s for s in slots if _behind(case.source, s) == phrase]
    fits = slots if phrase[0] != "-" else same
    alone = phrase[1].isalpha() and phrase[1] not in BE and not _hyphened(reading, mention)
    return bool(same) and not any(
        related(s.concept, mention.concept)
        or (_listed_value(case.source, s) and not (alone and _hyphened(case.source, s)))
        for s in fits
    )


def _hyphened(reading: Reading, mention: Mention) -> bool:
    """Whether a value is the end of a pair that is one: the grey of blue-grey."""
    before = reading.tokens[max(0, mention.at - 2) : mention.at]
    return before[1:] == ("-",) and any(m.at == mention.at - 2 for m in reading.of(mention.kind))


def _behind(reading: Reading, mention: Mention) -> tuple[str, ...]:
    """The two words behind a value, and a hyphen that ties it to them: none does of salmon-coloured tiles."""
    at, tokens = mention.end, reading.tokens
    at += 2 if tokens[at : at + 1] == ("-",) and COLOURED & set(tokens[at + 1 : at + 2]) else 0
    return tokens[at : at + (3 if tokens[at : at + 1] == ("-",) else 2)]


def of_other_noun(source: Reading, reading: Reading, mention: Mention) -> bool:
    """Whether a colour stands before a noun outside all lists that has another colour wherever the source names it."""
    noun = _bare_noun(reading, mention.end)
    named = [at for at, token in enumerate(source.tokens) if noun and stems(token)[-1] == noun]
    own = {m.end: m.concept for m in source.of("colour")}
    return bool(named) and all(at in own and not related(own[at], mention.concept) for at in named)


def _bare_noun(reading: Reading, at: int) -> str:
    """The stem of the noun at that token, if it names no thing that is known: the dial of a clock, lilies; else ""."""
    word, after = reading.parsed.token(at), reading.parsed.token(at + 1)
    if at in reading.parsed.noun_at or not word.isalpha() or plain(word):
        return ""
    closed = (
        (word[-1] == "s" and not is_word(word))
        or (not after[0].isalnum() and after != "-")
        or after in PREPOSITIONS | BE | DETERMINERS
    )
    return stems(word)[-1] if closed and (uses(word, "n") or not is_word(word)) else ""


def _listed_value(reading: Reading, mention: Mention) -> bool:
    """Whether another value of that kind stands close by."""
    near = (sorted((m.at, mention.at)) for m in reading.of(mention.kind) if m.at != mention.at)
    return any(sum(token != "-" for token in reading.tokens[low:high]) <= 3 for low, high in near)


def _otherwise(source: Reading, mention: Mention, *, exact: bool = False) -> bool:
    """Whether the source certainly gives the thing another attribute of that kind: a red barn for a white one."""
    others = [m for m in source.of(mention.kind) if not related(m.concept, mention.concept) and m.sure]
    if exact:
        return any(mention.heads & other.heads for other in others)
    return any(related(a, b) for other in others for a in mention.heads for b in other.heads)


def owner(reading: Reading, mention: Mention) -> str:
    """The noun, in the singular, that a quality is said of; "" when that is not certain."""
    w = reading.parsed
    at = next(
        (n for n in range(mention.end, mention.end + 6) if n in w.nouns and set(w.nouns[n]) & mention.heads), None
    )
    if not mention.firm or at is None:
        at = next((n for n in range(mention.at - 1, -1, -1) if n in w.nouns and set(w.nouns[n]) & mention.heads), None)
        at = at if at is not None and reading.sentences[at] == reading.sentences[mention.at] else None
    if at is None:
        return ""
    word = w.tokens[w.ends[at] - 1]
    return next(iter(bases(word, "n") or bases(word.removesuffix("ed"), "n")), word)  # the roof of "flat-roofed"
