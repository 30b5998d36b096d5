"""Threads that stay: starting new ones for each read costs more than a read, and their memory is cold."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Literal

Purpose = Literal["read", "flush", "commit"]


@cache
def thread_pool(purpose: Purpose, n_threads: int) -> ThreadPoolExecutor:
    """Return this process's pool of `n_threads` threads for `purpose`.

    What runs in it must not wait for other work in it; commits wait for flushes, reads and flushes for nothing.
    """
    return ThreadPoolExecutor(n_threads, thread_name_prefix=f"superneurons-{purpose}")


os.register_at_fork(after_in_child=thread_pool.cache_clear)  # threads do not survive a fork
