"""The review page over HTTP: pages, decisions, undo, bulk, conflicts; and everything that must be refused."""

import gc
import json
import sqlite3
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from review_dataset import HOSTILE, Browser, Served, address, served, write_version

from refine.replies import Answer, ReplyStore
from review.captions import Captions, Filters, Page
from review.decisions import REVIEWS, standing_decisions

FIRST = "train/drone/0001/view 1.jpeg#0"
TILE = "train/satellite/0002/view 2.jpeg#0"
CHANGED = "train/drone/0000/view 0.jpeg#0"
EVIDENCE = "test/drone/0010/view 10.jpeg#0"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    write_version(tmp_path / "ds")
    return tmp_path / "ds"


@pytest.fixture
def page(dataset: Path) -> Iterator[Served]:
    with served(dataset) as running:
        yield running


@pytest.fixture
def ann(page: Served) -> Browser:
    return page.sign_in()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A page for tests that decide nothing."""
    dataset = tmp_path_factory.mktemp("shared") / "ds"
    write_version(dataset)
    with served(dataset) as running:
        yield running
    assert standing_decisions(dataset / REVIEWS) == {}


@pytest.fixture
def reader(shared: Served) -> Browser:
    return shared.sign_in()


def test_every_page_answers_and_escapes(reader: Browser) -> None:
    hostile = "train/satellite/0000/view 0.jpeg#2"
    for path in ("/", "/queue", "/queue?q=window.pwned", address(hostile), "/history", "/bulk", "/queue?gate=object"):
        answer = reader.get(path)
        assert answer.status == 200, path
        assert "<script>window" not in answer.text
        assert "<img src=x" not in answer.text
    assert "&lt;script&gt;window.pwned" in reader.get(address(hostile)).text
    assert "⟨U+202E⟩" in reader.get(address(hostile)).text


def test_nothing_is_shown_without_the_token(shared: Served) -> None:
    stranger = Browser(shared.port)
    for path in ("/", "/queue", address(FIRST), "/image?id=x", "/export.jsonl", "/?token=wrong", "/queue?token="):
        assert stranger.get(path).status == 403, path
    stranger.cookie = f"georefine_review_{shared.port}=guess"
    assert stranger.get("/").status == 403
    assert stranger.post("/decide", {"caption": FIRST, "decision": "accept", "revision": "0"}).status == 403


def test_a_token_works_once_and_the_next_browser_gets_the_next(shared: Served) -> None:
    token = shared.token
    first = Browser(shared.port, token)
    assert Browser(shared.port).get(f"/?token={token}").status == 403
    assert first.get(f"/?token={token}").status == 303  # who is in, stays in
    assert shared.token != token
    assert Browser(shared.port, shared.token).get("/").status == 200


def test_the_cookie_is_out_of_reach_and_the_token_leaves_the_address(shared: Served) -> None:
    answer = Browser(shared.port).get(f"//evil.example/?token={shared.token}&q=a")
    assert answer.status == 303
    assert answer.headers["location"] == "/evil.example/?q=a"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "", "127.0.0.1.nip.io:{port}"]
)
def test_a_wrong_host_is_refused(reader: Browser, host: str) -> None:
    assert reader.get("/", Host=host.format(port=reader.port)).status in (400, 421)


def test_localhost_is_a_name_of_ours(reader: Browser) -> None:
    assert reader.get("/", Host=f"localhost:{reader.port}").status == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1:{port}", "http://127.0.0.1:1"])
def test_a_foreign_origin_is_refused(reader: Browser, origin: str) -> None:
    assert reader.post("/reviewer", {"name": "eve"}, Origin=origin.format(port=reader.port)).status == 403
    assert reader.get("/", Origin=origin.format(port=reader.port)).status == 403
    assert reader.post("/reviewer", {"name": "ann"}, Origin=f"http://127.0.0.1:{reader.port}").status == 303
    assert reader.post("/reviewer", {"name": "eve"}, Sec_Fetch_Site="cross-site").status == 403


def test_a_write_needs_the_token_of_its_session(shared: Served, reader: Browser) -> None:
    ann, bob = reader, shared.sign_in()
    for token in ("", "guess", bob.csrf):
        fields = {"caption": FIRST, "decision": "accept", "revision": "0", "csrf": token}
        assert ann.post("/decide", fields).status == 403
    for path in ("/undo", "/bulk", "/reviewer", "/reload"):
        assert ann.post(path, {"csrf": ""}).status == 403


def test_get_never_writes(reader: Browser) -> None:
    for path in ("/decide", "/undo", "/reviewer", "/reload"):
        assert reader.get(f"{path}?caption={quote(FIRST)}&decision=accept&revision=0&csrf={reader.csrf}").status in (
            404,
            405,
        )
    reader.get(f"/bulk?decision=accept&count=1&csrf={reader.csrf}")
    assert reader.request("DELETE", "/history").status == 405


def test_what_confines_the_page_is_sent_with_everything(reader: Browser) -> None:
    for path in ("/", "/nope", "/static/review.js", "/thumb?id=none"):
        headers = reader.get(path).headers
        policy = headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'")
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
    page = reader.get("/queue").text
    assert "style=" not in page.replace("color-scheme", "")
    assert " on" + "click" not in page
    assert '"allowEval":false' in page


@pytest.mark.parametrize(
    "path", ["../../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "/etc/passwd", "..%2freviews.sqlite", "%00"]
)
def test_path_tricks_find_nothing(reader: Browser, path: str) -> None:
    for before in ("/image?id=", "/thumb?id=", "/caption/", "/static/"):
        answer = reader.get(before + path)
        assert answer.status == 404
        assert b"root:" not in answer.body


def test_images_are_raster_images_and_nothing_else(reader: Browser) -> None:
    for path in ("/image", "/thumb"):
        answer = reader.get(f"{path}?id=train/drone/0001/view%201.jpeg")
        assert (answer.status, answer.headers["content-type"]) == (200, "image/jpeg")
        assert answer.body[:2] == b"\xff\xd8"


@pytest.mark.parametrize(
    "text", ["' OR 1=1 --", '"; DROP TABLE captions; --', "%", "_", "100%", "a\x00b", "\\", "{}", "?"]
)
def test_a_search_is_only_text(reader: Browser, shared: Served, text: str) -> None:
    assert (
        reader.get(f"/queue?q={quote(text)}&building={quote(text)}&gate={quote(text)}&sort={quote(text)}").status == 200
    )
    found = shared.app.state.desk.captions.page(Filters(q=text))
    words = text.lower().replace('"', " ").split() if '"' not in text else []
    if words:
        assert {row.caption_id for row in found.rows} == {
            row.caption_id for row in shared.app.state.desk.captions.page(Filters(), size=500).rows
            if all(word in row.final.lower() for word in words)
        }  # fmt: skip
    assert shared.app.state.desk.captions.page(Filters()).total > 50


def test_a_place_in_the_queue_that_is_none_is_said(reader: Browser) -> None:
    for place in ("x", "1.1;DROP", "9" * 40 + ".1", "-1.-1"):
        assert reader.get(f"/queue?after={place}").status == 422


def test_a_decision_is_saved_shown_and_undone(ann: Browser, dataset: Path) -> None:
    answer = ann.decide(FIRST, "edit", 0, "A blue\r\n building.\u202e", view="queue", filters="platform=drone")
    assert answer.status == 200
    assert 'data-state="edit"' in answer.text
    assert 'id="progress"' in answer.text
    decision = standing_decisions(dataset / REVIEWS)[FIRST]
    assert (decision.text, decision.version) == ("A blue building.", "v0001")
    assert ann.post("/undo", {}).status == 303
    assert standing_decisions(dataset / REVIEWS) == {}
    assert ann.post("/undo", {}).status == 409


@pytest.mark.parametrize(
    ("typed", "kept"),
    [
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("A \U0001f468\u200d\U0001f469 at a co\u00adop.\u200b", "A \U0001f468\u200d\U0001f469 at a coop."),
        ("A \u200d roof.", "A roof."),
    ],
)
def test_an_edit_keeps_the_characters_that_are_text(ann: Browser, dataset: Path, typed: str, kept: str) -> None:
    assert ann.decide(FIRST, "edit", 0, "\u200c\u200d").status == 422
    assert ann.decide(FIRST, "edit", 0, typed).status == 200
    assert standing_decisions(dataset / REVIEWS)[FIRST].text == kept


def test_a_form_that_names_no_page_to_go_back_to_is_saved_all_the_same(ann: Browser, dataset: Path) -> None:
    fields = {"caption": FIRST, "seen": ann.seen(FIRST), "decision": "accept", "revision": "0", "back": "//["}
    answer = ann.post("/decide", fields)
    assert (answer.status, answer.headers["location"]) == (303, "/")
    assert list(standing_decisions(dataset / REVIEWS)) == [FIRST]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"decision": "approve"}, 422),
        ({"decision": "edit", "text": " \n "}, 422),
        ({"decision": "edit", "text": "x" * 10_001}, 422),
        ({"decision": "accept", "revision": "-1"}, 422),
        ({"decision": "accept", "revision": "²"}, 422),
        ({"decision": "accept", "caption": EVIDENCE}, 403),
        ({"decision": "accept", "caption": "../nothing"}, 404),
    ],
)
def test_a_decision_that_makes_no_sense_is_refused(reader: Browser, fields: dict[str, str], status: int) -> None:
    assert reader.post("/decide", {"caption": FIRST, "revision": "0", **fields}).status == status
    assert reader.post("/decide", {"decision": "accept"}).status == 422
    assert reader.request("POST", "/decide", b"x" * 1_100_000).status == 413


def test_two_reviewers_meet_as_a_conflict_that_shows_both_texts(page: Served, ann: Browser, dataset: Path) -> None:
    bob = page.sign_in()
    assert bob.post("/reviewer", {"name": "bob <b>"}).status == 303
    assert bob.decide(FIRST, "edit", 0, "Text of bob.").status == 200
    answer = ann.decide(FIRST, "edit", 0, "Words by ann.")
    assert answer.status == 409
    for part in ("bob &lt;b&gt;", "of bob", "by ann"):
        assert part in answer.text
    assert standing_decisions(dataset / REVIEWS)[FIRST].text == "Text of bob."
    assert ann.decide(FIRST, "edit", 1, "Words by ann.").status == 200
    assert standing_decisions(dataset / REVIEWS)[FIRST].text == "Words by ann."
    assert page.app.state.desk.captions.page(Filters(sort="disagreement")).rows[0].caption_id == FIRST


@pytest.mark.parametrize(("kind", "text"), [("accept", ""), ("reject", ""), ("edit", "My own words.")])
def test_a_decision_on_words_that_were_not_shown_is_a_conflict(
    page: Served, ann: Browser, dataset: Path, kind: str, text: str
) -> None:
    shown = ann.seen(CHANGED)
    write_version(dataset, changed=" and a canal")
    assert page.sign_in().post("/reload", {}).status == 303
    answer = ann.decide(CHANGED, kind, 0, text, seen=shown, copies="yes")
    assert answer.status == 409
    assert "v0002 has other words" in answer.text
    assert "and a canal" in answer.text
    assert (text or f"{kind.capitalize()} what stands now") in answer.text
    assert standing_decisions(dataset / REVIEWS) == {}
    assert f'name="seen" value="{ann.seen(CHANGED)}"' in answer.text
    assert 'name="copies" value="yes"' in answer.text
    assert ann.decide(CHANGED, kind, 0, text).status == 200
    assert standing_decisions(dataset / REVIEWS)[CHANGED].version == "v0002"


def test_a_bulk_on_a_version_that_was_not_shown_is_asked_again(ann: Browser, dataset: Path) -> None:
    write_version(dataset, changed=" and a canal")
    ann.post("/reload", {})
    fields = {"filters": "platform=drone", "version": "v0001", "count": "20", "decision": "accept"}
    answer = ann.post("/bulk", fields)
    assert answer.status == 409
    assert 'name="version" value="v0002"' in answer.text
    assert standing_decisions(dataset / REVIEWS) == {}


def test_what_was_not_saved_saves_no_copies_either(page: Served, ann: Browser, dataset: Path) -> None:
    bob = page.sign_in()
    shown = bob.seen(TILE)
    ann.decide(TILE, "edit", 0, "Words by ann.", copies="yes")
    answer = bob.decide(TILE, "edit", 0, "Text of bob.", copies="yes", seen=ann.seen(TILE))
    assert answer.status == bob.decide(TILE, "reject", 0, copies="yes", seen=shown).status == 409
    assert 'name="copies" value="yes"' in answer.text
    assert {d.text for d in standing_decisions(dataset / REVIEWS).values()} == {"Words by ann."}
    assert bob.post("/undo", {}).status == 409  # nothing of this browser was saved


def test_undo_takes_back_the_own_decision_even_under_a_shared_name(page: Served, ann: Browser, dataset: Path) -> None:
    other = page.sign_in()  # signs with the same name: nobody set one
    assert ann.decide(FIRST, "accept", 0).status == 200
    assert other.decide(TILE, "reject", 0).status == 200
    assert ann.post("/undo", {}).status == 303
    assert list(standing_decisions(dataset / REVIEWS)) == [TILE]
    assert ann.post("/undo", {}).status == 409
    assert list(standing_decisions(dataset / REVIEWS)) == [TILE]
    assert other.post("/undo", {}).status == 303
    assert standing_decisions(dataset / REVIEWS) == {}


def test_copies_on_augmented_tiles_follow_and_are_undone_together(ann: Browser, dataset: Path) -> None:
    assert ann.decide(TILE, "edit", 0, "A roof.", copies="yes").status == 200
    copy = TILE.replace("#", "~aug0#")
    assert {c: d.text for c, d in standing_decisions(dataset / REVIEWS).items()} == {TILE: "A roof.", copy: "A roof."}
    ann.post("/undo", {})
    assert standing_decisions(dataset / REVIEWS) == {}


def test_a_copy_that_was_decided_by_itself_is_left_alone(page: Served, ann: Browser, dataset: Path) -> None:
    copy = TILE.replace("#", "~aug0#")
    bob = page.sign_in()
    assert ann.decide(copy, "accept", 0).status == 200
    assert "also on" not in bob.get(address(TILE)).text
    assert bob.decide(TILE, "accept", 0, copies="yes").status == 200
    assert bob.decide(TILE, "edit", 1, "Text of bob.", copies="yes").status == 200
    assert ann.post("/undo", {}).status == 303  # what stands on the copy is still what ann decided
    assert list(standing_decisions(dataset / REVIEWS)) == [TILE]


def test_an_undo_that_failed_is_still_the_next(page: Served, ann: Browser, dataset: Path) -> None:
    page.app.state.desk.log._db.execute("PRAGMA busy_timeout = 50")
    for text in ("First.", "Second."):
        ann.decide(FIRST, "edit", 0 if text == "First." else 1, text)
    other = sqlite3.connect(dataset / REVIEWS, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")  # for longer than the log waits
    assert ann.post("/undo", {}).status == 500
    other.execute("ROLLBACK")
    other.close()
    assert ann.post("/undo", {}).status == 303
    assert standing_decisions(dataset / REVIEWS)[FIRST].text == "First."


def test_undo_on_a_card_leaves_the_rest_of_a_bulk(page: Served, ann: Browser, dataset: Path) -> None:
    fields = {"filters": "platform=satellite&split=train", "version": "v0001", "count": "31", "decision": "accept"}
    assert ann.post("/bulk", fields).status == 200
    batch = next(iter(standing_decisions(dataset / REVIEWS).values())).batch
    copy = TILE.replace("#", "~aug0#")
    bob = page.sign_in()
    assert bob.post("/undo", {"caption": TILE, "batch": batch}).status == 303
    stands = standing_decisions(dataset / REVIEWS)
    assert len(stands) == 29
    assert not {TILE, copy} & set(stands)
    assert bob.post("/undo", {"caption": TILE, "batch": batch}).status == 409
    other = "train/satellite/0004/view 4.jpeg~aug0#0"
    assert bob.post("/undo", {"caption": other, "batch": batch}).status == 303
    assert len(standing_decisions(dataset / REVIEWS)) == 28
    assert ann.post("/undo", {}).status == 303  # the rest
    assert standing_decisions(dataset / REVIEWS) == {}


def test_a_fresh_browser_has_nothing_to_undo(ann: Browser, dataset: Path) -> None:
    ann.decide(FIRST, "accept", 0)
    with served(dataset) as again:
        answer = again.sign_in().post("/undo", {})
    assert answer.status == 409
    assert 'href="/history"' in answer.text.partition("<main")[2]
    assert list(standing_decisions(dataset / REVIEWS)) == [FIRST]


def test_bulk_asks_acts_on_the_filter_and_is_reverted_whole(page: Served, ann: Browser, dataset: Path) -> None:
    ann.decide(FIRST, "reject", 0)
    filters = "platform=drone&asof=0"
    asked = ann.get(f"/bulk?{filters}")
    assert "Accept 19" in asked.text  # ten train buildings with two captions, one of them decided since
    fields = {"filters": filters, "version": "v0001", "count": "19", "decision": "accept"}
    assert ann.post("/bulk", {**fields, "count": "18"}).status == 409
    assert ann.post("/bulk", {**fields, "decision": "edit"}).status == 422
    assert ann.post("/bulk", fields).status == 200
    stands = standing_decisions(dataset / REVIEWS)
    assert (len(stands), stands[FIRST].kind) == (20, "reject")
    assert len({d.batch for d in stands.values() if d.kind == "accept"}) == 1
    assert ann.post("/undo", {}).status == 303
    assert list(standing_decisions(dataset / REVIEWS)) == [FIRST]
    assert "Revert" in ann.get("/history").text


def test_the_queue_keeps_its_order_while_one_works_on_it(page: Served, ann: Browser) -> None:
    captions = page.app.state.desk.captions
    before = captions.page(Filters(decision="open", asof=0), size=500)
    ann.decide(before.rows[0].caption_id, "accept", 0)
    assert [r.caption_id for r in captions.page(Filters(decision="open", asof=0), size=500).rows] == [
        r.caption_id for r in before.rows
    ]
    assert captions.page(Filters(decision="open")).total == before.total - 1
    facet = next(f for f in captions.facets(Filters(asof=0)) if f.name == "decision")
    assert dict(facet.values)["accept"] == 1


@pytest.mark.parametrize("sort", ["id", "gates", "edit", "disagreement"])
def test_pages_hold_every_caption_once_forwards_and_backwards(shared: Served, sort: str) -> None:
    captions = shared.app.state.desk.captions
    filters = Filters.read({"sort": sort})
    whole = [row.caption_id for row in captions.page(filters, size=1000).rows]
    assert len(set(whole)) == len(whole) == captions.count(filters)
    forwards, at, backs = [], captions.page(filters, size=7), []
    while True:
        forwards += [row.caption_id for row in at.rows]
        backs.append(at)
        if at.after is None:
            break
        at = captions.page(filters, after=at.after, size=7)
    assert forwards == whole
    for earlier in reversed(backs[:-1]):
        assert at.before is not None
        at = captions.page(filters, before=at.before, size=7)
        assert at.rows == earlier.rows
    assert at.before is None


def test_a_kept_address_shows_the_same_after_a_restart(ann: Browser, page: Served, dataset: Path) -> None:
    ann.decide(FIRST, "accept", 0)
    ann.decide(TILE, "reject", 0)
    ann.decide(FIRST, "edit", 1, "A roof.")
    ann.post("/undo", {})
    kept = [Filters(decision=state, asof=asof) for state in ("open", "accept", "reject", "edit") for asof in range(5)]

    def counts(captions: Captions) -> list[tuple[int, int]]:
        return [(captions.count(filters), captions.count_decidable(filters)) for filters in kept]

    before = counts(page.app.state.desk.captions)
    with served(dataset) as again:
        assert counts(again.app.state.desk.captions) == before


def test_a_newer_version_is_offered_and_marks_what_became_stale(ann: Browser, page: Served, dataset: Path) -> None:
    ann.decide(CHANGED, "accept", 0)
    ann.decide(FIRST, "accept", 0)
    assert write_version(dataset, changed=" and a canal") == "v0002"
    assert "Load v0002" in ann.get("/").text
    assert ann.post("/reload", {"back": "https://evil.example//x"}).headers["location"] == "/x"
    overview = ann.get("/").text
    assert "4 captions changed" in overview
    states = {c: page.app.state.desk.captions.row(c).state for c in (CHANGED, FIRST)}
    assert states == {CHANGED: "stale", FIRST: "accept"}
    assert "kept, and not applied" in ann.get(address(CHANGED)).text


def test_what_is_read_while_a_version_is_loaded_is_read_to_the_end(
    ann: Browser, page: Served, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk = page.app.state.desk
    write_version(dataset, changed=" and a canal")
    old, asked = weakref.ref(desk.captions), Captions.page

    def slow(*args: Any, **more: Any) -> Page:
        if desk.newer():
            assert ann.post("/reload", {}).status == 303
        return asked(*args, **more)

    monkeypatch.setattr(Captions, "page", slow)
    answer = ann.get("/queue?q=pond&sort=edit")
    assert (answer.status, "canal" in answer.text) == (200, False)
    assert desk.captions.version.name == "v0002"
    assert ann.get("/queue?q=canal").status == 200
    gc.collect()
    assert old() is None, "the version before is still in memory"


def test_decisions_survive_a_restart_and_are_exported(ann: Browser, page: Served, dataset: Path) -> None:
    ann.decide(FIRST, "edit", 0, "A building — ünï.")
    lines = [json.loads(line) for line in ann.get("/export.jsonl").text.splitlines()]
    assert [(e["caption_id"], e["kind"], e["new_text"]) for e in lines] == [(FIRST, "edit", "A building — ünï.")]
    with served(dataset) as again:
        bob = again.sign_in()
        assert "A building — ünï." in bob.get(address(FIRST)).text
        assert bob.decide(FIRST, "accept", 1).status == 200
    assert "bob" not in ann.get(address(FIRST)).text  # the other server takes in what was decided elsewhere
    assert "2 events" in ann.get(address(FIRST)).text


def test_the_request_behind_a_reply_is_shown_while_the_store_has_it(ann: Browser, page: Served, dataset: Path) -> None:
    assert "The request" not in ann.get(address(FIRST)).text
    key = page.app.state.desk.captions.details(FIRST)["reply_key"]
    with ReplyStore(dataset / ".work" / "replies.sqlite") as store:
        store.put(key, b'{"messages": "<script>hostile"}', Answer("{}", "stop"))
    text = ann.get(address(FIRST)).text
    assert "The request, as it was sent" in text
    assert "&lt;script&gt;hostile" in text


def test_distinct_states_say_what_is_the_matter(ann: Browser) -> None:
    assert "No caption matches" in ann.get("/queue?q=zzzz").text
    assert ann.get(address("train/none#0")).status == 404
    filters = "platform=drone&split=train"
    ann.post("/bulk", {"filters": filters, "version": "v0001", "count": "20", "decision": "accept"})
    assert "Queue finished" in ann.get(f"/queue?{filters}&decision=open").text


def test_a_line_break_in_an_id_is_part_of_it(ann: Browser, page: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(Captions, "row", lambda _, caption_id: asked.append(caption_id))
    assert ann.get(address("train/a\nb/c\n.jpeg#0\n")).status == 404
    assert asked == ["train/a\nb/c\n.jpeg#0\n"]


def test_hostile_names_stay_text(reader: Browser) -> None:
    assert "onerror='window" not in reader.get("/queue").text
    assert (
        reader.get("/queue?building=%22%3E%3Cimg%20src%3Dx%20onerror%3D%27window.pwned%3D1%27%3E").text.count(
            "<article"
        )
        == 7
    )
    assert HOSTILE[:30] not in reader.get("/").text
