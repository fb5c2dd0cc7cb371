"""The name gate: a proper name is one of the source's."""

import re

from refine.gates.case import Case, comma_list
from refine.gates.form import shouts
from refine.registers.reading import known, stems


def names(case: Case) -> str:
    new: list[str] = []
    for reading in case.texts:
        if shouts(reading.text):
            continue
        for at, word in enumerate(reading.originals):
            letter = len(re.sub(r"['’]s$", "", word)) == 1  # the V's open side
            if not word[0].isupper() or letter or word in case.source.originals:
                continue
            token = reading.tokens[at]
            starts = at == 0 or reading.tokens[at - 1] in {".", "!", "?", ":", '"', "'", "“", "‘"}
            if token in case.source.tokens or (
                starts and (known(token) or case.source.stems.intersection(stems(token)))
            ):
                continue
            if starts and not (at + 1 < len(reading.originals) and reading.originals[at + 1][0].isupper()):
                continue
            new.append(word)
    return f"name not in the source: {comma_list(new)}" if new else ""
