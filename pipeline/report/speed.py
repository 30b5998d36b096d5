"""How fast early exits are: computed from a model's configuration, or measured where the model is here."""

from __future__ import annotations

import gc
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from search.classifier_file import PortableClassifier, make_portable
from search.searched_run import SearchedRun
from storage import Run

from ..model import BUILTIN_MODELS
from .content import DepthFigures, ExitFigures, SpeedFigures

if TYPE_CHECKING:
    from ..inference.encoding import Encoded
    from ..planning.architecture import ModelSize
    from ..sample import Sample

N_ROUNDS = 7
N_QUESTIONS = 8
"""Questions that are timed, one by one, each about a picture of its own."""

COMPUTED = (
    "Computed from the model's configuration, not measured: operations of the language model for the first token of a "
    "prompt of {n_tokens} tokens, the vision tower, which runs whole either way, left aside."
)
UNKNOWN = "The model's configuration is not here, so that only layers are counted; nothing was measured."


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """Seconds a question, a figure a round: of an exit, and of the full model in the same round."""

    exit_s: Sequence[float]
    full_s: Sequence[float]


def compute_speed(run: Run, depth: DepthFigures) -> SpeedFigures:
    """Return the share of layers and of operations that each exit depth of a run needs; nothing is timed."""
    model, _, task = run.name.partition("/")
    size = find_size(str(run.identity.get("model_id", "")))
    n_tokens = (
        int(np.median(run.read_samples("n_tokens")[run.read_samples("valid")])) if run.has_array("n_tokens") else 0
    )
    n_layers, line = len(depth.depths), depth.lines[0]
    known = size is not None and size.n_layers == n_layers and n_tokens > 0
    exits = tuple(
        ExitFigures(
            depth=number,
            layers_fraction=number / n_layers,
            operations_fraction=_find_share(size, number, n_tokens) if size is not None and known else None,
            accuracy=line.values[place],
            low=line.low[place],
            high=line.high[place],
        )
        for place, number in enumerate(depth.depths)
    )
    how = COMPUTED.format(n_tokens=n_tokens) if known else UNKNOWN
    return SpeedFigures(model=model, task=task, n=depth.n, n_layers=n_layers, n_tokens=n_tokens, exits=exits, how=how)


@cache
def find_size(model_id: str) -> ModelSize | None:
    """Return how much there is of a model, of a built-in or a published configuration; None without one."""
    from ..planning.architecture import PUBLISHED, find_architecture

    published = PUBLISHED / model_id.replace("/", "--")
    if model_id in BUILTIN_MODELS:
        return find_architecture(model_id).size
    if model_id and published.parent == PUBLISHED and (published / "config.json").is_file():
        return find_architecture(str(published)).size
    return None


def _find_share(size: ModelSize, depth: int, n_tokens: int) -> float:
    """Return the operations of an exit over those of the whole language model, for the first token.

    Of the last layer, keys and values are computed for all tokens and the rest for the last one alone.
    """
    n_weights, n_pairs = size.n_block / size.n_layers, n_tokens**2
    layer = 2 * n_weights * n_tokens + 4 * size.n_attention * n_pairs
    last = 2 * size.n_residual * size.n_cached * (n_tokens - 1) + 2 * n_weights + 4 * size.n_attention * n_tokens
    return float(((depth - 1) * layer + last) / (size.n_layers * layer + 2 * size.n_head))


def is_local(run: Run) -> bool:
    """Return whether the model of a run can be loaded without asking anyone: built-in, or a folder of its name."""
    model_id = str(run.identity.get("model_id", ""))
    is_folder = bool(model_id) and "/" not in model_id and (Path(model_id) / "config.json").is_file()
    return model_id in BUILTIN_MODELS or is_folder


def measure_speed(searched: SearchedRun, computed: SpeedFigures, samples: Sequence[Sample]) -> SpeedFigures:
    """Return `computed` with what exits at some depths take, beside the full model's first answer token.

    Both start from processed pictures and token ids, one question after the other. Rounds alternate their order; a
    ratio is taken within each round, the median is told with its range.

    Raises
    ------
    ClassifierError
        If the model is not the one that the run was extracted from.
    """
    import torch

    found = searched.select_depths()
    depths = [depth for depth in _choose_depths(len(found)) if len(found[depth - 1])]
    portables = {depth: make_portable(found[depth - 1], searched.scan, searched.selection) for depth in depths}
    times = _time_exits(portables, samples)
    exits = tuple(
        _add_times(one, times[one.depth]) if one.depth in times else one
        for one in computed.exits
        if one.depth in portables
    )
    how = (
        f"Measured {datetime.now(UTC):%Y-%m-%d} on {_name_machine()}, float32, threads: {torch.get_num_threads()}, "
        f"{N_ROUNDS} rounds: from processed pictures and token ids to the answer, one by one; median and range."
    )
    return replace(computed, exits=exits, how=how, is_measured=True, n_measured=len(samples))


def _choose_depths(n_layers: int) -> list[int]:
    """Return the depths that are timed: the first two, a quarter, half, and all layers."""
    return sorted({1, min(2, n_layers), max(1, n_layers // 4), max(1, n_layers // 2), n_layers})


def _add_times(one: ExitFigures, times: Times) -> ExitFigures:
    ratios = [full / short for full, short in zip(times.full_s, times.exit_s, strict=True)]
    return replace(
        one,
        ratio=statistics.median(ratios),
        ratio_min=min(ratios),
        ratio_max=max(ratios),
        exit_s=statistics.median(times.exit_s),
        full_s=statistics.median(times.full_s),
    )


def _time_exits(portables: dict[int, PortableClassifier], samples: Sequence[Sample]) -> dict[int, Times]:
    from ..early_exit import EarlyExitClassifier

    contestants: dict[int, list[Callable[[], Any]]] = {}
    for depth, portable in portables.items():
        classifier = EarlyExitClassifier.load(portable, weights_dtype="float32")
        contestants[depth] = [partial(classifier.predict_encoded, classifier.encode([sample])) for sample in samples]
    full = _load_full(next(iter(portables.values())), samples)
    rounds = _run_rounds({0: full, **contestants})
    return {depth: Times(exit_s=rounds[depth], full_s=rounds[0]) for depth in contestants}


def _load_full(portable: PortableClassifier, samples: Sequence[Sample]) -> list[Callable[[], Any]]:
    """Return what finds the first token of the whole model's answer to each sample, as transformers computes it."""
    from ..early_exit.identity import find_classifier_model, find_prompt
    from ..inference.encoding import Encoder
    from ..model import load_family, load_model, load_processor

    source = find_classifier_model(portable)
    model = load_model(source, weights_dtype="float32")
    encoder = Encoder(model, load_family(source), load_processor(source), template=find_prompt(portable))
    return [partial(find_first_token, model, encoder.encode([sample], [0])) for sample in samples]


def find_first_token(model: Any, encoded: Encoded) -> int:
    """Return the first token of a model's answer to one encoded sample."""
    import torch

    prompt = encoded.groups[0][0]
    positions = prompt.positions[:, None]
    pictures = encoded.pictures[prompt.picture].tensors if prompt.picture is not None else {}
    with torch.inference_mode():
        logits = model(
            input_ids=prompt.token_ids[None],
            attention_mask=torch.ones_like(prompt.token_ids)[None],
            position_ids=positions[0] if len(positions) == 1 else positions,
            use_cache=False,
            logits_to_keep=1,
            **pictures,
        ).logits
    return int(logits[0, -1].argmax())


def _run_rounds(contestants: dict[int, list[Callable[[], Any]]]) -> dict[int, list[float]]:
    """Return seconds a question of every contestant, a figure a round, after one round that is not timed."""
    figures: dict[int, list[float]] = {name: [] for name in contestants}
    for number in range(-1, N_ROUNDS):
        order = list(contestants) if number % 2 == 0 else list(contestants)[::-1]
        for name in order:
            gc.collect()
            start = time.perf_counter()
            for answer in contestants[name]:
                answer()
            if number >= 0:
                figures[name].append((time.perf_counter() - start) / len(contestants[name]))
    return figures


def _name_machine() -> str:
    """Return what computes: the processor's model where the system tells it, and how many there are."""
    cpus = Path("/proc/cpuinfo")
    lines = cpus.read_text(errors="replace").splitlines() if cpus.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(names, platform.machine())} ({os.cpu_count()} processors)"
