"""The pyarrow schema of every table in a data set version.

`split` and `platform` stand in the Hive path and, as dictionary<int32, string>, in the files: that is the type pyarrow
and pandas infer from the path, so both agree. The metadata key `huggingface` makes `datasets` decode the image column.
"""

import json

import pyarrow as pa

from schemas.records import Table

CATEGORY = pa.dictionary(pa.int32(), pa.string())

EDIT = pa.struct(
    [
        pa.field("start", pa.int32(), nullable=False),
        pa.field("end", pa.int32(), nullable=False),
        pa.field("old", pa.string(), nullable=False),
        pa.field("new", pa.string(), nullable=False),
    ]
)

GATE = pa.struct(
    [
        pa.field("gate", pa.string(), nullable=False),
        pa.field("passed", pa.bool_(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
    ]
)

IMAGES = pa.schema(
    [
        ("image_id", pa.string()),  # path relative to the source, POSIX; an augmented tile appends "~aug<variant>"
        ("building_id", pa.string()),  # name of the building's folder
        ("platform", CATEGORY),
        ("split", CATEGORY),
        ("role", pa.string()),  # train | query | gallery
        ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),  # original bytes, not re-encoded
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("sha256", pa.string()),  # of the bytes, hexadecimal
        ("parent_image_id", pa.string()),  # null for originals
        ("transform", pa.string()),  # null, or the exact parameters of the augmentation as JSON
    ],
    metadata={"huggingface": json.dumps({"info": {"features": {"image": {"_type": "Image"}}}})},
)

CAPTIONS = pa.schema(
    [
        ("caption_id", pa.string()),  # image_id#ordinal in source order
        ("image_id", pa.string()),
        ("building_id", pa.string()),
        ("platform", CATEGORY),
        ("split", CATEGORY),
        ("raw", pa.string()),
        ("edits", pa.list_(EDIT)),  # applied to raw they give stripped exactly
        ("stripped", pa.string()),
        ("refined", pa.string()),
        ("queries", pa.list_(pa.string())),
        ("final", pa.string()),  # what training reads
        ("status", pa.string()),  # refined | fallback | kept | empty | edited | rejected
        ("gates", pa.list_(GATE)),
        ("refiner", pa.string()),
        ("prompt_version", pa.string()),
        ("reply_key", pa.string()),
        ("reply", pa.string()),
    ]
)

REGIONS = pa.schema(
    [
        ("region_id", pa.string()),  # image_id@ordinal in source order
        ("image_id", pa.string()),
        ("building_id", pa.string()),
        ("platform", CATEGORY),
        ("split", CATEGORY),
        ("sentence", pa.string()),
        ("stripped", pa.string()),
        ("bbox", pa.list_(pa.float32(), 4)),  # cx, cy, w, h in 0..1
    ]
)

REJECTS = pa.schema(
    [
        ("table", pa.string()),  # images | captions | regions
        ("source", pa.string()),  # annotation file or image path, relative to the source
        ("row", pa.int64()),  # 0-based record in the annotation file; 0 for an image file
        ("field", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)

SCHEMAS: dict[Table, pa.Schema] = {"images": IMAGES, "captions": CAPTIONS, "regions": REGIONS}
