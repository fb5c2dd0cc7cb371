"""What the captions of a train shard say before they are refined: orientation stripped, kept, or turned with the tile.

A caption has one wording for its own image and one for every augmented copy of it. The refiner is asked about each
different wording once.
"""

from augment.satellite import draw
from flows.jobs import variants
from refine.orientation import strip_many
from refine.remap import remap
from schemas.config import Config
from schemas.records import Platform, SourceCaption, SourceRegion, Stripped
from schemas.symmetry import Symmetry

ORIGINAL = None
Wordings = dict[tuple[str, int | None], Stripped]  # (caption or region id, variant or ORIGINAL) -> its words


def caption_wordings(captions: tuple[SourceCaption, ...], platform: Platform, config: Config) -> Wordings:
    """Wordings of the captions of train images, for the originals and all their augmented copies."""
    return _wordings([(c.caption_id, c.image_id, c.raw) for c in captions], platform, config)


def region_wordings(regions: tuple[SourceRegion, ...], platform: Platform, config: Config) -> Wordings:
    """Wordings of the region sentences of train images, for the originals and all their augmented copies."""
    return _wordings([(r.region_id, r.image_id, r.sentence) for r in regions], platform, config)


def symmetry_of(image_id: str, variant: int, config: Config) -> Symmetry:
    """The turn or mirror image that an augmented copy gets under remap; it depends on no pixel."""
    recipe = draw(
        1, 1, image_id=image_id, variant=variant, seed=config.seed, config=config.augment, symmetries_only=True
    )
    return Symmetry(recipe.d4)


def _wordings(texts: list[tuple[str, str, str]], platform: Platform, config: Config) -> Wordings:
    mode = config.orientation.mode(platform)
    copies = variants(config, "train", platform)
    bare: dict[str, Stripped] = {}
    if mode == "strip" or (mode == "keep" and copies):
        bare = {
            key: done
            for (key, _, _), done in zip(texts, strip_many((raw for _, _, raw in texts), platform), strict=True)
        }
    said: Wordings = {}
    for key, image_id, raw in texts:
        said[key, ORIGINAL] = bare[key] if mode == "strip" else Stripped(raw)
        for variant in copies:
            said[key, variant] = remap(raw, symmetry_of(image_id, variant, config)) if mode == "remap" else bare[key]
    return said
