"""The rules refiner: rewrites a caption into a platform's register without any model, the same way every time.

It only ever takes away and re-cuts: talk about the image, what the platform cannot see, and repetitions go; every
word that stays is the source's. So it cannot invent, and where taking away would leave a broken sentence it takes the
whole clause.

Queries are the retrieval task's register: short statements of one to three facts, each complete in itself, such as
"A courtyard building with a green hipped roof."
"""

import re

from refine.gates import unseen_words
from refine.registers import english
from refine.registers.reading import BE, DETERMINERS, PREPOSITIONS, Reading, mend_stops, read, stems, words_of
from schemas.records import Platform, Reply

MAX_QUERIES = 4
LONG_QUERY = 18  # words; a longer statement is cut at a modifier when it has one
MOST_CUTS = 12  # modifiers of one clause that are considered, so that no caption takes long
IMAGE = r"(?:image|picture|photo|photograph|frame|tile|view|scene|shot)"
SHOWS = r"(?:shows|depicts|captures|displays|presents|features)"
CENTRE = rf"(?:in|at|near|of) the (?:center|centre|middle)(?: of (?:the|this) {IMAGE})?"

# Openings that talk about the image instead of what it shows. What stands in their place is the last column.
OPENINGS: tuple[tuple[re.Pattern[str], str], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), by)
    for pattern, by in (
        (r"^(?:overall|in summary|in general|in addition|additionally|also),?\s+", ""),
        (rf"^(?:the|this) (?:drone |satellite |aerial |street )?{IMAGE} (?:also )?{SHOWS} ", ""),
        (rf"^this is (?=an? (?:\w+ )?{IMAGE} of )", ""),
        (rf"^an? (?:close-up |wide |general |beautiful )?(?:{IMAGE}) of (?=an? |the |\w+s )", ""),
        (rf"^an? (?:aerial |bird'?s[- ]eye |satellite |top-down |drone |overhead )(?:{IMAGE}) of (?=an? |the )", ""),
        (rf"^the (?:main )?(?:object|subject|structure)(?: {CENTRE})?(?: (?:of|in) the {IMAGE})? is (?=an? |the )", ""),
        (rf"^{CENTRE},? (?:there )?(?:is|are|stands|lies|sits) (?=an? |the |two |three |several )", ""),
        (rf"^{CENTRE},? (?:there )?(?:is|are) ", ""),
        (r"^(?:we can see|you can see|one can see|it can be seen that|there can be seen) ", ""),
    )
)  # fmt: skip
# Every opening above starts with one of these words.
TALK = re.compile(r"(?:overall|in|additionally|also|the|this|an?|at|near|of|we|you|one|it|there)\b", re.IGNORECASE)
OF_THE_IMAGE = re.compile(
    rf"\b(centre|center|middle|corners?|edges?|sides?|margin|part|half|quarter) of (?:the|this) {IMAGE}\b",
    re.I,
)
EMPTY_TALK = re.compile(
    rf"^(?:overall,? )?(?:the|this) (?:overall |whole |general )?(?:{IMAGE}|atmosphere|mood|impression|style) "
    r"(?:gives|has an? (?:overall|general)|conveys|creates|suggests|is (?:clear|of high|taken|well|bright|peaceful))",
    re.IGNORECASE,
)
# What the describer guesses or feels, which no image shows: the prompts that made GeoText forbid it, in vain.
GUESS = re.compile(
    r"\b(?:gives?|giving|conveys?|creates?) (?:\w+ ){0,3}(?:impression|feeling|sense|atmosphere)\b|"
    r"\b(?:looks?|feels?|seems?) like\b|\bappears? to (?:show|depict)\b|\bhard to (?:make out|see|tell)\b",
    re.IGNORECASE,
)
FEELING = re.compile(
    r"\b(?:is|are|looks?|seems?|appears?)(?: to be)? (?:(?:very|quite|rather|well|\w+ but) )?"
    r"(?:peaceful|elegant|impressive|beautiful|inviting|pleasant|quiet|natural|lively|tranquil|serene|important|"
    r"the most \w+|maintained|well[- ]maintained|well[- ]kept)\b",
    re.IGNORECASE,
)
SEEMS = re.compile(r"\b(?:(appears|seems)|appear|seem) to be\b")
UNPUNCTUATED = re.compile(
    r"(\w+) (?="
    r"(?:the (?:building|roof|image|stadium|object|structure|complex) (?:is|has|appears|are)|there (?:is|are))\b)"
)
CUT_OFF = re.compile(
    r"(?:\s+(?:which|that|and|with|a|an|the|of|have|has|is|are|in|on))*\s*(?:\.{2,}|…)\s*$", re.IGNORECASE
)
SENTENCE = re.compile(r"(?<=[.!?])[\"'”’)]*\s+")
STRONG = re.compile(r"(?:;\s+|,\s+(?:and|while|whereas|but)\s+|,\s+(?=(?:a|an|the|another|one|two)\s))", re.IGNORECASE)
# Where a modifier starts: what follows may go without harming what stands before.
WEAK = re.compile(
    r",\s+(?:with|which|where|from which|under which|on which|whose|and|including|having|seen)\s|"
    r"\s(?:with|and|whose|where|under which|from which|"
    r"below which|above which|over which|beside|next to|behind|below|under|over|above|in front of)\s"
)
STOREYS = re.compile(r"\b(?:\w+)-stor(?:e?y|ied|eyed)\s+", re.IGNORECASE)
THERE = re.compile(r"^there\s+(?:also\s+)?(?:is|are|stands?|lies|rises)\s+(?:also\s+)?(?=\w)", re.IGNORECASE)
HAS = re.compile(r"^(?:the|this)\s+((?:[\w-]+,?\s+){0,4}?[\w-]+)\s+has\s+(?=an? |\w+)", re.IGNORECASE)

LEANING = PREPOSITIONS | DETERMINERS | BE | {"there", "building", "nearby", "as"}
PRONOUNS = words_of("it its they them their this these those both one another he she each some most all others other")
BESIDE_IT = re.compile(
    r"\b(?:directly |just |immediately )?(?:next to|beside|near|close to|alongside|behind|in front of) (?:it|them)\b"
)
PLACED_THERE = re.compile(
    r"^(?:on|in|at|near|next to|around|behind|beside|along)\b[^,;]*,?\s+there\s+(?:also\s+)?(?:is|are)\s+(?=\w)",
    re.IGNORECASE,
)
# A pronoun that leans on its own sentence: "a lot with cars parked in it", "a square with a garden at its heart".
OWN = re.compile(
    r"\b\w+(?:ed|ing)(?: (?:in|on|along|around|by|beside|near|through|over|across|to))? (?:it|them)\b|"
    r"\b(?:with|at|under) its\b"
)
BACK = re.compile(r"\b(?:it|its|they|them|their|that|those|these|which)\b", re.IGNORECASE)


def _sentence_case(text: str) -> str:
    text = re.sub(r"\s+", " ", text).strip(" ,;:-")
    if not text:
        return ""
    if not re.search(r"[.!?][\"'”’)]?$", text):
        text += "."
    return text[0].upper() + text[1:]


def _sentences(text: str) -> list[str]:
    """Sentences of a caption, also of one whose stops are missing or whose end is cut off."""
    text = mend_stops(CUT_OFF.sub("", " ".join(text.split())))
    if not re.search(r"[.,;!?]\s", text) and text.count(" ") > 20:
        text = UNPUNCTUATED.sub(lambda m: m[0] if m[1].lower() in LEANING else f"{m[1]}. ", text)
    return [part for part in SENTENCE.split(text) if part.strip()]


def _finite(reading: Reading) -> bool:
    """Whether the text has a finite verb, as far as word lists tell; nouns found as objects are no verbs."""
    nouns = {m.at for m in reading.mentions}
    verbs = english().plain
    for at, token in enumerate(reading.tokens):
        if token in {"is", "are", "has", "have", "was", "were"}:
            return True
        if at == 0 or at in nouns or token.endswith(("ing", "ed")) or not token.isalpha():
            continue
        before = reading.tokens[at - 1]
        if before in DETERMINERS or before in PREPOSITIONS or before == "-" or token in PREPOSITIONS:
            continue
        if at - 1 in nouns and any(stem in verbs for stem in stems(token)) and token not in english().function:
            return True
    return False


def _without_image_talk(sentence: str) -> str:
    for _ in range(3):
        before = sentence
        if not TALK.match(sentence):
            break
        for pattern, by in OPENINGS:
            sentence = pattern.sub(by, sentence, count=1)
        if sentence == before:
            break
    return OF_THE_IMAGE.sub(r"\1", sentence)


def _clauses(sentence: str) -> list[str]:
    """The sentence's clauses, each with the separator that follows it; joined they are the sentence."""
    out: list[str] = []
    at = 0
    for match in STRONG.finditer(sentence):
        out.append(sentence[at : match.end()])
        at = match.end()
    out.append(sentence[at:])
    return out


def _bare(clause: str) -> str:
    """A clause without the separator that ends it."""
    return re.sub(r"(?:[;,]\s*(?:and|while|whereas|but)?|[.!?])\s*$", "", clause).strip()


def _stands(text: str) -> bool:
    """Whether a text can be a statement: it names an object, does not lean on a text before, and is no torso."""
    reading = read(text)
    words = [t for t in reading.tokens if t[0].isalnum()]
    if not reading.objects or len(words) < 2 or words[-1] in PREPOSITIONS | DETERMINERS | BE:
        return False
    return _finite(reading)


def _own_verb(platform: Platform, tail: str) -> str:
    """Of "and large windows stands beside a lawn": what its subject does; "" when a noun of the tail may do it.

    A verb in -s behind a plural cannot be the plural's own.
    """
    last = unseen_words(platform, tail)[-1:]
    if not last or not last[0].endswith("s"):
        return ""
    rest = tail[tail.rindex(last[0]) + len(last[0]) :].strip()
    verb = rest.partition(" ")[0].lower()
    finite = verb in {"is", "has"} or (verb.endswith("s") and any(stem in english().plain for stem in stems(verb)[1:]))
    return rest if finite else ""


def _trim(platform: Platform, clause: str) -> str:
    """The clause without the modifiers that speak of what the platform cannot see; "" when it cannot be mended."""
    bare = _bare(clause)
    cuts = [match.start() for match in WEAK.finditer(bare)][:MOST_CUTS]
    for cut in reversed(cuts):
        kept = bare[:cut]
        if not unseen_words(platform, kept):
            reading = read(kept)
            whole = _finite(reading) or not _finite(read(bare))
            words = [t for t in reading.tokens if t[0].isalnum()]
            if not whole and (rest := _own_verb(platform, bare[cut:])):
                return f"{kept} {rest}"
            fine = whole and reading.objects and words and words[-1] not in PREPOSITIONS | DETERMINERS | BE
            return kept if fine else ""
    return ""


def _suited(platform: Platform, sentence: str) -> str:
    """The sentence without what the platform cannot see; "" when nothing is left."""
    if not unseen_words(platform, sentence):
        return sentence
    if platform == "satellite":
        sentence = STOREYS.sub("", sentence)
    if not unseen_words(platform, sentence):
        return sentence
    kept: list[str] = []
    dropped = False
    for clause in _clauses(sentence):
        if not unseen_words(platform, clause):
            if dropped and (not _stands(_bare(clause)) or BACK.match(_bare(clause))):
                continue
            kept.append(clause)
            continue
        trimmed = _trim(platform, clause)
        dropped = not trimmed
        if trimmed:
            kept.append(trimmed + ("; " if clause is not sentence else ""))
    text = "".join(kept)
    text = re.sub(r"[;,]\s*(?:and|while|whereas|but)?\s*$", "", text.rstrip())
    return text if read(text).objects else ""


def _facts(text: str) -> frozenset[str]:
    return frozenset(m.concept for m in read(text).mentions if m.kind != "quality")


def _shorten(text: str) -> str:
    """Cut trailing modifiers off a long statement."""
    while len(text.split()) > LONG_QUERY:
        cuts = [m.start() for m in WEAK.finditer(text)][:MOST_CUTS]
        fitting = [c for c in cuts if _stands(text[:c]) or (not _finite(read(text)) and read(text[:c]).objects)]
        if not fitting:
            return text
        text = text[: fitting[-1]].rstrip(" ,")
    return text


def _statement(clause: str) -> str:
    """A clause as a short statement complete in itself, or "" when it leans on what stood before it."""
    text = _bare(clause)
    text = re.sub(r"^(?:and|while|whereas|but|with)\s+", "", text, flags=re.IGNORECASE)
    text = THERE.sub("", PLACED_THERE.sub("", text))
    if ":" in text and _stands(text.partition(":")[0]):
        text = text.partition(":")[0]
    has = HAS.match(text)
    if has and read(has[1]).objects and not has[1].lower().startswith(("other ", "first ", "second ", "same ", "one ")):
        article = "An" if has[1][0].lower() in "aeio" else "A"
        subject = re.sub(r" (?:in|at|near) the (?:centre|center|middle)$", "", has[1])
        text = f"{article} {subject} with {text[has.end() :]}"
    text = _shorten(text)
    reading = read(text)
    first = min((m.at for m in reading.mentions if m.kind == "object"), default=None)
    if first is None or reading.tokens[0] in PRONOUNS:
        return ""
    if BACK.search(OWN.sub(" ", text)):
        return ""
    if reading.tokens[0] not in DETERMINERS and not _finite(reading) and len(reading.tokens) < 4:
        return ""
    return _sentence_case(text)


def _pick(platform: Platform, sentences: list[str]) -> tuple[str, ...]:
    """One to four statements: the first that stands, then those with the most facts, in source order."""
    candidates: list[tuple[int, str, frozenset[str]]] = []
    for sentence in sentences:
        clauses = [
            part
            for half in re.split(r";\s+(?:and\s+)?", sentence)
            for part in (_clauses(half) if all(_stands(_bare(c)) for c in _clauses(half)) else [half])
        ]
        for clause in clauses:
            text = _statement(clause)
            facts = _facts(text)
            if not text or not facts or len(text.split()) > 30 or unseen_words(platform, text):
                continue
            if any(facts <= other or other == facts for _, _, other in candidates):
                continue
            candidates.append((len(candidates), text, facts))
    chosen = candidates[:1] + sorted(candidates[1:], key=lambda c: (-min(len(c[2]), 4), c[0]))[: MAX_QUERIES - 1]
    return tuple(text for _, text, _ in sorted(chosen))


def unchanged(stripped: str) -> Reply:
    """The stripped caption as its own rewrite, with its first sentence as the only query."""
    first = next(iter(_sentences(stripped)), stripped)
    return Reply(stripped, (_sentence_case(first) or stripped,))


def rewrite(stripped: str, platform: Platform) -> Reply:
    """Rewrite a stripped caption for a platform.

    A caption in which nothing suits the platform, or that names no object we know, comes back unchanged as the caption,
    with itself (its first sentence) as the only query.
    """
    kept: list[str] = []
    said: frozenset[str] = frozenset()
    orphaned = False
    for sentence in _sentences(stripped):
        if EMPTY_TALK.match(sentence) or GUESS.search(sentence):
            continue
        if FEELING.search(sentence) and _facts(sentence) <= said | {"object:building"}:
            continue
        plain = SEEMS.sub(lambda m: "is" if m[1] else "are", _without_image_talk(sentence))
        suited = _suited(platform, plain)
        if orphaned:
            suited = BESIDE_IT.sub("nearby", suited)
        orphaned = not suited
        if not suited:
            continue
        facts = _facts(suited)
        if facts and facts <= said and plain != sentence:
            continue
        said |= facts
        kept.append(_sentence_case(suited))
    caption = " ".join(part for part in dict.fromkeys(kept) if part)
    if not caption or not said:
        return unchanged(stripped)
    queries = _pick(platform, kept)
    return Reply(caption, queries or (_sentence_case(_shorten(_bare(kept[0]))),))
