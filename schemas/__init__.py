"""What flows between the rooms: table schemas, records, configuration, manifest, errors.

Imports nothing of ours, and nothing that a bare GPU machine lacks (pyarrow and the standard library), so that every
room, `experts/` included, may import it.
"""

__version__ = "0.1.0"
