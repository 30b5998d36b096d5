"""Pictures of a survey: which studies are drawn how, and what the pictures are called."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from .curve import draw_emergences, draw_matches, draw_robustness
from .heatmap import draw_above_random, draw_overlap, draw_places, draw_score_correlation, draw_transfer

if TYPE_CHECKING:
    import xarray
    from matplotlib.figure import Figure


def draw_studies(studies: Sequence[xarray.Dataset]) -> Iterator[tuple[str, Figure]]:
    """Return all pictures of `studies`, each with a name."""
    for study in studies:
        owner, kind = study.attrs["owner"], study.attrs["kind"]
        if kind == "task":
            yield f"{owner}.transfer", draw_transfer(study)
            yield f"{owner}.transfer-rethresholded", draw_transfer(study, mode="rethresholded")
            yield f"{owner}.transfer-above-random", draw_above_random(study)
        elif kind == "overlap":
            yield f"{owner}.overlap", draw_overlap(study)
            yield f"{owner}.score-correlation", draw_score_correlation(study)
            yield f"{owner}.places", draw_places(study)
        elif kind == "prompt":
            yield f"{owner}.prompt", draw_transfer(study)
        elif kind == "shift":
            yield f"{owner}.robustness", draw_robustness(study)
    by_depth = [study for study in studies if study.attrs["kind"] == "depth"]
    for owner, group in groupby(by_depth, key=lambda study: study.attrs["owner"]):
        yield f"{owner}.emergence", draw_emergences(list(group))
    if matches := [study for study in studies if study.attrs["kind"] == "match"]:
        yield "models.match", draw_matches(matches)
