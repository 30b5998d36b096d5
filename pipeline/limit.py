"""Limits of what may be asked for."""

MAX_BLOCK = 2**20
"""Samples of a block: more than a memory holds, and less than an array refuses."""

MAX_TOKENS = 4096
"""Tokens of an answer that are recorded."""
