"""Recall by building: against a slow, obvious twin, and the traps named in the design."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_experts_examples import write_tiny

from data.shards import open_version
from experts import evaluate as module
from experts.evaluate import chance, load_split, ranks_in_chunks, recall, report
from schemas.errors import TrainingError

KS = (1, 2, 5)


def slow_recall(
    scores: list[list[float]], queries: list[str], gallery: list[str], ks: tuple[int, ...]
) -> dict[str, float]:
    """Sort every query's row, wrong items before right ones of the same score, and look at the first k."""
    hits = dict.fromkeys(ks, 0)
    for row, building in zip(scores, queries, strict=True):
        order = sorted(range(len(gallery)), key=lambda g: (-row[g], gallery[g] == building))
        for k in ks:
            hits[k] += any(gallery[g] == building for g in order[:k])
    return {f"r{k}": 100.0 * hits[k] / len(queries) for k in ks}


labels = st.sampled_from("abcd")


@settings(deadline=None)
@given(st.data())
def test_recall_agrees_with_sorting(data: st.DataObject) -> None:
    queries = data.draw(st.lists(labels, min_size=1, max_size=6))
    gallery = data.draw(st.lists(labels, min_size=1, max_size=8))
    score = st.sampled_from([-1.0, 0.0, 0.25, 0.5, 1.0, float("-inf")])  # few values: many ties
    row = st.lists(score, min_size=len(gallery), max_size=len(gallery))
    scores = data.draw(st.lists(row, min_size=len(queries), max_size=len(queries)))
    expected = slow_recall(scores, queries, gallery, KS)
    assert recall(np.array(scores), queries, gallery, KS) == expected
    assert recall(torch.tensor(scores), np.array(queries), np.array(gallery), KS) == expected


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40))
def test_chunks_change_nothing(seed: int, at_once: int, counted: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    texts = torch.randint(-2, 3, (9, 3), generator=generator).float()
    images = torch.randint(-2, 3, (7, 3), generator=generator).float()
    queries, gallery = torch.randint(0, 4, (9,), generator=generator), torch.randint(0, 4, (7,), generator=generator)
    whole = module.best_ranks(texts @ images.T, queries, gallery)
    before = module.SCORES_AT_ONCE, module.COUNTED_AT_ONCE
    module.SCORES_AT_ONCE, module.COUNTED_AT_ONCE = at_once, counted
    try:
        assert torch.equal(ranks_in_chunks(texts, images, queries, gallery), whole)
        assert torch.equal(module.best_ranks(texts @ images.T, queries, gallery), whole)
    finally:
        module.SCORES_AT_ONCE, module.COUNTED_AT_ONCE = before


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_recall_is_that_of_the_official_loop_and_never_flatters_a_tie(seed: int, half: bool) -> None:
    """GeoText-1652's itm_eval: sort every row, look for the first right item; -100 beyond the first ten, as there."""
    generator = np.random.default_rng(seed)
    scores = generator.standard_normal((12, 20)).astype(np.float16 if half else np.float32)
    np.put_along_axis(scores, np.argsort(scores)[:, :10], -100, axis=1)
    queries, gallery = generator.integers(0, 4, 12), np.arange(20) % 5
    ranks = np.array(
        [np.where(gallery[np.argsort(row)[::-1]] == q)[0][0] for row, q in zip(scores, queries, strict=True)]
    )
    official = {f"r{k}": 100.0 * int((ranks < k).sum()) / 12 for k in KS}
    found = recall(scores, queries, gallery, KS)
    if len({*scores[scores > -100].tolist()}) == 120:  # no ties among the scores that count
        assert found == official
    assert all(found[k] <= official[k] for k in found)


def test_a_query_without_its_building_in_the_gallery_is_a_counted_miss() -> None:
    assert recall([[1.0, 0.0], [1.0, 0.0]], ["a", "nowhere"], ["a", "b"], ks=(1, 5)) == {"r1": 50.0, "r5": 50.0}
    assert recall(np.zeros((1, 0)), ["a"], []) == {"r1": 0.0, "r5": 0.0, "r10": 0.0}


def test_ties_count_against_the_query() -> None:
    assert recall(np.zeros((1, 3)), ["a"], ["a", "b", "c"], ks=(1, 2, 3)) == {"r1": 0.0, "r2": 0.0, "r3": 100.0}


@pytest.mark.parametrize("at_once", [50, 100, 16_000_000])
@pytest.mark.parametrize("size", [(1, 50), (150, 50), (7, 75), (31, 40)])
def test_equal_vectors_tie_wherever_they_stand(
    size: tuple[int, int], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    queries, gallery = size
    generator = torch.Generator().manual_seed(3)
    texts = torch.randn(queries, 768, generator=generator)
    images = torch.randn(1, 768, generator=generator).expand(gallery, -1).contiguous()
    monkeypatch.setattr(module, "SCORES_AT_ONCE", at_once)
    ranks = ranks_in_chunks(texts, images, torch.arange(queries) % 5, torch.arange(gallery) % 5)
    assert set(ranks.tolist()) == {gallery - gallery // 5}, "every image of another building stands before"


def test_arrays_and_labels_of_every_kind_are_fine() -> None:
    scores = np.array([[0.1, 0.9], [0.2, 0.3]])
    scores.flags.writeable = False
    for kind in ("<f4", ">f4", "<f2", ">f8", np.longdouble):
        assert recall(scores.astype(kind)[:, ::-1], ["b", "a"], ["a", "b"], ks=(1,)) == {"r1": 50.0}
    assert recall(scores, [torch.tensor(8), np.int64(7)], torch.tensor([7, 8]), ks=(1,)) == {"r1": 50.0}


def test_whole_numbers_and_number_labels_are_fine() -> None:
    assert recall(np.array([[2, 1], [1, 2]]), [7, 8], [7, 8], ks=(1,)) == {"r1": 100.0}
    assert recall(np.array([[2, 1]]), torch.tensor([7]), torch.tensor([8, 7]), ks=(1,)) == {"r1": 0.0}


def test_nan_wrong_shapes_and_no_queries_are_errors() -> None:
    with pytest.raises(TrainingError, match="NaN"):
        recall(np.array([[1.0, float("nan")]]), ["a"], ["a", "b"])
    with pytest.raises(TrainingError, match="do not fit"):
        recall(np.zeros((2, 2)), ["a"], ["a", "b"])
    with pytest.raises(TrainingError, match="no queries"):
        recall(np.zeros((0, 2)), [], ["a", "b"])


@pytest.mark.parametrize("k", [1, 2, 3, 10])
def test_chance_is_the_mean_over_all_orders(k: int) -> None:
    gallery, queries = "aabcd", "aabx"
    subsets = list(combinations(range(len(gallery)), min(k, len(gallery))))
    expected = np.mean([[any(gallery[g] == q for g in subset) for subset in subsets] for q in queries]) * 100
    codes = {letter: i for i, letter in enumerate("abcdx")}
    found = chance(torch.tensor([codes[q] for q in queries]), torch.tensor([codes[g] for g in gallery]), k)
    assert found == pytest.approx(expected)


def test_a_perfect_model_scores_all_and_the_form_is_that_of_the_contract(tmp_path: Path) -> None:
    captions, gallery = load_split(open_version(write_tiny(tmp_path)), "test", 16)
    known = sorted(set(gallery.buildings))
    texts = torch.eye(len(known))[[known.index(b) for b in captions.buildings]]
    images = torch.eye(len(known))[[known.index(b) for b in gallery.buildings]]
    found = report(texts, images, captions, gallery)
    all_right = {"r1": 100.0, "r5": 100.0, "r10": 100.0, "score": 100.0}
    assert found["t2i"] == found["i2t"] == all_right
    assert found["per_platform"] == {p: {"t2i": all_right} for p in ("satellite", "drone", "ground")}
    assert found["queries"] == found["gallery"] == 12
    assert found["chance"]["r1"] == pytest.approx(100 * 3 / 12)
    assert list(found) == ["t2i", "i2t", "per_platform", "chance", "queries", "gallery"]


def test_an_empty_split_is_an_error(tmp_path: Path) -> None:
    captions, gallery = load_split(open_version(write_tiny(tmp_path, train=2)), "test", 16)
    with pytest.raises(TrainingError, match="nothing to evaluate"):
        report(torch.zeros(0, 4), torch.zeros(0, 4), captions, gallery)
