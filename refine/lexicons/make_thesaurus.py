"""Makes the trimmed WordNet table beside this file: words, their senses, and how the senses are related.

    apt-get download wordnet-base && dpkg -x wordnet-base_*.deb wordnet
    python refine/lexicons/make_thesaurus.py wordnet/usr/share/wordnet

`thesaurus.tsv.gz` holds, one record per line and fields parted by tabs:

    synset  = number  lexicographer file  hypernyms  antonyms  similar  derived  wholes and parts  words of the gloss
    word    + lemma  then one field per part of speech: letter, uses counted in WordNet's tagged texts, ':', senses
    form    ! inflected form  lemma  part of speech

Kept are lower-case words (two-word phrases where a thing is named), their most used senses, and the hypernyms above
those; of the glosses the nouns that tell what a thing is. Examples, verb frames and all other pointers go.
Relations are numbers of synsets parted by blanks. The licence of WordNet 3.0 lies beside the table.
"""

import gzip
import re
import sys
from collections import Counter
from collections.abc import Collection
from pathlib import Path

OUT = Path(__file__).parent / "thesaurus.tsv.gz"
POS = {"noun": "n", "verb": "v", "adj": "a", "adv": "r"}
MOST_SENSES = {"n": 3, "v": 3, "a": 4, "r": 1}
HYPERNYM, ANTONYM, SIMILAR, DERIVED = ("@", "@i"), ("!",), ("&", "\\"), ("+",)
PART = ("#m", "#s", "#p", "%m", "%s", "%p")
# Files of things that an image shows: only their glosses are kept.
GLOSSED = {"05", "06", "13", "15", "17", "18", "20"}
MOST_GLOSS = 14
# Lexicographer files whose two-word phrases name things that stand in a scene.
THINGS = {"06", "17"}
# Files whose words are left out unless somebody used them: species, organs, groups, illnesses.
RARE = {"05", "08", "14", "20", "26"}
WORD, PHRASE = re.compile(r"[a-z][a-z'-]+"), re.compile(r"[a-z]+_[a-z]+")
Synset = tuple[str, str]  # part of speech, offset
GLOSS_WORD = re.compile(r"[a-z]{3,}")


def _synsets(folder: Path) -> dict[Synset, tuple[str, list[tuple[str, Synset]], str]]:
    """Every synset: its lexicographer file, its pointers as (symbol, synset), and its gloss without examples."""
    found: dict[Synset, tuple[str, list[tuple[str, Synset]], str]] = {}
    for name, pos in POS.items():
        for line in (folder / f"data.{name}").read_text(encoding="utf-8").splitlines():
            if line.startswith(" "):
                continue
            record, _, gloss = line.partition("|")
            fields = record.split()
            at = 4 + 2 * int(fields[3], 16)
            pointers = []
            for n in range(int(fields[at])):
                symbol, offset, target = fields[at + 1 + 4 * n : at + 4 + 4 * n]
                pointers.append((symbol, ("a" if target == "s" else target, offset)))
            found[pos, fields[0]] = (fields[1], pointers, gloss.partition('"')[0])
    return found


def _nouns_of(gloss: str, nouns: Collection[str]) -> str:
    """The nouns of a gloss in the singular, once each; words that are verbs or adjectives too are among them."""
    found = []
    for word in GLOSS_WORD.findall(gloss):
        base = next((w for w in (word, word[:-1], word[:-2]) if w in nouns and (w == word or word[-1] == "s")), "")
        if len(base) > 2 and base not in found:
            found.append(base)
    return " ".join(found[:MOST_GLOSS])


def _uses(folder: Path) -> Counter[tuple[str, str]]:
    """How often a lemma was tagged with a part of speech."""
    uses: Counter[tuple[str, str]] = Counter()
    for line in (folder / "cntlist.rev").read_text(encoding="utf-8").splitlines():
        key, _, count = line.split()
        lemma, _, rest = key.partition("%")
        uses[lemma, "nvara"[int(rest[0]) - 1]] += int(count)
    return uses


def make(folder: Path) -> list[str]:
    """The lines of the table, in a fixed order."""
    synsets, uses = _synsets(folder), _uses(folder)
    words: dict[str, dict[str, list[Synset]]] = {}
    common = {lemma for (lemma, pos), count in uses.items() if pos == "n" and count}
    for name, pos in POS.items():
        for line in (folder / f"index.{name}").read_text(encoding="utf-8").splitlines():
            if line.startswith(" "):
                continue
            fields = line.split()
            lemma, offsets = fields[0], fields[-int(fields[2]) :]
            senses = [(pos, offset) for offset in offsets[: MOST_SENSES[pos]]]
            thing = synsets[senses[0]][0] in THINGS and (uses[lemma, pos] or lemma.split("_")[-1] in common)
            rare = pos == "n" and not uses[lemma, pos] and all(synsets[sense][0] in RARE for sense in senses)
            if rare:
                continue
            if WORD.fullmatch(lemma) or (thing and PHRASE.fullmatch(lemma)):
                words.setdefault(lemma.replace("_", " "), {})[pos] = senses
    kept: dict[Synset, int] = {}
    todo = sorted({sense for by_pos in words.values() for senses in by_pos.values() for sense in senses})
    while todo:
        sense = todo.pop()
        if sense not in kept:
            kept[sense] = 0
            todo += [target for symbol, target in synsets[sense][1] if symbol in HYPERNYM]
    kept = {sense: number for number, sense in enumerate(sorted(kept))}
    lines = []
    nouns = {lemma for lemma, by_pos in words.items() if "n" in by_pos and uses[lemma, "n"]}
    for sense, number in kept.items():
        file, pointers, gloss = synsets[sense]
        columns = [
            " ".join(
                str(kept[target]) for symbol, target in dict.fromkeys(pointers) if symbol in kind and target in kept
            )
            for kind in (HYPERNYM, ANTONYM, SIMILAR, DERIVED, PART)
        ]
        columns.append(_nouns_of(gloss, nouns) if sense[0] == "n" and file in GLOSSED else "")
        lines.append("\t".join([f"={number}", str(int(file)), *columns]).rstrip("\t"))
    for lemma, by_pos in sorted(words.items()):
        fields = [
            f"{pos}{uses[lemma.replace(' ', '_'), pos]}:{' '.join(str(kept[s]) for s in senses)}"
            for pos, senses in by_pos.items()
        ]
        lines.append("\t".join([f"+{lemma}", *fields]))
    for name, pos in POS.items():
        for line in (folder / f"{name}.exc").read_text(encoding="utf-8").splitlines():
            form, lemma = line.split()[:2]
            if WORD.fullmatch(form) and lemma in words:
                lines.append(f"!{form}\t{lemma}\t{pos}")
    return lines


def main() -> None:
    """Write the table; the same input gives the same bytes."""
    text = "\n".join(make(Path(sys.argv[1]))) + "\n"
    OUT.write_bytes(gzip.compress(text.encode(), 9, mtime=0))


if __name__ == "__main__":
    main()
