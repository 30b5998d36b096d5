"""Predictions for people: the answer, how clear the vote was, and the neurons that voted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .search_table import add_figures, start_table

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from .early_exit.prediction import NeuronVote, Prediction

SHOWN_VOTES = 20
"""Votes that are listed of an answer; JSON has all."""


def print_prediction(
    console: Console, question: str, prediction: Prediction, *, n_layers: int, explain: bool = False
) -> None:
    """Print an answer and the vote behind it; with `explain`, the neurons that voted."""
    shares = sorted(prediction.shares.items(), key=lambda share: (share[0] != prediction.option, -share[1]))
    told = ", ".join(f"{option} {100 * share:.0f} %" for option, share in shares)
    console.print(question, style="dim", soft_wrap=True, highlight=False, markup=False)
    console.print(f"  answer  {prediction.option}", soft_wrap=True, highlight=False, markup=False)
    console.print(f"  votes   {told}", soft_wrap=True, highlight=False, markup=False)
    console.print(f"  layers  {prediction.depth} of {n_layers}", highlight=False)
    if explain:
        console.print()
        console.print(table_of_votes(prediction))


def table_of_votes(prediction: Prediction) -> Table:
    """Return one row a neuron that voted for an option, the heaviest votes first."""
    voted = [vote for vote in prediction.votes if vote.option is not None]
    voted.sort(key=lambda vote: (-vote.weight, -vote.score))
    n_silent = len(prediction.votes) - len(voted)
    table = start_table(_name_votes(voted, n_silent), "votes for", "site")
    add_figures(table, ("layer", "unit", "activation", "fires", "threshold", "weight", "probe\nscore, %"))
    for vote in voted[:SHOWN_VOTES]:
        table.add_row(
            str(vote.option),
            vote.site,
            str(vote.layer),
            str(vote.unit),
            f"{vote.activation:.4g}",
            "above" if vote.polarity > 0 else "below",
            f"{vote.threshold:.4g}",
            f"{vote.weight:.2f}",
            f"{100 * vote.score:.1f}",
        )
    return table


def _name_votes(voted: Sequence[NeuronVote], n_silent: int) -> str:
    shown = f"the {SHOWN_VOTES} heaviest of " if len(voted) > SHOWN_VOTES else ""
    silent = f"; {n_silent} did not fire" if n_silent else ""
    return f"{shown}{len(voted)} votes{silent}"
