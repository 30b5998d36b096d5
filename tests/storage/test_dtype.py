import numpy as np
import pytest

from storage.dtype import FLOAT16_MAX, choose_dtype


@pytest.mark.parametrize(
    ("max_abs", "expected"),
    [(0.0, "f2"), (8188.0, "f2"), (8189.0, "f4"), (65504.0, "f4"), (np.inf, "f4"), (np.nan, "f4")],
)
def test_float16_is_chosen_a_factor_of_eight_below_its_limit(max_abs: float, expected: str) -> None:
    assert choose_dtype(max_abs) == expected


def test_the_limit_is_that_of_float16() -> None:
    assert np.finfo(np.float16).max == FLOAT16_MAX
