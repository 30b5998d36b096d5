"""The course of a batch: which of its prompts are still open while the layers go by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..inference.packing import Batch

if TYPE_CHECKING:
    import torch


class Course:
    """The prompts of one batch that no vote has decided yet, and the rows that they are in.

    Attributes
    ----------
    n_open
        Prompts that are open.
    prompts
        By their place in the batch, int64 (prompt,).
    rows, columns, turns
        Of each open prompt: its row among the open rows, where its last token is, and its place among the prompts of
        its row in the batch, int64 (prompt,).
    n_turns
        Prompts of a row, at most.
    ends_alike
        Whether every row is one prompt, and as long as the others, so that all last tokens are at the end.
    """

    def __init__(self, batch: Batch) -> None:
        import torch

        self._batch = batch
        self._n_rows = len(batch.token_ids)
        self._open_rows: torch.Tensor | None = None
        self.n_open = len(batch.prompts)
        self.prompts = torch.arange(self.n_open, device=batch.rows.device)
        self.rows, self.columns, self.turns = batch.rows, batch.columns, batch.turns
        lengths = {len(prompt.token_ids) for prompt in batch.prompts}
        self.ends_alike = self.n_open == self._n_rows and lengths == {batch.token_ids.shape[1]}
        self.n_turns = 1 if self.ends_alike else int(batch.turns.max()) + 1

    @property
    def is_over(self) -> bool:
        """Whether no prompt is open."""
        return self.n_open == 0

    def close(self, decided: npt.NDArray[np.bool_]) -> None:
        """Close those of the open prompts that are `decided`, bool (prompt,)."""
        import torch

        n_decided = int(np.count_nonzero(decided))
        if n_decided == 0:
            return
        self.n_open -= n_decided
        if self.is_over:  # nothing is asked of it any more
            return
        self.prompts = self.prompts[torch.from_numpy(~decided).to(self.prompts.device)]
        rows = self._batch.rows[self.prompts]
        open_rows, self.rows = torch.unique(rows, return_inverse=True)
        self._open_rows = None if len(open_rows) == self._n_rows else open_rows
        self.columns, self.turns = self._batch.columns[self.prompts], self._batch.turns[self.prompts]

    def last(self, values: torch.Tensor) -> torch.Tensor:
        """Return what `values` (open row, token, ...) are at the open prompts' last tokens, (prompt, ...)."""
        if self.ends_alike:
            return values[:, -1]
        return values[self.rows.to(values.device), self.columns.to(values.device)]

    def copy_last(self, values: torch.Tensor) -> torch.Tensor:
        """Return a copy of the same, which does not hold the whole of `values` in memory."""
        import torch

        return torch.select_copy(values, 1, -1) if self.ends_alike else self.last(values)

    def take(self, value: Any) -> Any:
        """Return what a block is given for all rows of the batch, cut to the open rows."""
        import torch

        if self._open_rows is None:
            return value
        if isinstance(value, tuple):
            return tuple(self.take(part) for part in value)
        if isinstance(value, Mapping):
            return {name: self.take(part) for name, part in value.items()}
        if isinstance(value, torch.Tensor) and value.dim() > 0 and len(value) == self._n_rows:
            return value[self._open_rows.to(value.device)]
        return value

    def put(self, states: torch.Tensor, computed: torch.Tensor) -> torch.Tensor:
        """Return the batch's `states` (row, token, unit), those of the open rows being what was `computed`."""
        if self._open_rows is None:
            return computed
        return states.to(computed.device).index_copy(0, self._open_rows.to(computed.device), computed)
