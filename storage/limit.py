"""What a reader refuses: limits far above any real dataset, so that no small file can ask for a large memory.

The largest run in mind has 10^6 samples x 614,400 units in blocks of 512 to 1,024; a hub takes 100,000 files of a
dataset. A writer keeps to the same limits, so that whatever it writes can be read.
"""

from __future__ import annotations

MAX_DOCUMENT_BYTES = 2**26
"""Of one ``zarr.json``. The root's copy takes about 20 kB a run: this is the one of 3,000 runs."""

MAX_MANIFEST_BYTES = 2**28
"""Of a publisher's list of digests: a line of about 130 bytes for each of two million objects."""

MAX_DOCUMENT_VALUES = 2**22
"""In one document, counted by its commas and brackets: each may take 100 bytes of memory, and two of the document."""

MAX_DOCUMENT_DEPTH = 64
"""How deep objects and lists may lie in each other; those of the format lie ten deep."""

MAX_NAME_CHARACTERS = 128
"""Of an array or a dimension."""

MAX_KEY_CHARACTERS = 1024
"""Of an object's key: what S3 takes."""

MAX_SAMPLES = 2**27
"""Of a run: 134 times the largest."""

MAX_BLOCK = 2**20
"""Samples of a block."""

MAX_BLOCKS = 2**17
"""Of a run: 65 times the largest. All of them are listed when it is opened."""

MAX_PARTS = 2**10
"""Of a run. They are read one after the other when it is opened, and a web server may have an answer for each."""

MAX_LEDGER_ENTRIES = 2**13
"""That are asked for one after the other where they cannot be listed."""

MAX_ARRAYS = 256
"""Of a run or a folder of results; a run has two dozen at most."""

MAX_DIMENSIONS = 8
"""Of an array: a run's have four at most."""

MAX_EXTENT = 2**40
"""Of a dimension; its chunks are limited further."""

MAX_LABELS = 2**20
"""Along a dimension that has labels."""

MAX_BLOCK_CHUNKS = 2**16
"""Chunks of one array in one block: 50 times the largest. Their index takes a megabyte."""

MAX_RUN_SHARDS = 2**23
"""Shards of a run, in all blocks and arrays: 14 times the largest."""

MAX_CELLS = 2**20
"""Of an array of results."""

MAX_CHUNK_BYTES = 2**30
"""Of a chunk's values: 512 units of 1,024 samples take two megabytes a token."""

MAX_SHARD_BYTES = 2**33
"""Of a shard's values: 50,000 units of 1,024 samples take 200 MB a token."""

MAX_TEXT_BYTES = 2**28
"""Of the texts of one chunk: 1,024 questions of 256 kB."""

MAX_OBJECT_BYTES = 2**34
"""Of any object that a server sends whole, where nothing closer is known."""
