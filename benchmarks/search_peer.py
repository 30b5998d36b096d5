"""What the search's kernels are compared with: libraries that answer part of the same question, column by column."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from search.stump import Stumps, fit_stumps

Answer = Mapping[str, npt.NDArray[np.float64]]
"""What a contestant found of each column: some of ``score`` (balanced accuracy), ``threshold`` and ``auroc``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """The samples that all contestants see: ``activations`` float16 (sample, unit), ``labels`` (sample,) of 0 and 1."""

    activations: npt.NDArray[np.float16]
    labels: npt.NDArray[np.int16]


def make_subject(*, n_samples: int, n_units: int, n_classes: int = 2, seed: int = 0) -> Subject:
    """Return normal noise in which every fourth unit leans towards the last class."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, n_classes, size=n_samples).astype(np.int16)
    activations = random.standard_normal((n_samples, n_units), dtype=np.float32)
    activations[:, ::4] += 0.3 * (labels == n_classes - 1)[:, None]
    return Subject(activations=activations.astype(np.float16), labels=labels)


def fit_ours(subject: Subject, *, n_classes: int = 2) -> Stumps:
    """Return threshold, score, AUROC and rank statistics of every column."""
    return fit_stumps(subject.activations, subject.labels, n_classes=n_classes, metric="balanced_accuracy")


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """A contestant: ``prepare`` gives it the samples in the form that it likes best, untimed; ``fit`` is timed.

    It fits at most ``n_units`` columns, so that a round does not take minutes.
    """

    name: str
    n_units: int
    prepare: Callable[[Subject], Any]
    fit: Callable[[Any], Answer]


def fit_trees(prepared: tuple[npt.NDArray[np.float32], npt.NDArray[np.int16]]) -> Answer:
    """Fit scikit-learn's decision tree of depth 1 to each column."""
    from sklearn.tree import DecisionTreeClassifier

    columns, labels = prepared
    score, threshold = np.empty(len(columns)), np.empty(len(columns))
    for place, column in enumerate(columns):
        tree = DecisionTreeClassifier(max_depth=1, class_weight="balanced").fit(column[:, None], labels)
        threshold[place] = tree.tree_.threshold[0]
        score[place] = tree.tree_.value[1:3, 0].max(axis=1).sum() / 2 if tree.tree_.node_count == 3 else 0.5
    return {"threshold": threshold}


def fit_aurocs(prepared: tuple[npt.NDArray[np.float32], npt.NDArray[np.int16]]) -> Answer:
    """Ask scikit-learn for the AUROC of each column."""
    from sklearn.metrics import roc_auc_score

    columns, labels = prepared
    return {"auroc": np.array([roc_auc_score(labels, column) for column in columns])}


def fit_rank_sums(prepared: tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]) -> Answer:
    """Ask SciPy for all rank sums at once."""
    from scipy.stats import mannwhitneyu

    ours, others = prepared
    found = mannwhitneyu(ours, others, axis=0, method="asymptotic")
    return {"auroc": found.statistic / (len(ours) * len(others))}


def fit_illico(prepared: Any) -> Answer:
    """Ask illico for the rank sums of class 1 against class 0."""
    from illico import asymptotic_wilcoxon
    from loguru import logger

    logger.remove()
    found = asymptotic_wilcoxon(prepared, is_log1p=False, group_keys="label", reference="0", n_threads=1)
    counts = prepared.obs["label"].value_counts()
    statistic = found.xs("1", level=0)["statistic"].reindex(prepared.var_names).to_numpy()
    return {"auroc": statistic / (counts["0"] * counts["1"])}


def prepare_illico(subject: Subject) -> Any:
    """Return the samples as AnnData."""
    os.environ["TQDM_DISABLE"] = "1"  # its progress bars
    import anndata
    import pandas as pd

    labels = pd.DataFrame({"label": pd.Categorical(subject.labels.astype(str))})
    labels.index = labels.index.astype(str)
    return anndata.AnnData(X=np.asfortranarray(subject.activations, dtype=np.float32), obs=labels)


def fit_torch(prepared: tuple[Any, Any]) -> Answer:
    """Sort all columns at once, add up labels along them, and take the best cut; ties are ties."""
    import torch

    columns, labels = prepared
    values, order = torch.sort(columns, dim=1)
    positives = torch.cumsum(labels[order], dim=1, dtype=torch.int32)
    n_samples = values.shape[1]
    n_positive = int(labels.sum())
    n_negative = n_samples - n_positive
    totals = torch.arange(1, n_samples + 1, dtype=torch.int32)
    ends = torch.ones_like(values, dtype=torch.bool)
    ends[:, :-1] = values[:, 1:] != values[:, :-1]
    lean = positives.long() * n_samples - totals.long() * n_positive
    extent = torch.where(ends, lean.abs(), -1)
    extent[:, -1] = -1
    best = extent.argmax(dim=1, keepdim=True)
    low, high = values.gather(1, best).double(), values.gather(1, best + 1).double()
    score = 0.5 + extent.gather(1, best).double() / (2 * n_positive * n_negative)
    # of equal values, all have the mean of the ranks from the first to the last
    last = torch.where(ends, totals, n_samples).flip(1).cummin(dim=1).values.flip(1)
    starts = torch.ones_like(ends)
    starts[:, 1:] = ends[:, :-1]
    first = torch.where(starts, totals, 1).cummax(dim=1).values
    ranks = torch.where(labels[order].bool(), (first + last).double() / 2, 0.0).sum(dim=1)
    auroc = (ranks - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)
    threshold = (low + high) / 2
    return {"score": score[:, 0].numpy(), "threshold": threshold[:, 0].numpy(), "auroc": auroc.numpy()}


def prepare_torch(subject: Subject) -> tuple[Any, Any]:
    """Return columns float32 (unit, sample) and labels as tensors."""
    import torch

    columns = np.ascontiguousarray(subject.activations.T, dtype=np.float32)
    return torch.from_numpy(columns), torch.from_numpy(subject.labels.astype(np.int32))


def fit_variances(prepared: tuple[npt.NDArray[np.float32], npt.NDArray[np.int16]]) -> Answer:
    """Run scikit-learn's analysis of variance over all columns: it finds neither threshold nor AUROC."""
    from sklearn.feature_selection import f_classif

    f_classif(*prepared)
    return {}


def as_columns(subject: Subject) -> npt.NDArray[np.float32]:
    """Return the columns as float32, each contiguous: (unit, sample)."""
    return np.ascontiguousarray(subject.activations.T, dtype=np.float32)


def sort_rows(activations: npt.NDArray[Any]) -> Answer:
    """Sort every column of (sample, unit), as ours are given, and no more."""
    np.sort(activations, axis=0)
    return {}


def sort_columns(columns: npt.NDArray[Any]) -> Answer:
    """Sort every column of (unit, sample), and no more."""
    np.sort(columns, axis=1)
    return {}


def _with_labels(subject: Subject) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int16]]:
    return as_columns(subject), subject.labels


def _by_class(subject: Subject) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    wide = subject.activations.astype(np.float32)
    return wide[subject.labels == 1], wide[subject.labels == 0]


PEERS = (
    Peer(name="scikit-learn's stump", n_units=24, prepare=_with_labels, fit=fit_trees),
    Peer(name="scikit-learn's roc_auc_score", n_units=24, prepare=_with_labels, fit=fit_aurocs),
    Peer(name="SciPy's mannwhitneyu", n_units=256, prepare=_by_class, fit=fit_rank_sums),
    Peer(name="illico", n_units=1024, prepare=prepare_illico, fit=fit_illico),
    Peer(name="torch.sort and cumsum", n_units=256, prepare=prepare_torch, fit=fit_torch),
    Peer(
        name="np.sort, float32, same layout",
        n_units=1024,
        prepare=lambda subject: subject.activations.astype(np.float32),
        fit=sort_rows,
    ),
    Peer(name="np.sort, float32, a column after the other", n_units=1024, prepare=as_columns, fit=sort_columns),
    Peer(name="np.sort, float16", n_units=1024, prepare=lambda subject: subject.activations, fit=sort_rows),
    Peer(
        name="f_classif",
        n_units=1024,
        prepare=lambda subject: (subject.activations.astype(np.float32), subject.labels),
        fit=fit_variances,
    ),
)
