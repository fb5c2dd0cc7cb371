"""The paraphrase grammar: what the tiny model is taught to answer. Reads a campus caption and writes it anew.

A caption of the sample world is read into facts (its sentences have known shapes), the facts that the platform cannot
see are left out, and the others are said again in the platform's register: other verbs, merged sentences, another
order, other words for things where the language has them. Where in the image a thing lies is never said: so few weights
put one thing in the place of another. Everything is a function of the caption alone: which of
several wordings is used depends on the wording of the source, so that a model can learn it without guessing.

    from refine.tiny_rewriter.paraphrase import rewrite
"""

import re
from dataclasses import dataclass, field
from itertools import chain

from refine.gates import check, passed
from schemas.records import Platform, Reply

_HEAD = re.compile(
    r"an? (?P<size>large|big|modern|impressive) (?P<mass>(?:.+ )?)building(?: with an? (?P<roof>.+) roof)?"
)
_OPENINGS = (
    r"The main object in the center of the image is (?P<it>.+)",
    r"In the center of the image is (?P<it>.+)",
    r"The object in the center of the image is (?P<it>.+)",
    r"The image shows (?P<it>.+) in the center",
    r"This is an image of (?P<it>.+) in the middle of the scene",
)
_STOREYS = r"(?:single|one|two|double|three|four|six)-storey"
_SHAPES = r"gabled|ridged|hipped|hip-style|sawtooth|zigzag|domed|cupola-crowned|stepped|two-tiered|flat"
_COLOURS = r"red|orange|yellow|green|turquoise|blue|white|black|brown"
_PLANS = (
    r"square|box-shaped|long rectangular|long|elongated|[LUTH]-shaped|cross-shaped|plus-shaped|courtyard|ring-shaped"
)
_MASS = re.compile(rf"(?:(?P<storeys>{_STOREYS}) ?)?(?:(?P<plan>{_PLANS}) ?)?(?P<walls>.*)")
_ROOF = re.compile(rf"(?:(?P<colour>{_COLOURS}) ?)?(?P<shape>{_SHAPES})?")

_BE = r"(?:is|are)"
_PLACE = r"(?:upper|middle|lower) (?:left|middle|right)"
_OF = r"of the (?:image|picture|building)"
_SOMEWHERE = rf"(?:[Oo]n|[Ii]n) (?:the middle of )?(?:one|another|the other) (?:side|corner) {_OF}"
# How a sentence names a thing, most particular first: (what it is about, pattern).
_SENTENCES: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("equipment", rf"There {_BE} (?P<it>.+) on the roof of the building"),
        ("equipment", r"The roof of the building carries (?P<it>.+)"),
        ("roof is", rf"The roof of the building is (?P<it>{_COLOURS})"),
        ("colour", r"The building has (?P<it>.+) roof surfaces"),
        ("shape", rf"The roof of the building is (?P<it>{_SHAPES})"),
        ("shape", r"The building has an? (?P<it>.+) roof"),
        ("plan", r"Its plan is (?P<it>.+)"),
        ("plan", r"The building is (?P<it>.+) in plan"),
        ("wing", r"The building is connected to (?P<it>.+)"),
        ("wing", r"(?P<it>.+) is attached to the building"),
        ("surface", r"The building is surrounded by (?P<it>.+)"),
        ("surface", r"The open ground around the building is (?P<it>.+)"),
        ("trees", rf"There {_BE} (?P<it>.+) around the building"),
        ("trees", r"Several (?P<it>.+) grow around the building"),
        ("walls", r"The building has an? (?P<it>.+) facade"),
        ("walls", r"The walls of the building are (?P<it>.+)"),
        ("storeys", r"It is an? (?P<it>.+) building"),
        ("storeys", r"It appears to be an? (?P<it>.+) structure"),
        ("windows", r"The facade has (?P<it>.+)"),
        ("windows", r"The building has (?P<it>.+) on every floor"),
        ("entrance", r"The entrance of the building has (?P<it>.+)"),
        ("entrance", r"The entrance is marked by (?P<it>.+)"),
        ("awning", rf"There {_BE} (?P<it>.+) along the facade"),
        ("awning", r"The ground floor has (?P<it>.+)"),
        ("thing", rf"On the {_PLACE} side {_OF}, there {_BE} (?P<it>.+)"),
        ("thing", rf"On the {_PLACE} side {_OF}, (?P<it>.+) can be seen"),
        ("thing", rf"There {_BE} (?P<it>.+) on the {_PLACE} side {_OF}"),
        ("thing", rf"(?P<it>.+) can be seen on the {_PLACE} side {_OF}"),
        ("thing", rf"In the {_PLACE} corner {_OF}, there {_BE} (?P<it>.+)"),
        ("thing", rf"(?P<it>.+) {_BE} visible in the {_PLACE} corner {_OF}"),
        ("thing", rf"In the foreground, there {_BE} (?P<it>.+)"),
        ("thing", rf"{_SOMEWHERE}, there {_BE} (?P<it>.+)"),
        ("thing", rf"{_SOMEWHERE}, (?P<it>.+) can be seen"),
        ("thing", rf"There {_BE} (?P<it>.+) {_SOMEWHERE}"),
        ("thing", rf"(?P<it>.+) (?:{_BE} visible|can be seen) {_SOMEWHERE}"),
        ("thing", rf"(?:Next to|Near|Beside) the building, there {_BE} (?P<it>.+)"),
        ("thing", rf"There {_BE} (?P<it>.+) (?:next to|near|beside) the building"),
        ("thing", r"(?P<it>.+) can be seen (?:next to|near|beside) the building"),
        ("thing", r"The building stands close to (?P<it>.+)"),
        ("thing", rf"(?P<it>.+) (?:can be seen|{_BE} visible|is nearby|are nearby)"),
        ("thing", rf"There {_BE} (?P<it>.+)"),
    )
)  # fmt: skip
_FILLER = re.compile(
    r"The image is taken on|The overall scene gives|The area seems|It looks like a place|The picture appears|"
    r"There are a few other buildings|The surroundings look|The building seems to be|Some details are hard|"
    r"The architecture of"
)
_SENTENCE_END = re.compile(r"\.\s*|(?<=[a-z])(?=[A-Z])")

# Said again in other words; what is not listed keeps its own. Articles are added by `_noun`.
_OTHER_WORDS = {
    "football field": "football pitch",
    "car park": "parking lot",
    "parking lot": "car park",
    "parking area": "car park",
    "paved road": "paved street",
    "asphalt road": "asphalt street",
    "leafy green trees": "green leafy trees",
    "leafy green tree": "green leafy tree",
    "double-storey": "two-storey",
    "orange autumn trees": "autumn trees",
    "orange autumn tree": "autumn tree",
    "long rectangular": "elongated",
    "long": "elongated",
    "box-shaped": "square",
    "cross-shaped": "plus-shaped",
    "white plastered": "white plaster",
    "dark wood": "dark timber",
    "dark wooden": "dark timber",
    "yellow stone": "yellow sandstone",
    "skylights": "roof lights",
    "arched doorway": "arched entrance",
    "big": "large",
    "impressive": "imposing",
}
_PLURALS = re.compile(r"s$")
_MASS_NOUNS = re.compile(r"(?:grass|paving|gravel|earth|soil|dirt)$")
_VOWEL = re.compile(r"(?!one|U-)[aeiou]|[LH]-")


@dataclass
class Facts:
    """What a caption says: attribute -> words, the things around in source order, and how it opens (0..4)."""

    opening: int
    said: dict[str, str] = field(default_factory=dict)
    things: list[str] = field(default_factory=list)


def _add(facts: Facts, kind: str, words: str) -> None:
    words = re.sub(r"^an? ", "", words[:1].lower() + words[1:] if not re.match(r"[LUTH]-", words) else words)
    facts.said.setdefault(kind, _OTHER_WORDS.get(words, words))


def _read_head(facts: Facts, text: str) -> bool:
    head = _HEAD.fullmatch(text)
    mass = _MASS.fullmatch(head["mass"].strip()) if head else None
    roof = _ROOF.fullmatch((head["roof"] or "") if head else "")
    if head is None or mass is None or roof is None:
        return False
    _add(facts, "size", head["size"])
    for kind, words in (mass.groupdict() | roof.groupdict()).items():
        # The gates take the colour of "a building with a red sawtooth roof" for the building's: it is said of the roof
        # of the building, which they read in the same way.
        said_of_roof = kind == "colour" and roof["shape"] == "sawtooth"
        if words:
            _add(facts, "roof is" if said_of_roof else kind, words)
    return True


def _read_sentence(facts: Facts, sentence: str) -> bool:
    for kind, pattern in _SENTENCES:
        found = pattern.fullmatch(sentence)
        if found is None:
            continue
        if kind != "thing":
            _add(facts, kind, found["it"])
            return True
        noun = re.sub(r"^[Aa]n? ", "", found["it"])
        noun = noun[:1].lower() + noun[1:]
        noun = _OTHER_WORDS.get(noun, noun)
        if noun not in facts.things:
            facts.things.append(noun)
        return True
    return False


def read_facts(caption: str) -> Facts | None:
    """The facts of a campus caption, stripped or not; None for a text of another kind."""
    sentences = [part.strip() for part in _SENTENCE_END.split(caption) if part.strip()]
    if not sentences:
        return None
    matches = ((at, re.fullmatch(pattern, sentences[0])) for at, pattern in enumerate(_OPENINGS))
    opening, found = next(((at, found) for at, found in matches if found), (0, None))
    facts = Facts(opening)
    if found is None or not _read_head(facts, found["it"]):
        return None
    for sentence in sentences[1:]:
        if _FILLER.match(sentence) or sentence.startswith("The object in the center of the image is"):
            continue
        if not _read_sentence(facts, sentence):
            return None
    # "A palm tree ... and palms surround it" says the same again.
    trees = facts.said.get("trees")
    facts.things = [noun for noun in facts.things if trees not in (f"{noun}s", f"{noun.removesuffix(' tree')}s")]
    return facts


# ---- saying it -------------------------------------------------------------------------------------------------------


def _article(words: str) -> str:
    return ("an " if _VOWEL.match(words) else "a ") + words


def _plural(noun: str) -> bool:
    head = re.split(r" (?:with|of) ", noun)[0]
    return bool(_PLURALS.search(head)) and not noun.endswith(("grass", "glass"))


def _noun(noun: str) -> str:
    """The noun with its indefinite article, where it takes one."""
    return noun if _plural(noun) or _MASS_NOUNS.search(noun) else _article(noun)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _join(items: list[str]) -> str:
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


_MASSING: dict[Platform, tuple[str, ...]] = {
    "satellite": ("size", "plan"),
    "drone": ("size", "storeys", "plan", "walls"),
    "ground": ("size", "storeys", "walls"),
}
_SHOWN: dict[Platform, tuple[str, ...]] = {
    "satellite": ("equipment",),
    "drone": ("equipment", "windows", "entrance", "awning"),
    "ground": ("windows", "entrance", "awning"),
}
_BUILDING = ("building", "structure", "building", "structure", "building")


def _body(facts: Facts, platform: Platform, *, size: bool) -> str:
    words = [facts.said[k] for k in _MASSING[platform] if k in facts.said and (size or k != "size")]
    return _article(" ".join([*words, _BUILDING[facts.opening] if size else "building"]))


def _roof(facts: Facts) -> str:
    words = [facts.said[k] for k in ("shape", "colour") if k in facts.said]
    return _article(" ".join([*words, "roof"])) if words else ""


_MAIN: dict[Platform, tuple[tuple[str, str], ...]] = {
    "satellite": (
        ("{Body} beneath {roof} sits at the centre.", "{Body} sits at the centre."),
        ("{Roof} covers {body} in the middle.", "In the middle lies {body}."),
        ("At the centre lies {body} under {roof}.", "At the centre lies {body}."),
        ("{Body}, covered by {roof}, occupies the middle.", "{Body} occupies the middle."),
        ("In the middle of the scene {roof} covers {body}.", "In the middle of the scene lies {body}."),
    ),
    "drone": (
        ("{Body} beneath {roof} stands at the centre.", "{Body} stands at the centre."),
        ("{Roof} covers {body} in the middle.", "In the middle stands {body}."),
        ("At the centre stands {body} under {roof}.", "At the centre stands {body}."),
        ("{Body}, topped with {roof}, rises in the middle.", "{Body} rises in the middle."),
        ("In the middle of the scene rises {body} under {roof}.", "In the middle of the scene rises {body}."),
    ),
    "ground": (
        ("{Body} beneath {roof} stands at the centre.", "{Body} stands at the centre."),
        ("{Roof} covers {body} in the middle.", "In the middle stands {body}."),
        ("At the centre stands {body} under {roof}.", "At the centre stands {body}."),
        ("{Body}, topped with {roof}, rises in the middle.", "{Body} rises in the middle."),
        ("In the middle of the scene rises {body} under {roof}.", "In the middle of the scene rises {body}."),
    ),
}


def _main(facts: Facts, platform: Platform) -> str:
    body, roof = _body(facts, platform, size=True), _roof(facts)
    template = _MAIN[platform][facts.opening][0 if roof else 1]
    return template.format(body=body, Body=_capital(body), roof=roof, Roof=_capital(roof))


def _details(facts: Facts, platform: Platform) -> list[str]:
    said = {kind: _noun(facts.said[kind]) for kind in _SHOWN[platform] if kind in facts.said}
    sentences = []
    top = [f"is {facts.said['roof is']}"] if "roof is" in facts.said else []
    if "equipment" in said:
        top.append(f"carries {said['equipment']}")
    if top:
        sentences.append(f"The roof of the structure {_join(top)}.")
    front = [said[kind] for kind in ("windows", "awning") if kind in said]
    if front:
        sentences.append(f"Its facade shows {_join(front)}.")
    if "entrance" in said:
        it, leads = said["entrance"], "lead" if _plural(facts.said["entrance"]) else "leads"
        sentences.append(f"{_capital(it)} {leads} into the building.")
    return sentences


_NEAR = (
    "{It} {be} nearby.",
    "Next to the building {be} {it}.",
    "{It} {be} next to the building.",
    "Close to the building {be} {it}.",
    "Nearby {be} {it}.",
)


def _things(facts: Facts) -> list[str]:
    if not facts.things:
        return []
    it = _join([_noun(noun) for noun in facts.things])
    be = "are" if len(facts.things) > 1 or _plural(facts.things[0]) else "is"
    return [_NEAR[facts.opening].format(it=it, It=_capital(it), be=be)]


def _setting(facts: Facts) -> list[str]:
    around = [_noun(facts.said[kind]) for kind in ("surface", "trees") if kind in facts.said]
    verb = "surround" if len(around) > 1 or (around and _plural(around[0])) else "surrounds"
    if "wing" in facts.said:
        wing = f"{_capital(_noun(facts.said['wing']))} adjoins the building"
        return [f"{wing}, and {_join(around)} {verb} it." if around else f"{wing}."]
    return [f"{_capital(_join(around))} {verb} the building."] if around else []


def _queries(facts: Facts, platform: Platform) -> tuple[str, ...]:
    roof = _roof(facts)
    queries = []
    body = _body(facts, platform, size=False)
    if roof or body != "a building":
        queries.append(body + (f" with {roof}" if roof else ""))
    near = [_noun(noun) for noun in facts.things[:2]]
    if near:
        queries.append(f"a building close to {_join(near)}")
    having = [_noun(facts.said[kind]) for kind in (*_SHOWN[platform], "wing") if kind in facts.said]
    if having:
        queries.append(f"a building with {_join(having[:2])}")
    setting = [_noun(facts.said[kind]) for kind in ("surface", "trees") if kind in facts.said]
    if setting and not (near and setting[0].endswith("trees")):
        queries.append(f"a building near {_join(setting)}")
    return tuple(_capital(query) + "." for query in queries)


def rewrite(caption: str, platform: Platform, *, again: bool = False) -> Reply | None:
    """The target for a campus caption; None when the text is of another kind.

    Args:
        again: the answer to a retry: another order of the sentences, and at most two queries.
    """
    facts = read_facts(caption)
    if facts is None:
        return None
    queries = _queries(facts, platform)
    if not queries:
        return None
    parts = [_details(facts, platform), _things(facts), _setting(facts)]
    sentences = [_main(facts, platform), *chain.from_iterable(reversed(parts) if again else parts)]
    return Reply(" ".join(sentences), queries[:2] if again else queries)


def taught(caption: str, platform: Platform, *, again: bool = False) -> Reply | None:
    """`rewrite`, where every gate accepts it; None elsewhere."""
    reply = rewrite(caption, platform, again=again)
    fair = reply and passed(check(platform, caption, {"caption": reply.caption, "queries": list(reply.queries)}))
    return reply if fair else None
