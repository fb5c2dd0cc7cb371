"""The pages: a data set at a glance, a queue of captions with filters, one caption in full, the history of decisions.

`create_app(dataset, token)` makes the FastAPI application; review.server serves it. GET never writes. Captions, names
and replies are hostile text: every template escapes, differences are passed as (operation, text) pairs.
"""

import getpass
import hashlib
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import parse_qs, parse_qsl, quote, urlsplit

from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.convertors import Convertor, register_url_convertor

from data.shards import open_version
from review.access import Door, Guard, Session
from review.captions import SORTS, STATES, Captions, Filters, Page, Row, draft
from review.compare import Diff, visible, word_diff
from review.decisions import KINDS, REVIEWS, DecisionLog, Draft, Saved
from review.pictures import Thumbnails, picture, thumbnail
from schemas import __version__
from schemas.errors import GeorefineError
from schemas.records import PLATFORMS, SPLITS, STATUSES, Edit

if TYPE_CHECKING:
    from review.model import RunIndex

HERE = Path(__file__).parent
LARGEST_FORM = 1_000_000  # bytes
LONGEST_NAME = 60
JOINERS = "\u200c\u200d"
BATCHES = 50
BINS = 24
WORD_WIDTH = 10  # words per bar
EDIT_WIDTH = 5


class IdConvertor(Convertor[str]):
    """An id in a path, whatever a file can be called: starlette's own `path` ends at a line break."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("id", IdConvertor())


class RefusedError(Exception):
    """A request that cannot be answered: status, and a sentence to the person."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Desk:
    """What every page works on: the captions of one version, the log, the door, and a trained run if there is one."""

    def __init__(self, dataset: Path, token: str, run: Path | None, announce: Callable[[str], None] | None) -> None:
        self.dataset = dataset
        version = open_version(dataset)
        self.log = DecisionLog(version.path.parent / REVIEWS)
        self.captions = Captions(dataset, self.log)
        self.door = Door(token, getpass.getuser(), announce)
        self.thumbnails = Thumbnails()
        self.run = _open_run(run, self.captions) if run else None
        self.lock = threading.Lock()

    def newer(self) -> str | None:
        """The name of a version made since this page was opened, where DATASET and not DATASET/vNNNN is reviewed."""
        try:
            name = open_version(self.dataset).name
        except GeorefineError:
            return None
        return name if name != self.captions.version.name else None

    def close(self) -> None:
        if self.run:
            self.run.close()
        self.captions.close()
        self.log.close()


def _open_run(run: Path, captions: Captions) -> "RunIndex":
    from review.model import RunIndex  # torch takes seconds to import: only where a run is shown

    return RunIndex(run, captions.version)


@dataclass(frozen=True)
class Form:
    """A write: its fields, whose browser it comes from, and whether a part of a page is asked for in answer."""

    fields: Mapping[str, str]
    session: Session
    partial: bool

    def __getitem__(self, name: str) -> str:
        if name not in self.fields:
            raise RefusedError(422, f"The form lacks its field {name}: reload the page.")
        return self.fields[name]

    def get(self, name: str) -> str:
        return self.fields.get(name, "")


async def read_form(request: Request) -> Form:
    """The fields of a URL-encoded form.

    Raises:
        RefusedError: too large, no form, or without the token of this browser's session.
    """
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_FORM:
            raise RefusedError(413, "This form is larger than any caption can be.")
    text = body.decode("utf-8", "replace")
    try:
        fields = dict(parse_qsl(text, keep_blank_values=True, max_num_fields=50, errors="replace"))
    except ValueError as error:
        raise RefusedError(422, "This form has too many fields.") from error
    session: Session = request.scope["session"]
    if fields.get("csrf", "") != session.csrf:
        raise RefusedError(403, "This form is not of your session: reload the page.")
    return Form(fields, session, request.headers.get("hx-request") == "true")


def _desk(request: Request) -> Desk:
    """A desk of its own for each request: it ends with the captions it began with, whatever is loaded meanwhile."""
    desk: Desk = copy(request.app.state.desk)
    desk.captions.sync()
    return desk


Posted = Annotated[Form, Depends(read_form)]
AtDesk = Annotated[Desk, Depends(_desk)]


def _one_line(text: str) -> str:
    """An edited caption as it is kept: one paragraph, no characters that are not text.

    Joiners are text: Persian words and many emoji are spelt with them. A soft hyphen is only a place to break a line.
    """
    kept = (c if c.isprintable() or c in JOINERS else " " for c in text.replace("\u00ad", ""))
    return " ".join(word for word in "".join(kept).split() if word.strip(JOINERS))


def _steps(row: Row, edits: list[dict[str, Any]]) -> dict[str, Any]:
    """raw -> stripped -> refined: each step as the difference to the one before."""
    cut = _cut(row.raw, [Edit(**edit) for edit in edits]) if edits else word_diff(row.raw, row.stripped)
    return {
        "raw": cut,
        "removed": [edit for edit in edits if edit["old"].strip()],
        "refined": word_diff(row.stripped, row.refined) if row.refined else (),
        "proposed": word_diff(row.refined or row.final, row.proposed),
    }


def _cut(raw: str, edits: list[Edit]) -> Diff:
    """The raw caption with its removed and inserted spans."""
    parts: list[tuple[Any, str]] = []
    at = 0
    for edit in edits:
        parts += [("same", raw[at : edit.start]), ("del", edit.old), ("ins", edit.new)]
        at = edit.end
    return tuple((op, text) for op, text in [*parts, ("same", raw[at:])] if text)


def _asset(name: str) -> str:
    """The address of a static file, which changes with its content, so that browsers may keep it."""
    return f"/static/{name}?{hashlib.sha256((HERE / 'static' / name).read_bytes()).hexdigest()[:12]}"


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "visible": visible,
        "part": lambda text: quote(text, safe=""),
        "thousands": lambda number: f"{number:,}",
        "pretty": _pretty,
    }
    environment.globals |= {
        "assets": {name: _asset(name) for name in ("review.css", "review.js", "htmx-2.0.11.min.js")},
        "code_version": __version__,
        "names": {
            "platform": "Platform",
            "split": "Split",
            "status": "Status",
            "decision": "Decision",
            "tile": "Image",
            "change": "Since last version",
            "gate": "Failed gate",
        },
        "said": SAID,
        "sorts": {"id": "Order of the data", "gates": "Most failed gates", "edit": "Largest edit"}
        | {"disagreement": "Reviewers disagree"},
        "word_diff": word_diff,
    }
    return environment


SAID = {
    "open": "open",
    "accept": "accepted",
    "edit": "edited",
    "reject": "rejected",
    "undo": "undone",
    "stale": "stale",
    "evidence": "evidence",
}


def _pretty(text: str) -> str:
    try:
        return json.dumps(json.loads(text), ensure_ascii=False, indent=2)
    except ValueError:
        return text


def create_app(
    dataset: Path,
    token: str,
    run: Path | None = None,
    *,
    host: str = "127.0.0.1",
    announce: Callable[[str], None] | None = None,
) -> FastAPI:
    """The review page of a data set.

    Args:
        dataset: DATASET, or one version DATASET/vNNNN.
        token: lets the first browser in, once, at /?token=...
        run: a folder that `georefine train` wrote; what its model makes of a caption is then shown beside it.
        host: the name or address that the page is served at.
        announce: called with the next token whenever one was used.

    Raises:
        DatasetError: there is no complete version, a shard is damaged, or the log of decisions is.
        TrainingError: the run holds no checkpoint.
    """
    desk = Desk(Path(dataset), token, run, announce)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        desk.close()

    app = FastAPI(lifespan=lifespan, openapi_url=None, docs_url=None, redoc_url=None)
    app.state.desk = desk
    templates = _environment()

    def show(request: Request, name: str, status: int = 200, **values: Any) -> HTMLResponse:
        session: Session | None = request.scope.get("session")
        common = {
            "csrf": session.csrf if session else "",
            "reviewer": session.reviewer if session else "",
            "dataset": desk.captions.dataset.resolve().name,
            "version": desk.captions.version.name,
            "newer": desk.newer(),
            "with_run": desk.run is not None,
            "here": request.url.path + (f"?{request.url.query}" if request.url.query else ""),
        }
        return HTMLResponse(templates.get_template(name).render({**common, **values}), status)

    @app.exception_handler(RefusedError)
    def refused(request: Request, error: RefusedError) -> Response:
        return show(request, "message.html", error.status, title="Not done", sentence=str(error))

    @app.exception_handler(GeorefineError)
    def failed(request: Request, error: GeorefineError) -> Response:
        return show(request, "message.html", 500, title="That failed", sentence=str(error))

    @app.exception_handler(404)
    def unknown(request: Request, _: Exception) -> Response:
        return show(request, "message.html", 404, title="Nothing here", sentence="There is no page at this address.")

    @app.get("/")
    def overview(request: Request, desk: AtDesk) -> Response:
        captions = desk.captions
        manifest = captions.version.manifest
        cells = [
            (split, platform, cell)
            for split in SPLITS
            for platform in PLATFORMS
            if (cell := manifest.counts.get(split, {}).get(platform))
        ]
        plots = []
        if captions.ready:
            plots = [
                ("Length of the final caption", "words", WORD_WIDTH, captions.histogram("words", WORD_WIDTH, BINS)),
                ("Size of the edit", "words that differ", EDIT_WIDTH, captions.histogram("edit", EDIT_WIDTH, BINS)),
            ]
        states = captions.states()
        return show(
            request,
            "overview.html",
            cells=cells,
            statuses=[s for s in STATUSES if any(s in cell["statuses"] for _, _, cell in cells)],
            gates=captions.gates()[:12],
            plots=plots,
            changes=captions.changes(),
            previous=captions.previous.name if captions.previous else None,
            progress=captions.progress(Filters()),
            decisions=[(state, states.get(state, 0)) for state in STATES if state != "evidence"],
            orphans=captions.orphans,
            notes=manifest.notes,
            accounts=manifest.accounts,
        )

    @app.get("/queue")
    def queue(request: Request, desk: AtDesk) -> Response:
        filters = Filters.read(request.query_params)
        held = filters if filters.asof is not None else filters.with_(asof=desk.captions.seq)
        try:
            page = desk.captions.page(
                held, request.query_params.get("after", ""), request.query_params.get("before", "")
            )
        except ValueError as error:
            raise RefusedError(422, "This address names no place in the queue: start from its beginning.") from error
        return show(request, "queue.html", **_queue(desk, filters, held, page))

    @app.get("/caption/{caption_id:id}")
    def caption(request: Request, desk: AtDesk, caption_id: str) -> Response:
        row = desk.captions.row(caption_id)
        if row is None:
            raise RefusedError(404, "This version of the data set holds no such caption.")
        return show(request, "caption.html", **_caption(desk, row))

    @app.get("/model/{caption_id:id}")
    def model(request: Request, desk: AtDesk, caption_id: str) -> Response:
        row = desk.captions.row(caption_id)
        if row is None or desk.run is None:
            raise RefusedError(404, "There is no trained run, or no such caption.")
        return show(request, "_model.html", found=desk.run.look(row.proposed, row.image_id, row.split), row=row)

    @app.get("/negatives")
    def negatives(request: Request, desk: AtDesk) -> Response:
        if desk.run is None:
            raise RefusedError(404, "This page needs a trained run: georefine review DATASET --run RUN.")
        return show(request, "negatives.html", found=desk.run.suspects())

    @app.get("/history")
    def history(request: Request, desk: AtDesk) -> Response:
        before = request.query_params.get("before", "")
        found = desk.log.batches(BATCHES + 1, int(before) if before.isdecimal() and len(before) < 16 else None)
        return show(
            request,
            "history.html",
            batches=[batch for _, batch in found[:BATCHES]],
            further=found[BATCHES - 1][0] if len(found) > BATCHES else None,
        )

    @app.get("/export.jsonl")
    def export(desk: AtDesk) -> Response:
        def lines() -> Iterator[bytes]:
            for line in desk.log.export():
                yield line.encode("utf-8", "backslashreplace")

        name = f"{desk.captions.dataset.resolve().name}-decisions.jsonl"
        disposition = f"attachment; filename*=UTF-8''{quote(name, safe='')}"
        return StreamingResponse(
            lines(), media_type="application/x-ndjson", headers={"content-disposition": disposition}
        )

    @app.get("/image")
    def image(desk: AtDesk, id: str = "") -> Response:
        data = desk.captions.image_bytes(id)
        return _picture(picture(data) if data else None)

    @app.get("/thumb")
    def thumb(desk: AtDesk, id: str = "") -> Response:
        known = desk.captions.image(id)
        if known is None:
            return _picture(None)
        made = desk.thumbnails.get(known["sha256"])
        if made is None and (data := desk.captions.image_bytes(id)) and (made := thumbnail(data)):
            desk.thumbnails.put(known["sha256"], made)
        return _picture(made)

    @app.post("/decide")
    def decide(request: Request, desk: AtDesk, form: Posted) -> Response:
        row = desk.captions.row(form["caption"])
        if row is None:
            raise RefusedError(404, "This version of the data set holds no such caption.")
        first, copies = _drafts(desk, row, form)
        if form["seen"] != row.seen:  # a newer version was loaded, or somebody has decided
            return _conflict(request, form, row, first)
        saved = desk.log.save([first], form.session.reviewer, copies=copies)
        if saved.events:
            form.session.batches.append(saved.batch)
        desk.captions.sync()
        now = desk.captions.row(row.caption_id)
        assert now is not None
        if row.caption_id in saved.conflicts:
            return _conflict(request, form, now, first)
        return _answer(request, desk, form, now, [d.caption_id for d in copies])

    @app.post("/undo")
    def undo(request: Request, desk: AtDesk, form: Posted) -> Response:
        undone = _undo(desk, form)
        desk.captions.sync()
        row = desk.captions.row(form.get("caption")) if form.get("caption") else None
        if not undone.events:
            raise RefusedError(
                409, "Nothing of this is left to undo: it was undone before, or somebody has decided since."
            )
        if row is not None:
            return _answer(request, desk, form, row, [event.caption_id for event in undone.events])
        return RedirectResponse(_back(form), 303)

    @app.get("/bulk")
    def ask_bulk(request: Request, desk: AtDesk) -> Response:
        filters = Filters.read(request.query_params)
        held = filters if filters.asof is not None else filters.with_(asof=desk.captions.seq)
        count = desk.captions.count_decidable(held)
        return show(request, "bulk.html", filters=held, count=count, total=desk.captions.count(held), changed=False)

    @app.post("/bulk")
    def bulk(request: Request, desk: AtDesk, form: Posted) -> Response:
        filters = Filters.read(dict(parse_qsl(form["filters"])))
        kind = form["decision"]
        if kind not in ("accept", "reject"):
            raise RefusedError(422, "In bulk one can accept or reject.")
        drafts = desk.captions.drafts(filters, "accept" if kind == "accept" else "reject")
        if (str(len(drafts)), desk.captions.version.name) != (form["count"], form["version"]):
            return show(
                request,
                "bulk.html",
                409,
                filters=filters,
                count=len(drafts),
                total=desk.captions.count(filters),
                changed=True,
            )
        saved = desk.log.save(drafts, form.session.reviewer)
        form.session.batches.append(saved.batch)
        desk.captions.sync()
        return show(request, "bulk_done.html", saved=saved, kind=kind, filters=filters.with_(asof=None))

    @app.post("/reviewer")
    def reviewer(form: Posted) -> Response:
        name = _one_line(form["name"])[:LONGEST_NAME]
        if not name:
            raise RefusedError(422, "A reviewer needs a name.")
        form.session.reviewer = name
        return RedirectResponse(_back(form), 303)

    @app.post("/reload")
    def load_newest(form: Posted) -> Response:
        with desk.lock:
            if desk.newer():  # what was loaded goes when the last request that reads it has ended
                desk.captions = Captions(desk.dataset, desk.log)
                if desk.run:
                    desk.run.follow(desk.captions.version)
        return RedirectResponse(_back(form), 303)

    def _answer(request: Request, desk: Desk, form: Form, row: Row, also: list[str]) -> Response:
        """After a decision on a caption: its card with the counts made anew, or, without script, the page again.

        The cards of other captions that were decided on with it are sent too, where the page shows them.
        """
        if not form.partial:
            return RedirectResponse(_back(form), 303)
        if form.get("view") == "caption":
            return show(request, "_decision.html", row=row, **_deciding(desk, row))
        filters = Filters.read(dict(parse_qsl(form.get("filters"))))
        shown = set(form.get("shown").split())
        others = [other for name in also[:BATCHES] if name != row.caption_id and (other := desk.captions.row(name))]
        copies = [other for other in others if f"c{other.number}" in shown]
        now = filters.with_(asof=None)
        counts = _counts(desk, now)
        return show(request, "_saved.html", row=row, copies=copies, filters=now, held=filters, oob=True, **counts)

    def _conflict(request: Request, form: Form, now: Row, mine: Draft) -> Response:
        return show(
            request,
            "_conflict.html" if form.partial else "conflict.html",
            409,
            row=now,
            mine=mine,
            other_words=form["seen"] != now.seen,
            copies=form.get("copies"),
            view=form.get("view"),
            filters_query=form.get("filters"),
            back=_back(form),
        )

    app.mount("/static", StaticFiles(directory=HERE / "static"))
    app.add_middleware(Guard, door=desk.door, host=host)
    return app


def _counts(desk: Desk, filters: Filters) -> dict[str, Any]:
    return {"facets": desk.captions.facets(filters), "progress": desk.captions.progress(filters)}


def _queue(desk: Desk, filters: Filters, held: Filters, page: Page) -> dict[str, Any]:
    since = len({event.caption_id for event in desk.log.events(held.asof or 0)}) if filters.asof is not None else 0
    return {
        "filters": filters,
        "held": held,
        "page": page,
        "since": since,
        "oob": False,
        "sort_names": list(SORTS),
        **_counts(desk, filters),
    }


def _deciding(desk: Desk, row: Row) -> dict[str, Any]:
    return {"copies": desk.captions.same_words(row), "history": desk.log.history(row.caption_id)}


def _request(desk: Desk, reply_key: str) -> str:
    """The request that a reply answered, from the reply store; empty where there was none or the store is gone."""
    path = desk.captions.dataset / ".work" / "replies.sqlite"
    if not reply_key or not path.is_file():
        return ""
    from refine.replies import ReplyStore

    with suppress(GeorefineError), ReplyStore(path) as store:
        return (store.request(reply_key) or b"").decode("utf-8", "replace")
    return ""


def _caption(desk: Desk, row: Row) -> dict[str, Any]:
    captions = desk.captions
    details = captions.details(row.caption_id)
    gates = sorted(details["gates"], key=lambda gate: gate["passed"])
    return {
        "row": row,
        "details": details,
        "request_body": _request(desk, details["reply_key"]),
        "gates": gates,
        "steps": _steps(row, details["edits"]),
        "image": captions.image(row.image_id),
        "tiles": captions.tiles(row.image_id),
        "on_image": captions.on_image(row.image_id),
        "regions": captions.regions(row.image_id),
        "siblings": captions.siblings(row.building_id, row.split, row.image_id),
        **_deciding(desk, row),
    }


def _drafts(desk: Desk, row: Row, form: Form) -> tuple[Draft, list[Draft]]:
    """The decision of a form; and the same for the copies of the caption on augmented tiles, if it says so.

    Raises:
        RefusedError: the caption is evidence, the decision unknown, or the edited text empty, too long or unchanged.
    """
    kind = form["decision"]
    if kind not in KINDS:
        raise RefusedError(422, "A decision is accept, reject or edit.")
    if not row.decidable:
        raise RefusedError(
            403, f"Captions of {row.split} are evidence: they stay as they are, so that scores mean something."
        )
    revision = form["revision"]
    if not (revision.isdecimal() and len(revision) < 10):
        raise RefusedError(422, "The form does not say which revision of the caption it is about: reload the page.")
    text = row.proposed if kind == "accept" else ""
    if kind == "edit":
        text = _one_line(form["text"])
        limit = desk.captions.version.manifest.config.get("partition", {}).get("max_caption_chars", 10_000)
        if not text:
            raise RefusedError(422, "An edited caption cannot be empty: reject it instead.")
        if len(text) > limit:
            raise RefusedError(422, f"An edited caption can have {limit} characters; this has {len(text)}.")
        if text == row.proposed and not row.decision:
            raise RefusedError(422, "The text is as it was: accept it instead.")
    first = draft(row, kind, text, desk.captions.version.name, int(revision))
    if form.get("copies") != "yes":
        return first, []
    return first, [draft(r, kind, text, desk.captions.version.name) for r in desk.captions.same_words(row)]


def _undo(desk: Desk, form: Form) -> Saved:
    """Take back the batch that is named, from a card only what it says of that caption; else the last of this browser.

    Never the last of a name: two people may sign with the same one.

    Raises:
        RefusedError: nothing is named, and nothing of this browser stands.
    """
    session = form.session
    if named := form.get("batch"):
        only = _with_copies(desk, form["caption"]) if form.get("caption") else None
        return desk.log.undo(named, session.reviewer, only)
    for batch in reversed(tuple(session.batches)):
        undone = desk.log.undo(batch, session.reviewer)
        with suppress(ValueError):  # another request of this browser took it out
            session.batches.remove(batch)
        if undone.events:
            return undone
    raise RefusedError(
        409, "Nothing that was decided in this browser is left to undo: older decisions can be reverted in the history."
    )


def _with_copies(desk: Desk, caption_id: str) -> list[str]:
    """A caption and, as a decision on an original goes to its copies, those."""
    row = desk.captions.row(caption_id)
    copies = desk.captions.same_words(row) if row and row.tile == "original" else []
    return [caption_id, *(tile.caption_id for tile in copies)]


def _back(form: Form) -> str:
    """Where a form was sent from: a path of this page, whatever the form says."""
    try:
        target = urlsplit(form.get("back"))
    except ValueError:  # brackets that hold no IPv6 address
        return "/"
    path = "/" + target.path.lstrip("/\\")
    return path + (f"?{target.query}" if parse_qs(target.query) else "")


def _picture(made: Any) -> Response:
    if made is None:
        return Response(status_code=404, headers={"cache-control": "no-store"})
    # An image of a version never changes; a browser may keep it for a day without asking.
    return Response(made.data, media_type=made.media_type, headers={"cache-control": "private, max-age=86400"})
