"""What a run says about itself: the model card (README.md) and the curves (curves.png)."""

import io
import json
from collections.abc import Sequence
from typing import Any

from PIL import Image, ImageDraw

from data.shards import Version
from schemas.config import TrainConfig, config_dict

SIZE = 960, 400
PANEL = 380, 290
INK, GRID = (40, 40, 48), (222, 222, 228)
COLOURS = ((31, 119, 180), (214, 84, 39), (44, 140, 70), (128, 90, 170))


def draw_curves(metrics: Sequence[dict[str, Any]]) -> bytes:
    """Loss and gate entropy on the left, recall on the right, over the epochs of all stages; a PNG."""
    image = Image.new("RGB", SIZE, "white")
    draw = ImageDraw.Draw(image)
    losses = {
        "loss": [line["loss"] for line in metrics],
        "gate entropy (nats)": [line["gate"]["entropy"] for line in metrics],
    }
    on = metrics[0]["scored_on"]
    recalls = {
        f"{on} {way} recall@{k} (%)": [line[on][way][f"r{k}"] for line in metrics]
        for way in ("t2i", "i2t")
        for k in (1, 10)
    }
    starts = [i for i, line in enumerate(metrics) if line["epoch"] == 1]
    _panel(draw, (70, 30), losses, starts, max([1.0, *losses["loss"]]))
    _panel(draw, (550, 30), recalls, starts, 100.0)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _panel(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    curves: dict[str, list[float]],
    starts: Sequence[int],
    top: float,
) -> None:
    """Draw curves over a common axis of 0..top; a grey line marks where a stage starts."""
    x0, y0 = corner
    width, height = PANEL
    count = max(map(len, curves.values()))

    def x(epoch: float) -> float:
        return x0 + width * epoch / max(1, count - 1)

    def y(value: float) -> float:
        return y0 + height * (1 - min(value, top) / top)

    for tick in range(5):
        value = top * tick / 4
        draw.line([(x0, y(value)), (x0 + width, y(value))], GRID)
        draw.text((x0 - 8, y(value)), f"{value:.4g}", INK, anchor="rm")
    for stage_start in starts[1:]:
        draw.line([(x(stage_start - 0.5), y0), (x(stage_start - 0.5), y0 + height)], (150, 150, 160))
    draw.text((x0, y0 + height + 6), "epoch 1", INK)
    draw.text((x0 + width, y0 + height + 6), str(count), INK, anchor="ra")
    for i, (name, values) in enumerate(curves.items()):
        points = [(x(epoch), y(value)) for epoch, value in enumerate(values)]
        draw.line(points if len(points) > 1 else points * 2, COLOURS[i], width=2)
        draw.text((x0 + (i % 2) * 190, y0 + height + 24 + (i // 2) * 14), name, COLOURS[i])


def trunks_line(trunks: dict[str, Any] | None) -> list[str]:
    """Where the trunks come from, if they were not trained here."""
    if not trunks:
        return []
    version = trunks["dataset"]["version"]
    return [
        f"The trunks, and what the experts started from, are those of the run `{trunks['run']}`, trained on version "
        f"`{version}` of its data set (its checkpoint's SHA-256: `{trunks['sha256']}`).",
        "",
    ]


def model_card(version: Version, config: TrainConfig, result: dict[str, Any]) -> str:
    """README.md of a run, Markdown: data set version and shards, scores on val, configuration, limits."""
    best = result["best"]
    manifest = version.manifest
    chosen_on = best["scored_on"]
    scores, gate = best[chosen_on], best["gate"]
    used = [shard for shard in manifest.shards if shard.table in ("images", "captions") and shard.split != "test"]
    lines = [
        "# Mixture of platform experts for text-to-image retrieval",
        "",
        f"Trained by georefine {manifest.code_version} on data set version `{manifest.version}` "
        f"(source fingerprint `{manifest.source.get('sha256', 'unknown')}`). "
        f"{result['parameters']:,} parameters; {result['epochs']} epochs; the checkpoint is that of stage "
        f"{best['stage']}, epoch {best['epoch']}, the best of all on short queries of the {chosen_on} split.",
        "",
        f"| on {chosen_on} | recall@1 | recall@5 | recall@10 | Score |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {r['r1']:.1f} % | {r['r5']:.1f} % | {r['r10']:.1f} % | {r['score']:.1f} |"
            for name, r in (
                ("text to image", scores["t2i"]),
                ("text to image, up to three sentences", scores["short"]),
                ("image to text", scores["i2t"]),
            )
        ),
        "",
        f"Gate on {chosen_on}: entropy {gate['entropy']:.2f} nats of 1.10; most weight on the expert of a caption's "
        f"own platform in {100 * gate['own']:.0f} %; mean weights "
        f"satellite {gate['satellite']:.2f}, drone {gate['drone']:.2f}, ground {gate['ground']:.2f}.",
        "",
        *trunks_line(result.get("trunks")),
        *(f"Note: {note}\n" for note in result["notes"]),
        "The numbers above were used to choose the checkpoint; `georefine evaluate RUN DATASET` scores it on the test "
        "split, which training did not read. The model ranks images of places like those it was trained on; it does "
        "not tell whether an image shows what a sentence says.",
        "",
        "## Configuration",
        "",
        "```json",
        json.dumps(config_dict(config), indent=1),
        "```",
        "",
        "## Shards it was trained and chosen on",
        "",
        "| shard | rows | sha256 |",
        "|---|---|---|",
        *(f"| `{shard.path}` | {shard.rows} | `{shard.sha256}` |" for shard in sorted(used, key=lambda s: s.path)),
    ]
    return "\n".join(lines) + "\n"
