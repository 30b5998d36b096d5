"""Compilation with numba, kept between processes in a folder of the user's own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba


def compiled(*, sums_of_whole_numbers: bool = False) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that compiles a function on its first call with each set of types, and releases the GIL.

    `sums_of_whole_numbers` says that its floats are whole and their sums exact in any order, so that they may be added
    several at a time; nor may they be NaN or infinite.

    Notes
    -----
    What is compiled is kept where ``NUMBA_CACHE_DIR`` says, or else in ``superneurons`` below ``XDG_CACHE_HOME``; where
    neither can be written, each process compiles anew. numba's own choice is ``__pycache__`` beside the source: pip
    leaves what it did not put there, and a folder of the package's name that is left in site-packages is taken for the
    package once this is installed in development mode.
    """
    fastmath = {"nnan", "ninf", "nsz", "reassoc", "contract"} if sums_of_whole_numbers else False

    def compile_function(function: Callable[..., Any]) -> Callable[..., Any]:
        folder = _find_cache_folder()
        before = numba.config.CACHE_DIR
        numba.config.CACHE_DIR = str(folder or before)
        try:
            made: Callable[..., Any] = numba.njit(nogil=True, cache=folder is not None, fastmath=fastmath)(function)
        finally:
            numba.config.CACHE_DIR = before
        return made

    return compile_function


def _find_cache_folder() -> Path | None:
    """Return a folder that can be written, made if need be, or None."""
    own = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "superneurons"
    try:
        folder = Path(numba.config.CACHE_DIR or own).expanduser()
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # no such place, or no home
        return None
    return folder if os.access(folder, os.W_OK) else None
