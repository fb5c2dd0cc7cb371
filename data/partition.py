"""Where a file of the source belongs: building, platform, split and role from its path; shards and splits by hash.

University-1652 folders (`train/drone/0839/image-01.jpeg`, `test/gallery_drone/...`, `test/query_satellite/...`) and
flat GeoText folders (`train/0839/image-43.jpeg`) may stand side by side. The building is the name of the file's folder.
"""

import hashlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import cast

from schemas.config import PartitionConfig
from schemas.records import PLATFORMS, Platform, Role, Split

PARTS = ("train", "test")

Counts = Callable[[], Mapping[tuple[Role, Platform], tuple[int, int, int]]]

# Images per folder: Zheng et al., University-1652 (ACM MM 2020), table 1; google is its extra training set.
UNIVERSITY_1652 = {
    "train/satellite": 701,
    "train/drone": 37_854,
    "train/street": 11_663,
    "train/google": 21_099,
    "test/query_satellite": 701,
    "test/query_drone": 37_855,
    "test/query_street": 2_579,
    "test/gallery_satellite": 951,
    "test/gallery_drone": 51_355,
    "test/gallery_street": 2_921,
}
# Images, captions, region sentences per role and platform: Chu et al., GeoText-1652 (ECCV 2024), table 2.
GEOTEXT_1652 = {
    "train/drone": (37_854, 113_562, 113_367),
    "train/satellite": (701, 2_103, 1_709),
    "train/ground": (11_663, 34_989, 14_761),
    "gallery/drone": (51_355, 154_065, 140_179),
    "gallery/satellite": (951, 2_853, 2_006),
    "gallery/ground": (2_921, 8_763, 4_023),
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a file belongs."""

    building_id: str
    platform: Platform
    split: Split
    role: Role


def _fraction(text: str, purpose: bytes) -> float:
    """A number in [0, 1) that depends on the text alone."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8, person=purpose).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def split_of(building_id: str, val_fraction: float) -> Split:
    """Split of a building of the source's train folder: val for about `val_fraction` of all ids, by hash of the id.

    A larger fraction keeps every building that a smaller one chose.
    """
    return "val" if _fraction(building_id, b"split") < val_fraction else "train"


def part_of(building_id: str, parts: int) -> int:
    """The shard, 0 .. parts-1, that a building's rows go to, by hash of the id (independent of the one for splits)."""
    return int(_fraction(building_id, b"shard") * parts)


def place_of(path: str, config: PartitionConfig) -> Place | str:
    """Where the file at a path (relative to the source, POSIX) belongs, or why it belongs nowhere.

    Args:
        path: `train/...` or `test/...`, a building's folder, a file in it.
        config: folder names and patterns of file names.
    """
    *above, name = path.split("/")
    part, folders = above[0] if above else "", above[1:]
    if part not in PARTS:
        return "outside train/ and test/"
    if len(folders) == 2:
        prefix, platform = _platform_folder(folders[0], config)
        if platform is None:
            return f"folder {folders[0]!r} is none of {', '.join(config.folders)} (partition.folders)"
    elif len(folders) == 1 and _platform_folder(folders[0], config)[1] is None:
        prefix, platform = "", _flat_platform(folders[0], name, config)
        if platform is None:
            return f"file name {name!r} matches no pattern of partition.flat_patterns"
    else:
        return "not directly in a building's folder"
    building = folders[-1]
    if part == "train":
        return Place(building, platform, split_of(building, config.val_fraction), "train")
    return Place(building, platform, "test", "query" if prefix == "query_" else "gallery")


def _platform_folder(folder: str, config: PartitionConfig) -> tuple[str, Platform | None]:
    for prefix in ("query_", "gallery_", ""):
        if folder.startswith(prefix) and folder[len(prefix) :] in config.folders:
            return prefix, cast(Platform, config.folders[folder[len(prefix) :]])
    return "", None


def _flat_platform(building: str, name: str, config: PartitionConfig) -> Platform | None:
    stem = name.rpartition(".")[0] or name
    for pattern, platform in config.flat_patterns.items():
        if re.fullmatch(pattern.replace("{building}", re.escape(building)), stem, re.IGNORECASE | re.DOTALL):
            return cast(Platform, platform)
    return None


def differences(folders: Mapping[str, int], counts: Counts, config: PartitionConfig) -> list[str]:
    """How a source differs from the official table that the config names, one sentence each.

    Args:
        folders: the two folders that a path begins with, such as train/drone -> accepted images.
        counts: gives role and platform -> images, captions and region sentences accepted.
    """
    notes: list[str] = []

    def compare(where: str, what: str, found: int, official: int) -> None:
        if found != official:
            notes.append(f"{where}: {found:,} {what}, {config.official_counts} has {official:,}.")

    if config.official_counts == "university-1652":
        for folder, official in UNIVERSITY_1652.items():
            compare(folder, "images", folders.get(folder, 0), official)
    elif config.official_counts == "geotext-1652":
        accepted = {f"{role}/{platform}": numbers for (role, platform), numbers in counts().items()}
        for key, table in GEOTEXT_1652.items():
            numbers = accepted.get(key, (0, 0, 0))
            for what, found, official in zip(("images", "captions", "region sentences"), numbers, table, strict=True):
                compare(key, what, found, official)
    return notes


def gaps(found: Mapping[tuple[Split, Platform], Iterable[str]]) -> list[str]:
    """What a reader of the source should know: buildings that a platform lacks, buildings in train and in test.

    Args:
        found: the buildings of every split and platform.
    """
    buildings: dict[tuple[str, Platform], set[str]] = {}
    for (split, platform), ids in found.items():
        buildings.setdefault(("test" if split == "test" else "train", platform), set()).update(ids)
    notes = []
    whole = {part: set().union(*(ids for (p, _), ids in buildings.items() if p == part)) for part in PARTS}
    for part in PARTS:
        for platform in PLATFORMS:
            lacking = whole[part] - buildings.get((part, platform), set())
            if lacking:
                notes.append(
                    f"{part}: {len(lacking):,} of {len(whole[part]):,} buildings have no {platform} image"
                    f" ({_some(lacking)})."
                )
    if both := whole["train"] & whole["test"]:
        notes.append(f"{len(both):,} buildings are in train and in test ({_some(both)}): test scores will be too good.")
    return notes


def _some(ids: set[str]) -> str:
    shown = [name if name.isprintable() else ascii(name) for name in sorted(ids)[:5]]
    return ", ".join(shown) + (", …" if len(ids) > len(shown) else "")
