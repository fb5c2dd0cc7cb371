"""The review page in a real Chromium: what a reviewer does, by mouse and by keys; widths, schemes, accessibility."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from review_dataset import Served, address, served, write_version

from review.decisions import REVIEWS, standing_decisions

playwright_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (make install)")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH (apt-get install chromium)"),
]
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
# axe measures while it runs: what was unfolded after the page had loaded has to be in its place, lazy images too.
SETTLED = """async () => {
  for (const image of document.images) image.loading = 'eager';
  await Promise.all([...document.images].map(image => image.decode().catch(() => null)));
  await document.fonts.ready;
  await Promise.all(document.getAnimations().map(animation => animation.finished.catch(() => null)));
  await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
}"""
HOSTILE = "train/satellite/0000/view 0.jpeg#2"
PAGES = (
    "/",
    "/queue",
    "/queue?gate=object",
    "/queue?q=zzzz",
    address(HOSTILE),
    "/history",
    "/bulk?platform=drone",
    "/no",
)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with playwright_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    write_version(tmp_path / "ds")
    return tmp_path / "ds"


@pytest.fixture
def page(dataset: Path) -> Iterator[Served]:
    with served(dataset) as running:
        yield running


@pytest.fixture
def errors() -> list[str]:
    """What the browser complained about; a test that expects nothing of the kind looks here at its end."""
    return []


@pytest.fixture
def tab(chromium: Any, page: Served, errors: list[str]) -> Iterator[Any]:
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    yield sign_in(context, page, errors)
    context.close()


def sign_in(context: Any, page: Served, errors: list[str]) -> Any:
    tab = context.new_page()
    tab.set_default_timeout(15_000)
    tab.on("console", lambda message: errors.append(message.text) if message.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto(f"{page.url}/?token={page.token}")
    assert tab.url == f"{page.url}/"
    return tab


def cards(tab: Any) -> Any:
    return tab.locator("article.card")


def stands(dataset: Path) -> dict[str, tuple[str, str]]:
    return {c: (d.kind, d.text) for c, d in standing_decisions(dataset / REVIEWS).items()}


def test_filter_search_and_page_through(tab: Any, errors: list[str]) -> None:
    tab.get_by_role("link", name="Queue", exact=True).click()
    assert cards(tab).count() == 25
    total = int(tab.locator(".summary b").inner_text())
    tab.locator("#facets").get_by_role("link", name=re.compile("^drone")).click()
    tab.wait_for_url("**/queue?platform=drone")
    playwright_api.expect(tab.locator(".summary b")).to_have_text("24")
    tab.locator("#search").fill("number 4")
    tab.locator("#search").press("Enter")
    playwright_api.expect(cards(tab)).to_have_count(1)
    assert "platform=drone" in tab.url
    assert "q=number" in tab.url
    tab.reload()
    playwright_api.expect(cards(tab)).to_have_count(1)
    tab.go_back()
    playwright_api.expect(tab.locator(".summary b")).to_have_text("24")
    tab.goto(tab.url.partition("/queue")[0] + "/queue?sort=edit")
    seen = []
    while True:
        seen += [card.get_attribute("id") for card in cards(tab).all()]
        further = tab.locator("#after")
        if not further.count():
            break
        first = cards(tab).first.get_attribute("id")
        further.click()
        playwright_api.expect(tab.locator(f"#{first}")).to_have_count(0)
    assert len(seen) == len(set(seen)) == total
    assert errors == []


def test_accept_reject_edit_and_undo_by_mouse(tab: Any, page: Served, dataset: Path, errors: list[str]) -> None:
    tab.goto(f"{page.url}/queue?platform=drone&split=train")
    first, second, third = (cards(tab).nth(i) for i in range(3))
    first.get_by_role("button", name="Accept").click()
    playwright_api.expect(first).to_have_attribute("data-state", "accept")
    second.get_by_role("button", name="Reject").click()
    playwright_api.expect(second).to_have_attribute("data-state", "reject")
    third.locator("summary", has_text="Edit").click()
    third.locator("textarea").fill("A blue\nroof.")
    third.get_by_role("button", name="Save").click()
    playwright_api.expect(third).to_have_attribute("data-state", "edit")
    assert third.locator("ins").count() >= 1
    playwright_api.expect(tab.locator("#progress")).to_contain_text("3 of 20 decided")
    playwright_api.expect(tab.locator("#facets")).to_contain_text("rejected 1")
    kinds = sorted(stands(dataset).values())
    assert [kind for kind, _ in kinds] == ["accept", "edit", "reject"]
    assert ("edit", "A blue roof.") in kinds
    second.get_by_role("button", name="Undo").click()
    playwright_api.expect(second).to_have_attribute("data-state", "open")
    tab.locator("#undo-last").click()
    playwright_api.expect(cards(tab).nth(2)).to_have_attribute("data-state", "open")
    assert [kind for kind, _ in stands(dataset).values()] == ["accept"]
    assert errors == []


def test_everything_by_keyboard_only(tab: Any, page: Served, dataset: Path) -> None:
    tab.goto(f"{page.url}/queue?platform=ground&split=train")
    press = tab.keyboard.press
    press("j")
    playwright_api.expect(cards(tab).nth(0)).to_be_focused()
    press("a")  # moves on by itself
    playwright_api.expect(cards(tab).nth(0)).to_have_attribute("data-state", "accept")
    playwright_api.expect(cards(tab).nth(1)).to_be_focused()
    press("x")
    playwright_api.expect(cards(tab).nth(1)).to_have_attribute("data-state", "reject")
    playwright_api.expect(cards(tab).nth(2)).to_be_focused()
    press("e")
    area = cards(tab).nth(2).locator("textarea")
    playwright_api.expect(area).to_be_focused()
    press("Control+a")
    tab.keyboard.type("Axe jaz? /xz")  # keys are letters in here
    press("Control+Enter")
    playwright_api.expect(cards(tab).nth(2)).to_have_attribute("data-state", "edit")
    assert ("edit", "Axe jaz? /xz") in stands(dataset).values()
    press("k")
    playwright_api.expect(cards(tab).nth(1)).to_be_focused()
    press("z")
    playwright_api.expect(cards(tab).nth(2)).to_have_attribute("data-state", "open")
    press("z")
    playwright_api.expect(cards(tab).nth(1)).to_have_attribute("data-state", "open")
    press("Control+x")
    press("Backspace")
    assert [kind for kind, _ in stands(dataset).values()] == ["accept"]
    press("/")
    playwright_api.expect(tab.locator("#search")).to_be_focused()
    tab.keyboard.type("axe")
    assert [kind for kind, _ in stands(dataset).values()] == ["accept"]
    tab.locator("#search").blur()
    press("?")
    playwright_api.expect(tab.locator("#help")).to_be_visible()
    press("Escape")
    playwright_api.expect(tab.locator("#help")).to_be_hidden()


def test_a_key_at_the_moment_an_answer_is_shown_acts_within_the_page(tab: Any, page: Served, dataset: Path) -> None:
    """A form that htmx does not know yet is sent by the browser: the page is loaded anew, and keys are lost."""
    tab.goto(f"{page.url}/queue?platform=ground&split=train")
    for key in "jax":
        tab.keyboard.press(key)
        playwright_api.expect(tab.locator(".card:not([data-state=open])")).to_have_count("jax".index(key))
    tab.evaluate(
        """() => {
          window.same = true;
          new MutationObserver((_, observer) => {
            observer.disconnect();
            document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "z", bubbles: true }));
          }).observe(document.getElementById("main").parentElement, { childList: true });
        }"""
    )
    tab.keyboard.press("z")
    playwright_api.expect(tab.locator(".card:not([data-state=open])")).to_have_count(0)
    assert tab.evaluate("window.same") is True
    assert stands(dataset) == {}


def test_who_has_moved_on_before_the_answer_came_stays_there(tab: Any, page: Served, dataset: Path) -> None:
    tab.goto(f"{page.url}/queue?platform=ground&split=train")
    held: list[Any] = []

    def hold(route: Any) -> None:
        held.append(route)

    tab.route("**/decide", hold)
    for key in "jaj":
        tab.keyboard.press(key)
    playwright_api.expect(cards(tab).nth(1)).to_be_focused()
    held[0].continue_()
    playwright_api.expect(cards(tab).nth(0)).to_have_attribute("data-state", "accept")
    tab.wait_for_timeout(200)
    playwright_api.expect(cards(tab).nth(1)).to_be_focused()
    playwright_api.expect(cards(tab).nth(1)).to_have_class(re.compile("current"))
    tab.unroute("**/decide")
    tab.keyboard.press("x")
    playwright_api.expect(cards(tab).nth(1)).to_have_attribute("data-state", "reject")
    playwright_api.expect(cards(tab).nth(2)).to_be_focused()
    assert [kind for kind, _ in stands(dataset).values()] == ["accept", "reject"]


def test_a_held_key_decides_once(tab: Any, page: Served, dataset: Path) -> None:
    tab.goto(f"{page.url}/queue?platform=ground&split=train")
    tab.keyboard.press("j")
    for count, key in ((1, "a"), (2, "x"), (1, "z")):
        for _ in range(8):
            tab.keyboard.down(key)
            tab.wait_for_timeout(60)
        tab.keyboard.up(key)
        tab.wait_for_load_state("networkidle")
        assert len(stands(dataset)) == count, key


def test_text_that_was_not_saved_is_asked_about(tab: Any, page: Served, dataset: Path) -> None:
    asked: list[str] = []
    answers = [False, False, True]

    def answer(dialog: Any) -> None:
        asked.append(dialog.message)
        (dialog.accept if answers.pop(0) else dialog.dismiss)()

    tab.on("dialog", answer)
    tab.goto(f"{page.url}/queue?platform=satellite&q=number+2.")
    original, copy = cards(tab).nth(0), cards(tab).nth(1)
    copy.locator("summary", has_text="Edit").click()
    copy.locator("textarea").fill("My long edit.")
    original.get_by_role("button", name="Accept").click()  # goes to the copy too, which stays as it is shown
    playwright_api.expect(original).to_have_attribute("data-state", "accept")
    assert asked == []
    tab.locator("#undo-last").click()
    copy.get_by_role("button", name="Reject").click()
    assert len(asked) == 2
    assert copy.locator("textarea").input_value() == "My long edit."
    assert [kind for kind, _ in stands(dataset).values()] == ["accept", "accept"]
    copy.get_by_role("button", name="Save").click()
    playwright_api.expect(tab.locator(".conflict")).to_contain_text("My long edit.")
    tab.locator(".conflict").get_by_role("button", name="Save mine over it").click()
    playwright_api.expect(copy).to_have_attribute("data-state", "edit")
    copy.locator("summary", has_text="Edit").click()
    copy.locator("textarea").fill("Another.")
    tab.locator("#undo-last").click()
    playwright_api.expect(copy).to_have_attribute("data-state", "accept")
    assert len(asked) == 3


def test_nothing_left_to_undo_is_said_and_the_queue_stays(tab: Any, page: Served) -> None:
    tab.goto(f"{page.url}/queue?split=train")
    tab.keyboard.press("z")
    playwright_api.expect(tab.locator("#toast")).to_contain_text("this browser is left to undo")
    assert cards(tab).count() == 25


def test_keys_can_be_switched_off(tab: Any, page: Served, dataset: Path) -> None:
    tab.goto(f"{page.url}/queue?split=train")
    tab.get_by_role("button", name="Keys ?").click()
    tab.get_by_label("Single-key shortcuts are on").uncheck()
    tab.get_by_role("button", name="Close").click()
    tab.reload()
    cards(tab).first.focus()
    for key in "jaxz":
        tab.keyboard.press(key)
    tab.wait_for_timeout(300)
    assert stands(dataset) == {}


def test_bulk_and_revert(tab: Any, page: Served, dataset: Path, errors: list[str]) -> None:
    tab.goto(f"{page.url}/queue?platform=satellite&tile=augmented")
    tab.get_by_role("link", name="Decide on all…").click()
    tab.get_by_role("button", name="Reject 10").click()
    playwright_api.expect(tab.locator("h1")).to_have_text("10 captions rejected")
    assert len(stands(dataset)) == 10
    tab.get_by_role("link", name="History").click()
    tab.get_by_role("button", name=re.compile("^Revert 10")).click()
    tab.wait_for_url("**/history")
    playwright_api.expect(tab.locator("tbody tr")).to_have_count(2)
    assert stands(dataset) == {}
    assert errors == []


def test_two_browsers_meet_as_a_conflict(chromium: Any, tab: Any, page: Served, dataset: Path) -> None:
    context = chromium.new_context()
    other = sign_in(context, page, [])
    other.get_by_label("Reviewer").fill("Bob")
    other.get_by_role("button", name="Set").click()
    for one in (tab, other):
        one.goto(f"{page.url}/queue?platform=drone&split=train")
    cards(other).first.get_by_role("button", name="Accept").click()
    playwright_api.expect(cards(other).first).to_have_attribute("data-state", "accept")
    cards(tab).first.locator("summary", has_text="Edit").click()
    cards(tab).first.locator("textarea").fill("My own words.")
    cards(tab).first.get_by_role("button", name="Save").click()
    conflict = tab.locator(".conflict")
    playwright_api.expect(conflict).to_contain_text("Bob has accepted this caption meanwhile")
    playwright_api.expect(conflict).to_contain_text("My own words.")
    assert [kind for kind, _ in stands(dataset).values()] == ["accept"]
    conflict.get_by_role("button", name="Save mine over it").click()
    playwright_api.expect(cards(tab).first).to_have_attribute("data-state", "edit")
    assert list(stands(dataset).values()) == [("edit", "My own words.")]
    context.close()


def test_a_save_that_does_not_arrive_is_said_and_the_text_stays(tab: Any, page: Served, dataset: Path) -> None:
    tab.goto(f"{page.url}/queue?platform=drone&split=train")
    cards(tab).first.locator("summary", has_text="Edit").click()
    cards(tab).first.locator("textarea").fill("Do not lose me.")
    tab.route("**/decide", lambda route: route.abort())
    cards(tab).first.get_by_role("button", name="Save").click()
    playwright_api.expect(tab.locator("#toast")).to_contain_text("Not saved")
    assert cards(tab).first.locator("textarea").input_value() == "Do not lose me."
    tab.unroute("**/decide")
    cards(tab).first.locator("textarea").fill("  ")
    cards(tab).first.get_by_role("button", name="Save").click()
    playwright_api.expect(tab.locator("#toast")).to_contain_text("cannot be empty")
    assert stands(dataset) == {}


def test_the_caption_page_shows_boxes_and_decides(tab: Any, page: Served, dataset: Path, errors: list[str]) -> None:
    tab.goto(page.url + address("train/satellite/0000/view 0.jpeg#0"))
    image = tab.locator("figure img")
    assert image.evaluate("i => i.complete && i.naturalWidth") == 64
    box, frame = (tab.locator(s).bounding_box() for s in ("rect", "figure.big"))
    assert box["width"] / frame["width"] == pytest.approx(0.4, abs=0.02)
    assert (box["x"] - frame["x"]) / frame["width"] == pytest.approx(0.3, abs=0.02)
    tab.locator(".regions li").hover()
    playwright_api.expect(tab.locator("rect")).to_have_class("lit")
    tab.get_by_role("button", name="Accept").click()
    playwright_api.expect(tab.locator("#decision")).to_have_attribute("data-state", "accept")
    assert len(stands(dataset)) == 2  # and the augmented tile with the same words
    tab.locator("#decision").get_by_role("button", name="Undo").click()
    playwright_api.expect(tab.locator("#decision")).to_have_attribute("data-state", "open")
    tab.get_by_label("also on 1 augmented tile").uncheck()
    tab.keyboard.press("x")
    playwright_api.expect(tab.locator("#decision")).to_have_attribute("data-state", "reject")
    assert len(stands(dataset)) == 1
    assert errors == []


def test_copies_on_the_same_page_change_with_their_original(tab: Any, page: Served, errors: list[str]) -> None:
    tab.goto(f"{page.url}/queue?platform=satellite&q=number+2.")
    original, copy = cards(tab).nth(0), cards(tab).nth(1)
    playwright_api.expect(copy).to_contain_text("augmented")
    original.get_by_role("button", name="Accept").click()
    playwright_api.expect(copy).to_have_attribute("data-state", "accept")
    original.get_by_role("button", name="Undo").click()
    playwright_api.expect(copy).to_have_attribute("data-state", "open")
    tab.goto(f"{page.url}/queue?platform=satellite&q=number+2.&tile=original")
    original.get_by_role("button", name="Accept").click()
    playwright_api.expect(original).to_have_attribute("data-state", "accept")
    assert errors == []


def test_an_image_that_fails_to_load_says_so(tab: Any, page: Served) -> None:
    tab.route("**/thumb?*", lambda route: route.fulfill(status=500))
    tab.goto(f"{page.url}/queue")
    playwright_api.expect(tab.locator(".frame.failed").first).to_be_visible()


def test_hostile_captions_run_nothing(tab: Any, page: Served, errors: list[str]) -> None:
    for path in PAGES:
        tab.goto(page.url + path)
        tab.wait_for_timeout(100)
        assert tab.evaluate("window.pwned") is None, path
        assert tab.evaluate("document.querySelectorAll('img[src=x], script:not([src]), [onerror]').length") == 0, path
    card = cards(tab)
    tab.goto(f"{page.url}/queue?gate=object")
    card.first.locator("summary", has_text="Edit").click()
    card.first.locator("textarea").fill("<img src=x onerror='window.pwned=1'> <div hx-get='/' hx-trigger='load'>")
    card.first.get_by_role("button", name="Save").click()
    playwright_api.expect(card.first).to_have_attribute("data-state", "edit")
    assert tab.evaluate("window.pwned") is None
    assert [e for e in errors if "404" not in e] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_accessible_at_every_width_and_in_both_schemes(chromium: Any, page: Served, scheme: str, width: int) -> None:
    package = pytest.importorskip("axe_playwright_python", reason="axe-playwright-python is not installed")
    axe = (Path(package.__file__).parent / "axe.min.js").read_text(encoding="utf-8")
    context = chromium.new_context(color_scheme=scheme, viewport={"width": width, "height": 844})
    tab = sign_in(context, page, [])
    backgrounds = set()
    for path in PAGES:
        tab.goto(page.url + path)
        assert tab.evaluate("document.documentElement.scrollWidth") <= width, f"{path} scrolls sideways"
        if path.startswith("/queue"):
            for details in tab.locator("details").all()[:2]:
                if details.is_visible():
                    details.evaluate("d => { d.open = true }")
        tab.wait_for_load_state("networkidle")
        tab.evaluate(SETTLED)
        tab.evaluate(axe)
        found = tab.evaluate(
            "axe.run({runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']})"
        )
        problems = [
            (v["id"], v["nodes"][0]["html"][:200], v["nodes"][0]["failureSummary"]) for v in found["violations"]
        ]
        assert problems == [], path
        backgrounds.add(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert backgrounds == {"rgb(20, 24, 27)" if scheme == "dark" else "rgb(246, 246, 243)"}
    context.close()
