from __future__ import annotations

import numpy as np
import pytest

from pipeline.report.neuron import N_EXAMPLES, choose_furthest

N_PLACES = 40
HALF = N_EXAMPLES // 2


@pytest.mark.parametrize(
    ("n_firing", "expected"),
    [(N_PLACES // 2, HALF), (1, 1), (0, 0), (N_PLACES - 1, N_EXAMPLES - 1), (N_PLACES, N_EXAMPLES)],
)
def test_half_of_the_examples_are_where_the_neuron_fires_as_far_as_there_are(n_firing: int, expected: int) -> None:
    """Although all that are silent lie further from the threshold."""
    fired = np.arange(N_PLACES) < n_firing
    distances = np.where(fired, 1.0, 9.0) + np.arange(N_PLACES) / N_PLACES
    chosen = choose_furthest(distances, np.ones(N_PLACES, dtype=bool), fired, np.arange(N_PLACES))
    assert len(chosen) == N_EXAMPLES
    firing, silent = chosen[:expected], chosen[expected:]
    assert firing == [n_firing - 1 - place for place in range(expected)]
    assert silent == [N_PLACES - 1 - place for place in range(N_EXAMPLES - expected)]


def test_examples_are_wanted_and_of_different_pictures() -> None:
    fired = np.arange(N_PLACES) % 2 == 0
    wanted = np.arange(N_PLACES) >= 8
    images = np.arange(N_PLACES) // 4
    distances = np.arange(N_PLACES, 0, -1.0)
    chosen = choose_furthest(distances, wanted, fired, images)
    assert chosen == [8, 12, 17, 21]
    assert choose_furthest(distances, wanted, fired, np.zeros(N_PLACES)) == [8]
    assert choose_furthest(distances, ~wanted, np.zeros(N_PLACES, dtype=bool), images) == [0, 4]
