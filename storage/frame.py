"""Compressed frames: how much they say they hold, asked before a decoder sets memory aside for it.

References
----------
RFC 8878, section 3.1.1 (Zstandard); README_CHUNK_FORMAT.rst of c-blosc 1 (Blosc).
"""

from __future__ import annotations

from typing import Any

import numcodecs

from .backend import BytesLike

ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
BLOSC_HEADER_BYTES = 16
BLOSC_VERSION = 2
BLOSC_CODECS = {"lz4": 1, "zstd": 4}
"""Numbers of the codecs within a Blosc frame that this format uses."""

MEMCPYED = 0x02
"""Flag of a Blosc frame whose content is not compressed."""


def read_zstd_size(frame: memoryview) -> int:
    """Return how many bytes the header of a Zstandard frame declares.

    Raises
    ------
    ValueError
        If it is no such frame, or declares nothing.
    """
    if bytes(frame[:4]) != ZSTD_MAGIC or len(frame) < 6:
        raise ValueError("something else than a Zstandard frame")
    descriptor = frame[4]
    single, dictionary = bool(descriptor & 0x20), (0, 1, 2, 4)[descriptor & 3]
    size_bytes = (1 if single else 0, 2, 4, 8)[descriptor >> 6]
    if size_bytes == 0 or dictionary:
        raise ValueError("a Zstandard frame that does not tell the size of its content, or needs a dictionary")
    start = 5 + (0 if single else 1)
    declared = int.from_bytes(frame[start : start + size_bytes], "little")
    return declared + 256 if size_bytes == 2 else declared


def read_blosc_size(frame: memoryview, codec: str) -> int:
    """Return how many bytes the header of a Blosc frame declares.

    Raises
    ------
    ValueError
        If it is no such frame, is cut, or holds anything but frames of `codec`.
    """
    if len(frame) < BLOSC_HEADER_BYTES or frame[0] != BLOSC_VERSION:
        raise ValueError("something else than a Blosc frame")
    n_bytes, block_bytes, all_bytes = (int.from_bytes(frame[at : at + 4], "little") for at in (4, 8, 12))
    if all_bytes != len(frame) or block_bytes > max(1, n_bytes):
        raise ValueError(f"a Blosc frame of {all_bytes} bytes in blocks of {block_bytes} in {len(frame)} bytes")
    if not frame[2] & MEMCPYED and frame[2] >> 5 != BLOSC_CODECS.get(codec):
        raise ValueError(f"a Blosc frame of codec {frame[2] >> 5} instead of {codec}")
    return n_bytes


def read_size(packer: Any, frame: BytesLike) -> int:
    """Return how many bytes a frame that `packer` should decode declares.

    Raises
    ------
    ValueError
        If it is none.
    """
    view = memoryview(frame)
    return read_blosc_size(view, packer.cname) if isinstance(packer, numcodecs.Blosc) else read_zstd_size(view)
