"""The object gate: every thing that a reply names is one that the source has, implies or means by another word."""

from collections.abc import Iterator
from itertools import pairwise

from refine.gates.case import Case, comma_list
from refine.gates.form import foreign
from refine.gates.things import GROWN, SUMMITS, at_same_word, meant, name, on_axis, people, sources_of
from refine.registers import english, lexicon
from refine.registers.reading import (
    ARTICLES,
    BE,
    DETERMINERS,
    PREPOSITIONS,
    Mention,
    Reading,
    plain,
    related,
    stems,
    words_of,
)
from refine.thesaurus import (
    akin,
    bases,
    is_animal,
    is_kind_of,
    is_person,
    is_plant,
    is_substance,
    linked,
    may_be_of_kind,
    mostly,
    near,
    uses,
)

# Parts that everything has: "at its foot" names no thing.
ENDS = words_of("foot base head top bottom heart core corner corners edge end front")
TOWARDS = words_of("at near from toward towards")
# Open ground by any name, and the words of a source that tell of some: gravel before a house is a forecourt.
GROUND = ("bare ground", "paving", "square", "field")
SURFACES = words_of(
    "gravel asphalt tarmac cobble cobbles paved paving bare ground earth soil dirt dust dusty mud muddy sand courtyard "
    "yard plaza square clearing plot lot site concrete"
)
# Things that a source tells of by other words than nouns: roads that meet have a junction.
TOLD_BY = {
    **dict.fromkeys((f"object:{name}" for name in GROUND), SURFACES),
    "object:junction": words_of("meet cross intersect join fork branch converge crossing"),
    "object:lettering": words_of("read say spell name word words written inscribed painted"),
    "object:wing": words_of("u l t h y x e z cross cruciform star horseshoe jib"),
    "object:parking garage": words_of("deck decks storey storeys level levels"),
    "object:equipment": words_of("mechanical technical"),
    "object:carving": words_of("carve carved ornate sculpted decorated"),
    "object:reflection": words_of("reflect mirror mirrored"),
    "object:roof": words_of("slate slated tile tiled thatch thatched shingled pantile pantiled covered"),
    "object:sea": words_of("wave waves surf tide"),
}
MATTER = {"material", "colour"}
STATES = words_of("bloom blossom flower leaf shade sunlight action motion")
# Nouns for a second thing of a kind, the thesaurus's kin aside; and who sees the scene, or by what.
LIKES = words_of(
    "companion counterpart mate fellow peer partner twin double duplicate replica lookalike rival neighbour neighbor"
)
VIEWERS = words_of("camera lens viewer observer onlooker beholder spectator photographer eye frame")
CYCLES = words_of("cycle bicycle bike")
# What things are called by their nature rather than by what they hold or look like: "a crate of fruit" is a crate.
HOLDERS = ("container", "vehicle", "building", "furniture", "implement", "person", "animal")
# Concepts of the lexicon that hold things of several kinds.
MIXED = frozenset({"object:animal"})
GROUPS = words_of("couple family group class crowd crew team band audience throng party congregation")
SEX_AND_AGE = words_of("man woman boy girl child baby lady gentleman men women children")


def objects(case: Case) -> str:
    new: list[str] = []
    reworded = _reworded(case)
    for reading in case.texts:
        found = [word for word in _new_things(case, reading) if word not in reworded]
        found = [word for word in found if not _told_alike(case.source, reading, word)]
        new += [] if found and foreign(case, reading) else found
    return f"not in the source: {comma_list(new)}" if new else ""


def _reworded(case: Case) -> frozenset[str]:
    """The caption's unknown nouns that may be other words for things of the source which the caption does not name.

    Each such thing of the source stands for one noun, of nearly the same kind; an addition has nothing it stands for.
    """
    new = _new_things(case, case.caption)
    if not new:
        return frozenset()
    stated = [m.concept for m in case.caption.of("object")] + [concept for _, concept in case.caption.things]
    own = {case.source.tokens[m.end - 1]: m.concept for m in case.source.of("object")} | dict(case.source.things)
    left = [word for word, concept in own.items() if not any(related(concept, other) for other in stated)]
    found = set()
    for word in dict.fromkeys(new):
        match = next((other for other in left if near(word.split()[-1], other)), None)
        if match is not None and not is_person(word) and not _in_place_of(case, word, match):
            left.remove(match)
            found.add(word)
    return frozenset(found)


def _told_alike(source: Reading, reading: Reading, word: str) -> bool:
    """Whether the noun has the telling noun of one that the text leaves out: irrigation ditch for its channel."""
    at = reading.tokens.index(word.rsplit(maxsplit=1)[-1])
    before = reading.tokens[at - 1] if at else ""
    if not before.isalpha() or before in english().function or on_axis(before) or is_person(word):
        return False
    return any(
        not set(stems(before)).isdisjoint(stems(one)) and mostly(other, "n") and reading.stems.isdisjoint(stems(other))
        for one, other in pairwise(source.tokens)
    )


def _in_place_of(case: Case, word: str, other: str) -> bool:
    """Whether the caption says the noun between the same two words as the source the other: a replacement."""
    frames = []
    for tokens, phrase in ((case.caption.tokens, word.split()), (case.source.tokens, other.split())):
        at = tokens.index(phrase[-1])
        frames.append((tokens[at - len(phrase)] if at >= len(phrase) else "", tokens[at + 1 : at + 2]))
    (before, after), (own_before, own_after) = frames
    return after == own_after and (before == own_before or len(word.split()) > 1)


def _new_things(case: Case, reading: Reading) -> list[str]:
    """The nouns of one text that name a thing the source neither has, nor implies, nor denies."""
    new: list[str] = []
    for _, mentions in at_same_word(reading, "object"):
        words = reading.words_at(mentions[0])
        if f" {words} " in case.source.words or any(
            m.concept in case.supported and (m.concept not in MIXED or _of_one_kind(case.source, words))
            for m in mentions
        ):
            continue
        if any(_denied_fairly(case, m) for m in mentions) or _stands_for(reading, mentions[0].at, mentions[0].end):
            continue
        if words in GROWN and case.source.stems & {"green", "overrun", "garden"}:
            continue
        if words in SUMMITS and not SUMMITS.isdisjoint(case.source.tokens):
            continue
        if words in {"slope", "slopes"} and any(m.concept == "roof:1" for m in case.source.of("quality")):
            continue
        if words == "overcast" and any(
            m.heads & {"object:sky"} for m in case.source.of("colour") if m.concept != "colour:blue"
        ):
            continue
        if case.source.stems & TOLD_BY.get(mentions[0].concept, frozenset()):
            continue
        if _written_apart(case.source, reading, mentions[0]) or _whoever(case.source, reading, mentions[0]):
            continue
        if not meant(case.source, words) and not _same_people(case.source, reading, words):
            new.append(words)
    for word, concept in reading.things:
        at = reading.tokens.index(word)
        nobody = is_person(word) and concept in reading.denied and "object:person" in case.source.denied
        if nobody or _stands_for(reading, at, at + 1):
            continue
        if (concept in case.supported or meant(case.source, word.removesuffix("'s"))) and not _listed_beside(
            case.source, reading, at, word
        ):
            continue
        if not _same_people(case.source, reading, word):
            new.append(word)
    new += _new_pairs(case, reading)
    new += _other_kinds(case.source, reading)
    strange = (word for word in reading.strangers if word.islower() and word not in case.source.joined)
    return new + [w for w in strange if not meant(case.source, w) and not _same_people(case.source, reading, w)]


def _new_pairs(case: Case, reading: Reading) -> Iterator[str]:
    """Two words that name one thing which the lexicon does not have, and the source does not tell of: a signal box."""
    own = case.supported.union(concept for _, concept in case.source.named)
    for at, concept in reading.named:
        words = name(concept)
        if " " not in words or not concept.startswith("thing:") or concept in own:
            continue
        if not case.source.stems.isdisjoint(stems(words.rpartition(" ")[2])):
            continue  # `_other_kinds` compares what stands before the same noun
        if not _stands_for(reading, at, reading.parsed.ends[at]) and not meant(case.source, words):
            yield words


def _whoever(source: Reading, reading: Reading, mention: Mention) -> bool:
    """Whether somebody only does what the source has in the passive: "someone has abandoned" what is abandoned."""
    behind = reading.tokens[mention.end : mention.end + 4]
    done = (word for word in behind if word.endswith("ed") or uses(word, "v") > uses(word, "n"))
    return reading.tokens[mention.at] in {"someone", "somebody"} and any(
        word not in BE and not source.stems.isdisjoint(stems(word)) for word in done
    )


def _written_apart(source: Reading, reading: Reading, mention: Mention) -> bool:
    """Whether a noun is half of what the source writes as one word: "chair lift" for chairlift."""
    before = "".join(reading.tokens[max(0, mention.at - 1) : mention.end])
    behind = "".join(reading.tokens[mention.at : mention.end + 1])
    return bool({before, behind} & set(source.tokens))


def _other_kinds(source: Reading, reading: Reading) -> Iterator[str]:
    """Compounds of a noun that the source has with another noun before it only: police station for petrol station."""
    for at, _ in reading.named:
        head, kind = reading.tokens[at], reading.tokens[at - 1] if at else ""
        last = head
        if not kind.isalpha():
            head, kind = reading.tokens[reading.parsed.ends[at] - 1], head  # a phrase of two words
        if head == kind or not _is_kind(kind) or source.stems.intersection(stems(kind)):
            continue
        own = [
            source.tokens[n - 1]
            for n, token in enumerate(source.tokens)
            if n and set(stems(token)) & set(bases(head, "n"))
        ]
        if (
            own
            and all(map(_is_kind, own))
            and not any(near(one, kind) or linked(one, kind) or akin(one, kind) or {one, kind} <= CYCLES for one in own)
        ):
            yield f"{kind} {last}"


def _is_kind(word: str) -> bool:
    """Whether a word before a noun is a noun itself that tells its kind: petrol, but no colour and no material."""
    return (
        word.isalpha()
        and mostly(word, "n")
        and not uses(word, "a")
        and not plain(word)
        and not on_axis(word)
        and not any(kind != "object" for stem in stems(word) for kind, _ in lexicon().senses.get(stem, ()))
    )


def _of_one_kind(source: Reading, word: str) -> bool:
    """Whether a word of a mixed concept may name what the source names: birds for pigeons, but no horse for sheep."""
    last = word.rsplit(maxsplit=1)[-1]
    return meant(source, last) or any(
        is_kind_of(own, last)
        or may_be_of_kind(own, last)
        or linked(own, last)
        or (linked(last, own) and not is_animal(last))
        for own in source.content
    )


def _stands_for(reading: Reading, at: int, end: int) -> bool:
    """Whether a noun names a use, a likeness or an owner: "as its seat", "for walkers", "-shaped"."""
    after = [word for word in reading.tokens[end : end + 2] if word != "-"][:1]
    if reading.tokens[at:end] == ("home",) and after == ["to"]:
        return True
    if any(rule(reading, at, end) for rule in (_is_idiom, _is_measure, _is_like, _is_adjunct)):
        return True
    if after and after[0] in {"shaped", "like", "style", "fashion", "coloured", "colored", "sized", "free"}:
        return True
    if reading.tokens[end : end + 1] in {("'",), ("’",)}:
        return True
    if (
        after
        and (
            (len(after[0]) == 1 and after[0] not in {"a", "i", ",", ".", ";", ":"})  # the letter H
            or (after[0] == "by" and reading.tokens[at].endswith("ed"))  # shaded by
            or ("in" in reading.tokens[max(0, at - 2) : at] and reading.tokens[at] in STATES)
        )
    ):
        return True
    if reading.tokens[end : end + 2] == ("-", "made"):
        return True  # a man-made pond
    before = at - 1
    whose = is_person(reading.tokens[at])  # for long jumpers
    while before > 0 and (reading.tokens[before] in DETERMINERS or (whose and reading.parsed.modifier(before))):
        before -= 1
    if reading.tokens[at] in ENDS and before >= 0 and reading.tokens[before] in TOWARDS:
        return True
    return before >= 0 and reading.tokens[before] in {"as", "like", "for"}


def _is_idiom(reading: Reading, at: int, end: int) -> bool:
    """Whether a bare singular stands in a phrase of place: "shoulder to shoulder", "in step with"."""
    tokens, word = reading.tokens, reading.tokens[at]
    again = [n for n in (at - 2, at + 2) if 0 <= n < len(tokens) and tokens[n] == word]
    if any(tokens[(n + at) // 2] in PREPOSITIONS for n in again):
        return True
    if at == 0 or word not in bases(word, "n"):
        return False
    on_foot = tokens[at - 1] in {"on", "at", "by"} and word in ENDS
    return on_foot or (tokens[at - 1] == "in" and tokens[end : end + 1] in {("with",), ("to",)})


def _is_measure(reading: Reading, at: int, end: int) -> bool:
    """Whether a noun tells how much or in what shape there is of another: "a scrap of lawn", "a forest of masts"."""
    if reading.tokens[end : end + 1] != ("of",):
        return False
    behind = [n for n in range(end + 1, min(end + 4, len(reading.tokens))) if mostly(reading.tokens[n], "n")]
    if not behind or reading.tokens[end + 1] in DETERMINERS or reading.parsed.kinds.get(behind[0], set()) & MATTER:
        return False
    word = reading.tokens[end - 1]
    return not any(is_kind_of(word, holder) for holder in HOLDERS)


def _is_like(reading: Reading, at: int, end: int) -> bool:
    """Whether a noun means another thing of a kind named before, or whoever sees the scene."""
    word, before = reading.tokens[end - 1], reading.tokens[at - 1] if at else ""
    if word in VIEWERS:
        return before == "the"
    alike = is_kind_of(word, "relative") or not LIKES.isdisjoint(bases(word, "n"))
    return alike and not people(reading) - set(bases(word, "n"))


def _is_adjunct(reading: Reading, at: int, end: int) -> bool:
    """Whether a noun tells the kind of the noun at once behind it, which is judged itself: "a corkscrew ramp"."""
    word, w = reading.tokens[end - 1], reading.parsed
    if end not in w.nouns or not w.is_object(end) or word not in bases(word, "n"):
        return False
    return not (is_plant(word) or is_person(word) or is_animal(word) or is_substance(word))


def _same_people(source: Reading, reading: Reading, word: str) -> bool:
    """Whether a word for a person may be another word for the source's: there are no more people in the reply.

    Sex and age are no words of this kind: a woman is not a man.
    """
    plural = word.endswith(("people", "children", "men", "folk")) or (is_person(word) and word not in bases(word, "n"))
    if plural and any(one in GROUPS and two not in ARTICLES | {"of"} for one, two in pairwise(source.tokens)):
        return True
    if not is_person(word) or set(stems(word)) & SEX_AND_AGE:
        return False
    if word.endswith(("'s", "s'")):
        return False  # a butcher's shop is no baker's
    at = next((n for n, token in enumerate(reading.tokens) if token in word.split()), 0)
    joined = "and" in reading.tokens[max(0, at - 3) : at + 3]
    if joined and people(reading) & people(source):
        return False  # "a rider and a jogger"
    return 0 < len(people(reading)) <= len(people(source))


def _listed_beside(source: Reading, reading: Reading, at: int, word: str) -> bool:
    """Whether a noun is an addition beside the very word that it might stand for: "a lighthouse and a beacon"."""
    if source.stems.intersection(stems(word)):
        return False
    near = range(max(0, at - 5), min(len(reading.tokens), at + 6))
    joined = [n for n in near if "and" in reading.tokens[min(n, at) : max(n, at)]]
    beside = {stem for n in joined if reading.tokens[n] in source.stems for stem in stems(reading.tokens[n])}
    own = list(sources_of(source, word))
    return bool(own) and all(beside.intersection(stems(one)) for one in own)


def _denied_fairly(case: Case, mention: Mention) -> bool:
    """A denial of a thing the source does not name is judged by the contradiction gate, not as an invented thing."""
    return any(mention.concept in reading.denied for reading in case.texts)
