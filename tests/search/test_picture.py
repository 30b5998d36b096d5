"""What is drawn is what was given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from sklearn.metrics import cohen_kappa_score

from search.errors import SearchError
from search.picture import (
    draw_agreement,
    draw_emergence,
    draw_neuron,
    draw_scores,
    make_axes,
    measure_kappa,
    order_alike,
)


def legend_of(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def save(axes: Axes, folder: Path) -> None:
    """Warnings are errors: missing glyphs and layouts that do not fit are seen here."""
    axes.figure.savefig(folder / "picture.png")  # type: ignore[union-attr]
    assert (folder / "picture.png").stat().st_size > 5000


def test_scores_show_the_best_the_median_and_most_of_every_layer(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    scores = {"residual": random.random((5, 30)), "mlp": random.random((5, 70))}
    scores["mlp"][2, 3] = np.nan
    axes = draw_scores(scores, metric="balanced_accuracy", n_samples=1234, base=0.81, chance=0.6)
    marks = [np.asarray(part.get_offsets())[:, 1] for part in axes.collections if hasattr(part, "get_offsets")]
    heights = [part for part in marks if len(part) == 5]
    for score in scores.values():
        for expected in (np.nanmedian(score, axis=1), np.nanmax(score, axis=1)):
            assert any(np.allclose(part, expected) for part in heights)
    lines = {float(np.asarray(line.get_ydata())[0]) for line in axes.lines}
    assert lines == {0.81, 0.6}
    assert axes.get_ylabel() == "balanced accuracy, 1,234 probe samples"
    assert legend_of(axes) == [
        "residual: 30 units a layer",
        "mlp: 70 units a layer",
        "the model itself: 0.810",
        "above chance from 0.600",
    ]
    save(axes, tmp_path)


def test_emergence_shows_the_vote_its_interval_the_lens_and_the_base(tmp_path: Path) -> None:
    depths, accuracy, lens = range(1, 41), np.linspace(0.4, 0.9, 40), np.linspace(0.3, 0.8, 40)
    interval = (accuracy - 0.05, accuracy + 0.05)
    axes = draw_emergence(depths, accuracy, n_samples=480, interval=interval, base=0.85, lens=lens)
    drawn = {str(line.get_label()): np.asarray(line.get_ydata(), dtype=float) for line in axes.lines}
    np.testing.assert_allclose(drawn["Super Neurons of layers below"], 100 * accuracy)
    np.testing.assert_allclose(drawn["logit lens"], 100 * lens)
    np.testing.assert_allclose(drawn["the model itself: 85.0 %"], 85)
    (band,) = axes.collections
    ends = band.get_paths()[0].vertices
    assert np.asarray(ends)[:, 1].min() == pytest.approx(35) and np.asarray(ends)[:, 1].max() == pytest.approx(95)
    assert axes.get_ylabel() == "accuracy, % of 480 samples"
    assert len(axes.get_xticks()) <= 16
    save(axes, tmp_path)
    with pytest.raises(SearchError, match=r"expected an accuracy for each of 40 depths, found \(3,\)"):
        draw_emergence(depths, [0.1, 0.2, 0.3], n_samples=1)


@pytest.mark.parametrize(("polarity", "told"), [(1, " fires: bee \u2192"), (-1, "\u2190 fires: bee ")])
def test_a_neuron_shows_every_class_and_its_threshold(polarity: int, told: str, tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    labels = random.integers(0, 3, size=600)
    labels[labels == 2] = 0  # nobody is of the last class
    activations = random.normal(size=600).astype(np.float16)
    axes = draw_neuron(
        activations,
        labels,
        options=("ant", "bee", "cat"),
        threshold=0.25,
        polarity=polarity,
        name="mlp, layer 3, unit 17",
        named="bee",
    )
    counts = np.bincount(labels)
    rows = [text.get_text() for text in axes.get_yticklabels()]
    assert rows == [f"ant\nn = {counts[0]}", f"bee\nn = {counts[1]}", "cat\nn = 0"]
    assert [float(np.asarray(line.get_xdata())[0]) for line in axes.lines] == [0.25]
    drawn = [patch.get_data() for patch in axes.patches if not patch.get_fill()]  # type: ignore[attr-defined]
    for place, (heights, edges, foot) in enumerate(drawn):
        inside = np.histogram(activations[labels == place].astype(float), edges)[0]
        above = np.asarray(heights) - foot
        assert foot == 2 - place
        np.testing.assert_allclose(above * inside.sum(), inside * above.sum(), atol=1e-9)
    assert told in [text.get_text() for text in axes.texts]
    assert axes.get_title(loc="left") == "mlp, layer 3, unit 17"
    save(axes, tmp_path)


def test_ten_classes_and_a_constant_neuron_are_drawn(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    options = [f"option {place}" for place in range(10)]
    many = draw_neuron(random.normal(size=900), np.arange(900) % 10, options=options, threshold=0, polarity=1)
    assert [text.get_text() for text in many.get_yticklabels()] == [f"{option}\nn = 90" for option in options]
    save(many, tmp_path)
    save(draw_neuron(np.full(9, 3.0), np.arange(9) % 2, options=("a", "b"), threshold=3, polarity=1), tmp_path)


@pytest.mark.parametrize("n_stumps", [1, 2, 24, 256])
def test_agreement_is_kappa_with_the_like_beside_the_like(n_stumps: int, tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    truth = random.random(500) < 0.4
    fired = truth[:, None] ^ (random.random((500, n_stumps)) < np.linspace(0.05, 0.5, n_stumps))
    names = [f"mlp 1.{place}" for place in range(n_stumps)]
    axes = draw_agreement(fired, names=names, n_effective=3.21)
    kappa = measure_kappa(fired)
    for one, other in random.integers(0, n_stumps, size=(20, 2)):
        expected = 1.0 if one == other else cohen_kappa_score(fired[:, one], fired[:, other])
        assert kappa[one, other] == pytest.approx(expected, abs=1e-12)
    order = order_alike(kappa)
    assert sorted(order.tolist()) == list(range(n_stumps))
    np.testing.assert_array_equal(np.asarray(axes.images[0].get_array()), kappa[np.ix_(order, order)])
    written = [text.get_text() for text in axes.get_yticklabels()]
    assert (written == [names[place] for place in order]) == (n_stumps <= 32)
    assert axes.get_title() == f"{n_stumps} stumps, worth 3.2 independent ones; n = 500"
    save(axes, tmp_path)


def test_stumps_that_never_change_are_no_error() -> None:
    fired = np.array([[1, 1, 0, 1], [1, 1, 0, 0]], dtype=bool)
    kappa = measure_kappa(fired)
    assert kappa[0, 1] == 1.0 and kappa[0, 2] == 0.0 and np.isfinite(kappa).all()


def test_axes_that_are_given_are_drawn_into() -> None:
    axes: Any = make_axes()
    assert draw_emergence([1, 2], [0.5, 0.6], n_samples=9, ax=axes) is axes
    assert draw_neuron([0.0, 1.0], [0, 1], options=("a", "b"), threshold=0.5, polarity=1, ax=axes) is axes
