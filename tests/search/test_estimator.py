from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from search.estimator import SuperNeuronClassifier
from search.stump import METRICS, RULES
from search.vote import VOTES

Arrays = tuple[npt.NDArray[np.float64], npt.NDArray[Any]]


@parametrize_with_checks(
    [
        SuperNeuronClassifier(),
        SuperNeuronClassifier(rule="midpoint", vote="log_odds", max_q=None, n_neurons=5, metric="mcc"),
    ]
)
def test_it_is_a_scikit_learn_classifier(estimator: Any, check: Any) -> None:
    check(estimator)


def make_planted(n_classes: int, *, n_samples: int = 400, seed: int = 0) -> Arrays:
    """Return noise of 300 columns in which columns 10 * label and the two after it are higher for that label."""
    random = np.random.default_rng(seed)
    names = np.array(["ant", "bee", "cat", "dog"])[:n_classes]
    labels = random.integers(0, n_classes, size=n_samples)
    activations = random.normal(size=(n_samples, 300))
    for column in range(3):
        activations[np.arange(n_samples), 10 * labels + column] += 4
    return activations, names[labels]


@pytest.mark.parametrize("n_classes", [2, 3, 4])
@pytest.mark.parametrize("vote", VOTES)
@pytest.mark.parametrize("rule", RULES)
def test_planted_neurons_are_found_and_answer(n_classes: int, vote: str, rule: str) -> None:
    (train, labels), (test, answers) = make_planted(n_classes), make_planted(n_classes, seed=1)
    model = SuperNeuronClassifier(vote=vote, rule=rule, max_q=1e-5).fit(train, labels)
    # at zero, half of the noise fires: three neurons of another class together one time in eight
    assert (model.predict(test) == answers).mean() > (0.75 if rule == "zero" else 0.93)
    planted = {10 * label + column for label in range(n_classes) for column in range(3)}
    assert {int(column) for order in model.neurons_ for column in order} <= planted
    assert model.n_neurons_ == max(map(len, model.neurons_))
    q_value = model.q_values_
    assert q_value.shape == model.scores_.shape == (1 if n_classes == 2 else n_classes, 300)
    assert all((q_value[row, order] <= 1e-5).all() for row, order in enumerate(model.neurons_))


@pytest.mark.parametrize("metric", METRICS)
def test_a_vote_by_hand_is_the_same(metric: str) -> None:
    train, labels = make_planted(3)
    test, _ = make_planted(3, seed=2)
    model = SuperNeuronClassifier(metric=metric, n_neurons=3).fit(train, labels)
    share = np.stack(
        [
            (polarity * (test[:, order].astype(np.float32) - threshold) > 0).mean(axis=1)
            for order, threshold, polarity in zip(model.neurons_, model.thresholds_, model.polarities_, strict=True)
        ],
        axis=1,
    )
    clear = np.sort(share, axis=1)[:, -1] > np.sort(share, axis=1)[:, -2]
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(model.predict(test)[clear], model.classes_[share.argmax(axis=1)][clear])
    shares = model.predict_proba(test)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-12)
    np.testing.assert_array_equal(model.classes_[shares.argmax(axis=1)], model.predict(test))


def test_noise_has_no_neuron_above_chance_but_an_answer_all_the_same() -> None:
    random = np.random.default_rng(3)
    train, labels = random.normal(size=(200, 500)), random.integers(0, 2, size=200)
    model = SuperNeuronClassifier().fit(train, labels)
    assert model.q_values_.min() > 0.05 and model.n_neurons_ == 1
    careless = SuperNeuronClassifier(max_q=None, n_neurons=1).fit(train, labels)
    assert careless.score(train, labels) > 0.6  # what chance alone gives


def test_it_works_in_pipelines_searches_and_cross_validation_by_groups() -> None:
    activations, labels = make_planted(3)
    images = np.arange(len(labels)) // 4
    model = make_pipeline(StandardScaler(), SuperNeuronClassifier())
    scores = cross_val_score(model, activations, labels, groups=images, cv=GroupKFold(4))
    assert scores.min() > 0.9
    grid = {"n_neurons": [1, 3], "rule": ["optimal", "midpoint"]}
    search = GridSearchCV(SuperNeuronClassifier(), grid, cv=GroupKFold(3))
    search.fit(activations, labels, groups=images)
    assert search.best_params_["n_neurons"] == 3 and search.best_score_ > 0.95


def test_groups_are_not_divided_by_the_inner_split(monkeypatch: pytest.MonkeyPatch) -> None:
    activations, labels = make_planted(2)
    images = np.arange(len(labels)) // 5
    seen = []
    choose = SuperNeuronClassifier._choose_count

    def note(self: Any, columns: Any, labels: Any, fitted: Any, held: Any) -> int:
        seen.append((fitted, held))
        return choose(self, columns, labels, fitted, held)

    monkeypatch.setattr(SuperNeuronClassifier, "_choose_count", note)
    SuperNeuronClassifier(random_state=1).fit(activations, labels, groups=images)
    ((fitted, held),) = seen
    assert not set(images[fitted]) & set(images[held])
    assert len(held) == pytest.approx(0.25 * len(labels), abs=15)


def test_copies_and_repetitions_answer_the_same() -> None:
    activations, labels = make_planted(3)
    model = SuperNeuronClassifier().fit(activations, labels)
    for other in (pickle.loads(pickle.dumps(model)), clone(model).fit(activations, labels)):
        np.testing.assert_array_equal(other.predict_proba(activations), model.predict_proba(activations))
    order = np.random.default_rng(0).permutation(len(labels))
    fixed = SuperNeuronClassifier(n_neurons=7)
    shuffled = clone(fixed).fit(activations[order], labels[order])
    np.testing.assert_array_equal(fixed.fit(activations, labels).scores_, shuffled.scores_)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"rule": "median"}, "rule 'median': expected one of zero"),
        ({"metric": "luck"}, "metric 'luck': expected one of accuracy"),
        ({"vote": "plurality"}, "vote 'plurality': expected one of majority"),
        ({"correction": "none"}, "correction 'none': expected one of bh"),
        ({"n_neurons": 0}, "n_neurons: expected 'auto' or at least 1, found 0"),
        ({"n_neurons": "many"}, "n_neurons: expected 'auto' or at least 1, found 'many'"),
        ({"validation_fraction": 1.0}, "validation_fraction: expected more than 0 and less than 1, found 1.0"),
    ],
)
def test_parameters_that_are_none_are_named(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        SuperNeuronClassifier(**options).fit(*make_planted(2))


def test_values_past_float32_are_refused() -> None:
    activations, labels = make_planted(2)
    activations[7, 3] = 1e300
    with pytest.raises(ValueError, match=r"X: expected values that float32 can hold, found 1e\+300; scale them"):
        SuperNeuronClassifier().fit(activations, labels)
