"""A small data set written without a rebuild, hostile captions and names included, and a server of its page."""

import io
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pyarrow as pa
import uvicorn
from fastapi import FastAPI
from PIL import Image

from data.shards import sha256_bytes, shard_path, write_table
from data.versions import publish
from review.access import cookie_name
from review.app import create_app
from schemas.manifest import FORMAT_VERSION, Account, Manifest, Shard
from schemas.tables import SCHEMAS

HOSTILE = (
    '<script>window.pwned = 1</script><img src=x onerror="window.pwned = 1"> {{ 7 * 7 }} 100% _under_ \u202eesrever'
)
HOSTILE_BUILDING = "\"><img src=x onerror='window.pwned=1'>"
GATES = ("orientation", "colour", "object")
BUILDINGS = 12


def jpeg(colour: tuple[int, int, int], side: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(buffer, "JPEG")
    return buffer.getvalue()


def _image(image_id: str, building: str, platform: str, split: str, parent: str | None = None) -> dict[str, Any]:
    data = jpeg((len(image_id) * 7 % 255, sum(image_id.encode()) % 255, 120))
    return {
        "image_id": image_id,
        "building_id": building,
        "platform": platform,
        "split": split,
        "role": "train" if split == "train" else "gallery",
        "image": {"bytes": data, "path": image_id},
        "width": 64,
        "height": 64,
        "sha256": sha256_bytes(data),
        "parent_image_id": parent,
        "transform": '{"rotate": 90}' if parent else None,
    }


def caption(
    image: Mapping[str, Any], ordinal: int, raw: str, final: str, *, failed: str = "", start: int | None = None
) -> dict[str, Any]:
    kept = image["split"] != "train"
    edits = (
        [{"start": start, "end": start + 12, "old": raw[start : start + 12], "new": ""}] if start is not None else []
    )
    stripped = raw[:start] + raw[start + 12 :] if start is not None else raw
    gates = [{"gate": g, "passed": g != failed, "detail": HOSTILE if g == failed else ""} for g in GATES]
    return {
        "caption_id": f"{image['image_id']}#{ordinal}",
        "image_id": image["image_id"],
        "building_id": image["building_id"],
        "platform": image["platform"],
        "split": image["split"],
        "raw": raw,
        "edits": edits,
        "stripped": stripped,
        "refined": "" if kept else final,
        "queries": [] if kept else [final.split(".", maxsplit=1)[0] + "."],
        "final": raw if kept else final,
        "status": "kept" if kept else ("fallback" if failed else "refined"),
        "gates": [] if kept else gates,
        "refiner": "" if kept else "rules",
        "prompt_version": "" if kept else "test-1",
        "reply_key": "" if kept else sha256_bytes(raw.encode()),
        "reply": "" if kept else '{"caption": "</pre><script>window.pwned=1</script>"}',
    }


def _rows(changed: str) -> dict[str, list[dict[str, Any]]]:
    images: list[dict[str, Any]] = []
    captions: list[dict[str, Any]] = []
    for n in range(BUILDINGS):
        building = HOSTILE_BUILDING if n == 3 else f"{n:04d}"
        split = "test" if n >= 10 else "train"
        for platform in ("satellite", "drone", "ground"):
            image = _image(f"{split}/{platform}/{n:04d}/view {n}.jpeg", building, platform, split)
            images.append(image)
            more = f"It has a {platform} pond{changed if n == 0 else ''}."
            raw = f"The image shows a red building number {n} on the left. {more}"
            final = f"A red building number {n}. {more}"
            place = raw.index(" on the left")
            captions.append(caption(image, 0, raw, final, failed="colour" if n == 5 else "", start=place))
            captions.append(caption(image, 1, f"A grey roof, {n} trees.", f"A grey roof, {n} trees."))
            if platform == "satellite" and split == "train":
                tile = _image(f"{image['image_id']}~aug0", building, platform, split, image["image_id"])
                images.append(tile)
                captions.append(caption(tile, 0, raw, final, start=place))
    captions.append(caption(images[0], 2, HOSTILE, HOSTILE, failed="object"))
    return {"images": images, "captions": captions}


def write_version(dataset: Path, changed: str = "") -> str:
    """Publish a version; `changed` is added to the captions of building 0000. Returns its name."""
    rows = _rows(changed)
    regions = [
        {
            "region_id": "train/satellite/0000/view 0.jpeg@0",
            "image_id": "train/satellite/0000/view 0.jpeg",
            "building_id": "0000",
            "platform": "satellite",
            "split": "train",
            "sentence": "A red dome on the left " + HOSTILE,
            "stripped": "A red dome " + HOSTILE,
            "bbox": [0.5, 0.5, 0.4, 0.3],
        }
    ]
    files: dict[str, Path] = {}
    shards: list[Shard] = []
    counts: dict[str, Any] = {}
    for table, found in {**rows, "regions": regions}.items():
        for split in ("train", "test"):
            for platform in ("satellite", "drone", "ground"):
                part = [row for row in found if row["split"] == split and row["platform"] == platform]
                if not part:
                    continue
                path = shard_path(table, split, platform, 0)  # type: ignore[arg-type]
                files[path] = dataset / ".work" / "staged" / path
                written = write_table(files[path], pa.Table.from_pylist(part, SCHEMAS[table]))  # type: ignore[index]
                shards.append(Shard(path, table, split, platform, written.rows, written.bytes, written.sha256))  # type: ignore[arg-type]
                cell = counts.setdefault(split, {}).setdefault(
                    platform, {"buildings": 0, "images": 0, "augmented": 0, "captions": 0, "regions": 0, "statuses": {}}
                )
                cell[table] += len(part)
                if table == "captions":
                    for row in part:
                        cell["statuses"][row["status"]] = cell["statuses"].get(row["status"], 0) + 1
    total = {t: len(r) for t, r in {**rows, "regions": regions}.items()}
    manifest = Manifest(
        FORMAT_VERSION,
        "",
        "test",
        {"sha256": sha256_bytes(changed.encode()), "files": 0, "bytes": 0, "ignored": {}},
        {"seed": 0},
        tuple(sorted(shards, key=lambda s: s.path)),
        {t: Account(n, n, 0, 0) for t, n in total.items()},  # type: ignore[misc]
        counts,
        {},
        (HOSTILE,),
    )
    return publish(dataset, files, manifest).version.name


@dataclass
class Served:
    """A page being served. `token` lets the next browser in."""

    app: FastAPI
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def token(self) -> str:
        token: str = self.app.state.desk.door.token
        return token

    def sign_in(self) -> "Browser":
        return Browser(self.port, self.token)


@contextmanager
def served(dataset: Path, run: Path | None = None) -> Iterator[Served]:
    app = create_app(dataset, "first-token", run)
    app.state.desk.captions.wait()
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        thread.join(0.02)
        assert thread.is_alive()
    try:
        yield Served(app, server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        thread.join()


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()


class Browser:
    """A client that says exactly what it is told to, unlike a real browser: for requests that nobody honest sends."""

    def __init__(self, port: int, token: str | None = None) -> None:
        self.port = port
        self.cookie = ""
        self.csrf = ""
        if token is not None:
            answer = self.get(f"/?token={token}")
            assert answer.status == 303, answer.text
            self.cookie = answer.headers["set-cookie"].partition(";")[0]
            assert self.cookie.startswith(cookie_name(port))
            found = re.search(r'name="csrf" value="([^"]+)"', self.get("/").text)
            assert found
            self.csrf = found[1]

    def request(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=20)
        sent = {"Cookie": self.cookie} if self.cookie else {}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        connection.putrequest(method, path, skip_host="Host" in sent)
        for name, value in sent.items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        response: HTTPResponse = connection.getresponse()
        answer = Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        connection.close()
        return answer

    def get(self, path: str, **headers: str) -> Answer:
        return self.request("GET", path, **headers)

    def post(self, path: str, fields: Mapping[str, str], **headers: str) -> Answer:
        body = urlencode({"csrf": self.csrf, **fields}).encode()
        return self.request("POST", path, body, **{"Content-Type": "application/x-www-form-urlencoded", **headers})

    def seen(self, caption_id: str) -> str:
        """What a form says of the texts that this caption's page shows now."""
        found = re.search(r'name="seen" value="([^"]+)"', self.get(address(caption_id)).text)
        assert found
        return found[1]

    def decide(self, caption_id: str, decision: str, revision: int, text: str = "", **more: str) -> Answer:
        fields = {"caption": caption_id, "decision": decision, "revision": str(revision), "text": text}
        fields |= {"seen": self.seen(caption_id)} | more
        return self.post("/decide", fields, HX_Request="true")


def address(caption_id: str) -> str:
    return "/caption/" + quote(caption_id, safe="")
