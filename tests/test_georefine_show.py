"""The tables that a person sees fit into a terminal."""

import io

from rich.console import Console

from georefine.show import counts_table, statuses_table
from schemas.records import PLATFORMS, SPLITS, STATUSES


def test_counts_of_full_size_with_every_status_fit_into_80_columns() -> None:
    numbers = {"buildings": 951, "images": 51_355, "augmented": 2_103, "captions": 154_065}
    cell = {**numbers, "statuses": dict.fromkeys(STATUSES, 154_065)}
    counts = {split: dict.fromkeys(PLATFORMS, cell) for split in SPLITS}
    shown = io.StringIO()
    Console(file=shown, width=80).print(counts_table(counts), statuses_table(counts), sep="\n")
    text = shown.getvalue()
    assert "…" not in text
    assert text.count("154065") == len(SPLITS) * len(PLATFORMS) * (1 + len(STATUSES))


def test_statuses_that_no_caption_has_take_no_column() -> None:
    cell = {"buildings": 1, "images": 1, "augmented": 0, "captions": 3, "statuses": {"kept": 3}}
    shown = io.StringIO()
    Console(file=shown, width=80).print(statuses_table({"test": {"drone": cell}}))
    assert "kept" in shown.getvalue()
    assert "fallback" not in shown.getvalue()
