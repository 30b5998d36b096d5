"""What a store that met no fault holds: every disturbed one must hold the same in the end."""

from __future__ import annotations

import pytest

from .attempt import Contents, attempt, contents


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Contents:
    """Return the contents of a store that was written in one go."""
    return contents(attempt(tmp_path_factory.mktemp("undisturbed") / "store"))
