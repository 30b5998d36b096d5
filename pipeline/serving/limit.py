"""Limits of what clients may send, and of how much of it is held at a time."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from typing import Self

LIMITS_VARIABLE = "SUPERNEURONS_SERVING_LIMITS"
"""Environment of Serve's proxies: the limits as JSON, as nothing else is handed to them."""

MAX_QUESTION_CHARACTERS = 8192
"""Above what any question needs; a longer one is not even tokenised, which takes seconds for some megabytes."""

OPEN_BATCHES = 4
"""Batches, the one that is computed among them, that a replica holds before further clients are sent away."""

MIN_OPEN = 128
"""Requests that it holds in any case: enough for clients that come all at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one request may hold, and how many are held.

    Attributes
    ----------
    max_upload_bytes
        Bytes of a request's body.
    max_questions
        Questions about one picture.
    max_open
        Uploads that are read or answered at a time by each replica; one more is sent away.
    upload_timeout_s
        Seconds that a body may take to arrive.
    """

    max_upload_bytes: int = 10_000_000
    max_questions: int = 64
    max_open: int = 128
    upload_timeout_s: float = 60

    def to_environment(self) -> dict[str, str]:
        """Return the variables that tell a proxy of the limits."""
        return {LIMITS_VARIABLE: json.dumps(asdict(self))}

    @classmethod
    def from_environment(cls) -> Self:
        """Return the limits that `to_environment` told, or the usual ones."""
        return cls(**json.loads(os.environ.get(LIMITS_VARIABLE, "{}")))
