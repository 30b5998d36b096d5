import numpy as np
import pytest

from storage.dtype import FLOAT16_MAX, MAX_FLOAT16_LOSS, choose_dtype, measure_float16_loss


@pytest.mark.parametrize(
    ("max_abs", "expected"),
    [(0.0, "f2"), (8188.0, "f2"), (8189.0, "f4"), (65504.0, "f4"), (np.inf, "f4"), (np.nan, "f4")],
)
def test_float16_is_chosen_a_factor_of_eight_below_its_limit(max_abs: float, expected: str) -> None:
    assert choose_dtype(max_abs, float16_loss=0.0) == expected


def test_the_limit_is_that_of_float16() -> None:
    assert np.finfo(np.float16).max == FLOAT16_MAX


def spread_around(mean: float, *, n_layers: int = 1) -> np.ndarray:
    random = np.random.default_rng(0)
    return random.normal(size=(64, 1, n_layers, 50)).astype(np.float32) + np.float32(mean)


def test_units_that_barely_move_around_a_large_value_keep_float32() -> None:
    """The error of rounding grows with the value: half a step is 2^-12 of it at most."""
    losses = [measure_float16_loss(spread_around(mean)) for mean in (0, 4, 300, 2000)]
    assert losses == sorted(losses)
    assert losses[1] < MAX_FLOAT16_LOSS < losses[2]
    assert [choose_dtype(2000, float16_loss=loss) for loss in losses] == ["f2", "f2", "f4", "f4"]


def test_one_layer_is_enough_and_constant_units_do_not_matter() -> None:
    activations = spread_around(0, n_layers=3)
    activations[:, :, 1, :] += 300
    assert measure_float16_loss(activations) > MAX_FLOAT16_LOSS
    activations[:, :, 1, :] = 300.1
    assert measure_float16_loss(activations) < MAX_FLOAT16_LOSS


def test_values_of_half_precision_lose_nothing() -> None:
    assert measure_float16_loss(spread_around(300).astype(np.float16)) == 0
