"""The meta gate: a caption shows a scene; it does not speak of itself, of its writer, to its reader, or say nothing."""

import re
from collections.abc import Iterator
from itertools import groupby

from refine.gates.case import Case, comma_list
from refine.gates.form import ENGLISH_SHARE, shouts
from refine.gates.things import in_lexicon, is_stretch, meant, people
from refine.registers import Phrases, english, lexicon
from refine.registers.reading import BE, PREPOSITIONS, Reading, known, plain, plain_words, stems, words_of
from refine.thesaurus import bases, is_said, mostly, uses

LABEL = re.compile(
    r"^\W*(?:\w+ )?(?:caption|description|answer|reply|output|quer(?:y|ies)|note|result|rewrite)s?\s*\d*\s*:",
    re.IGNORECASE,
)


def _worded(pattern: str, words: tuple[str, ...]) -> Phrases:
    """The pattern with any of the words, whose first words are what it opens with, in the place of WORDS."""
    either = "|".join(map(re.escape, words))
    openers = frozenset(re.split("[ ']", word)[0] for word in words)
    return Phrases(re.compile(pattern.replace("WORDS", f"(?:{either})"), re.IGNORECASE), openers)


# A sentence that opens with what a writer is told to do.
ORDER = _worded(
    r"(?:^|[.!?]\s+)(WORDS\s+(?!by\b|along\b|past\b|after\b|an?\b))",
    (
        *(
            "please",
            "do not",
            "don't",
            "never",
            "remember",
            "make sure",
            "ensure",
            "avoid",
            "write",
            "return",
            "answer",
        ),
        *("respond", "describe", "mention", "list", "give", "provide", "follow", "include", "omit", "split", "shorten"),
        *("use only", "use no", "use the", "use short", "keep all", "keep the", "keep to", "keep it", "stick to"),
    ),
)
# Verbs that stand at the head of a sentence as prepositions too: "Save for a rim".
EXCEPTING = words_of("save bar let")
# Adverbs that may stand before the verb of an order, and verbs whose base form is a participle as well.
BEFORE_ORDERS = words_of("only always just simply also then now first")
SAME_PARTICIPLE = words_of(
    "set cut put split shut spread hit let cast cost read burst bet rid run come become overrun thrust"
)
# Whoever says these speaks to somebody.
TALKING = _worded(
    r"\bWORDS\b",
    (
        *("you", "your", "yours", "yourself", "me", "my", "mine", "we", "our", "ours"),
        *("let's", "let us", "let me"),
    ),
)
BEHIND_VERBS = ("for", "a", "an", "the")
# What is called out, to whomever.
INTERJECTIONS = words_of(
    "hello hi hey howdy greetings goodbye bye farewell amen hallelujah hooray hurrah hurray wow oh ah aha ahoy alas "
    "bravo cheers oops ouch phew yay yes yep nope dear thanks"
)
# What people do in a scene.
CONVERSING = words_of("conversation conversations chat talk discussion debate argument")
# Nouns of speech that tell of looks as well: the main subject, a colour theme, a signature colour.
LOOKS = words_of("subject subjects theme themes signature motif motifs")
WRITER = Phrases(re.compile(r"(?<!letter )(?<!\ban )\bI\b(?!-)"), frozenset({"i"}))
ACCORDING = re.compile(r"according to (?:the |a |its |their )?(\w*)")
IN_SHORT = re.compile(r"\bin short\s*[,:;]", re.IGNORECASE)
WRITTEN = frozenset({"object:sign", "object:lettering", "object:banner", "object:clock", "object:logo"})
LONGEST_LABEL, LONGEST_CALL = 8, 2
PICTURES = words_of("image images picture pictures photo photograph view views scene scenes tile tiles visible seen")


def _by_lettering(case: Case) -> bool:
    """Whether "according to" cites only what stands written in the scene: a sign, a board."""
    cited = [words for reading in case.fresh for words in ACCORDING.findall(reading.text.lower())]
    return all(any(c in WRITTEN for stem in stems(word) for _, c in lexicon().senses.get(stem, ())) for word in cited)


def _addressed(source: Reading, reading: Reading) -> Iterator[re.Match[str]]:
    """Words for the writer and the reader that the source does not use."""
    for words in (TALKING, WRITER):
        found = list(reading.find(words))
        if found and not source.has(words):
            yield from found


def _of_texts(case: Case, reading: Reading) -> Iterator[str]:
    """Nouns of speech and writing, where nothing written stands in the scene: caption, sentence, wording."""
    if case.source.objects & WRITTEN or case.lettering:
        return
    source = case.source
    named = {reading.tokens[at] for at in reading.parsed.noun_at}
    for word in reading.content:
        if not is_said(word) or plain(word) or word in named or in_lexicon(word) or not mostly(word, "n"):
            continue
        if (
            word[-1] == "s"
            and uses(word, "v")
            and any(f" {word} {behind} " in reading.words for behind in BEHIND_VERBS)
        ):
            continue  # "grassland accounts for the rest"
        if f" as a {word} " in reading.words or f" as an {word} " in reading.words:
            continue  # "straight as an arrow"
        if word in CONVERSING and people(source):
            continue
        if not meant(source, word) and not _of_looks(reading, word):
            yield word


def _of_looks(reading: Reading, word: str) -> bool:
    """Whether a word of texts tells of looks: an adjective before a noun ("minuscule stairs"), "the main subject"."""
    spots = [at for at, token in enumerate(reading.tokens) if token == word]
    if word in LOOKS:
        return all(not reading.tokens[at + 1 : at + 2] or reading.tokens[at + 1] not in {":", "line"} for at in spots)
    ahead = ([t for t in reading.tokens[at + 1 : at + 4] if t not in {"-", ","}] for at in spots)
    return uses(word, "a") > 0 and all(any(is_stretch(t) for t in words) for words in ahead)


def _painted(source: Reading, reading: Reading, at: int) -> bool:
    """Whether the word is lettering that the source has, in the same capitals: "KEEP is painted on the road"."""
    word = reading.originals[at] if at < len(reading.originals) else ""
    return len(word) > 1 and word.isupper() and word in source.originals


def _echoed(case: Case) -> Iterator[str]:
    """Words of a board that a text says as if it obeyed: three of them twice, one or two as a sentence ("Honk!")."""
    for board in case.lettering:
        words = plain_words(board).split()
        for at in range(len(words) - 2):
            three = f" {' '.join(words[at : at + 3])} "
            counts = [reading.words.count(three) for reading in case.texts]
            if max(counts) > 1 or sum(map(bool, counts)) > 2:
                yield three.strip()
        for reading in case.texts:
            for at, end in _sentences(reading):
                called = [token for token in reading.tokens[at:end] if token[0].isalnum()]
                if len(called) <= LONGEST_CALL and set(called) <= set(words):
                    yield " ".join(called)


def _ordered(source: Reading, reading: Reading) -> Iterator[str]:
    """The first words of a sentence that starts with the base form of a verb: "Speak of roofs only"."""
    for first, _ in _sentences(reading):
        at = first
        while at + 1 < len(reading.tokens) and reading.tokens[at] in BEFORE_ORDERS:
            at += 1
        word, after = reading.tokens[at], reading.tokens[at + 1 : at + 2]
        other = at in reading.parsed.noun_at or word in SAME_PARTICIPLE | EXCEPTING or word in english().function
        if (
            other
            or _painted(source, reading, at)
            or uses(word, "a")
            or not after
            or not after[0].isalpha()
            or after[0] in BE | {"of"}
        ):
            continue
        if f" {word} {after[0]} " in source.words:
            continue  # work lamps
        if word in bases(word, "v") and mostly(word, "v") and not _does(reading, at):
            yield f"{word} {after[0]}"


def _does(reading: Reading, at: int) -> bool:
    """Whether a word that is a noun as well has its verb behind it: "paint peels from the wall"."""
    verb, behind = (*reading.tokens[at + 1 : at + 3], "", "")[:2]
    return uses(reading.tokens[at], "n") > 1 and verb[-1:] == "s" and mostly(verb, "v") and behind in PREPOSITIONS


def _sentences(reading: Reading) -> Iterator[tuple[int, int]]:
    """First token and end of every sentence."""
    at = 0
    for _, tokens in groupby(reading.sentences):
        end = at + len(list(tokens))
        yield at, end
        at = end


def _saying_nothing(case: Case, reading: Reading) -> Iterator[str]:
    """Sentences without a thing, a colour, a material or any other word of the source; labels before a colon too."""
    own = case.source.content_stems
    facts = set(reading.parsed.nouns).union(m.at for m in reading.mentions if m.kind != "quality")
    facts.update(m.at for m in reading.of("quality") if m.heads - {"generic"})
    colon = next((at for at, token in enumerate(reading.tokens[:LONGEST_LABEL]) if token == ":"), 0)
    for at, end in ((0, colon), *_sentences(reading)):
        words = [token for token in reading.tokens[at:end] if token[0].isalnum()]
        if not words or facts.intersection(range(at, end)):
            continue
        said = (w for w in words if w not in PICTURES and w not in english().function)
        if any(own.intersection(stems(word)) for word in said):
            continue
        if sum(map(known, words)) >= ENGLISH_SHARE * len(words):
            yield " ".join(words[:6])


def meta(case: Case) -> str:
    listed = (lexicon().meta, lexicon().refusals)
    found = [match.group() for reading in case.fresh for phrases in listed for match in reading.find(phrases)]
    if found:
        own = {match.group().lower() for phrases in listed for match in case.source.find(phrases)}
        own |= {f"the {word}" for word in case.source.tokens}  # a station's platform
        found = [words for words in found if words.lower() not in own]
    found = [words for words in found if words.lower() != "according to" or not _by_lettering(case)]
    if not any(IN_SHORT.search(reading.text) for reading in case.fresh):
        found = [words for words in found if words.lower() != "in short"]  # in short rows
    found += [m.group() for reading in case.fresh if (m := LABEL.match(reading.text))]
    found += [
        m.group(1)
        for reading in case.fresh
        for m in reading.find(ORDER)
        if not (m.group(1).split()[0].isupper() and m.group(1).split()[0] in case.source.originals)
    ]
    found += [m.group() for reading in case.fresh for m in _addressed(case.source, reading)]
    found += [word for reading in case.fresh for word in _of_texts(case, reading)]
    calls = INTERJECTIONS.difference(case.source.tokens)
    found += [word for reading in case.fresh for word in reading.tokens if word in calls]
    found += [
        words for reading in case.fresh for words in (*_ordered(case.source, reading), *_saying_nothing(case, reading))
    ]
    found += _echoed(case)
    if "!" not in case.source.text:
        found += ["!" for reading in case.texts if "!" in reading.text]
    if found:
        return f"talks about itself: {comma_list(found)}"
    if shouts(" ".join(r.text for r in case.texts)) and not shouts(case.source.text):
        return "written in capital letters"
    return ""
