"""What can go wrong in a search."""

from __future__ import annotations


class SearchError(Exception):
    """A run that cannot be searched: a split without samples, values that are not finite, an unknown metric."""
