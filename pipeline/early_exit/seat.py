"""Seats: where the last tokens of a batch's open prompts are, a row's prompts side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .course import Course

if TYPE_CHECKING:
    import torch


class Seats:
    """The last tokens of the open prompts of a course: one a turn, a turn being a prompt's place in its row."""

    def __init__(self, course: Course, *, device: torch.device) -> None:
        self._course = course
        self._is_single = course.n_turns == 1
        self._rows, self._turns = course.rows.to(device), course.turns.to(device)

    def pick(self, values: torch.Tensor) -> torch.Tensor:
        """Return what `values` (row, token, ...) are at the last tokens, (row, turn, ...); 0 where no prompt is."""
        return self._lay_out(self._course.last(values), n_rows=len(values))

    def gather(self, laid: torch.Tensor) -> torch.Tensor:
        """Return the open prompts' parts of what is laid out as `pick` does it, (prompt, ...)."""
        return laid[:, 0] if self._is_single else laid[self._rows, self._turns]

    def find_seen(self, mask: torch.Tensor | None, *, n_rows: int, n_tokens: int) -> torch.Tensor | None:
        """Return what the last tokens see, (row, turn, token): as `mask` has it, or None where they see all.

        `mask` (row, 1, query, key) is what the attention is given: true where a token is seen, or something that is
        added to its score; None hides what comes after.
        """
        import torch

        if mask is not None:
            return self.pick(mask.to(self._rows.device)[:, 0].expand(n_rows, -1, -1))
        if self._course.ends_alike:  # nothing comes after
            return None
        places = torch.arange(n_tokens, device=self._rows.device)
        return places <= self._lay_out(self._course.columns.to(self._rows.device), n_rows=n_rows)[..., None]

    def _lay_out(self, values: torch.Tensor, *, n_rows: int) -> torch.Tensor:
        if self._is_single:
            return values[:, None]
        laid = values.new_zeros((n_rows, self._course.n_turns, *values.shape[1:]))
        laid[self._rows, self._turns] = values
        return laid


def hide(scores: torch.Tensor, seen: torch.Tensor | None) -> torch.Tensor:
    """Return attention `scores` (row, key head, query head of it, turn, token) without what is not `seen`.

    See `Seats.find_seen`.
    """
    import torch

    if seen is None:
        return scores
    if seen.dtype != torch.bool:
        return scores + seen[:, None, None]
    return scores.masked_fill(~seen[:, None, None], torch.finfo(scores.dtype).min)
