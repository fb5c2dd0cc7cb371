"""From source folders to Parquet shards: readers, platform partition, shards, versions, verification, the sample world.

Imports schemas only. `data.shards` runs where there is nothing but pyarrow and the standard library, for the trainer.
"""
