"""One optimizer step, and how its size goes over a stage."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn


class Descent:
    """AdamW whose rates warm up over 5 % of the steps, then fall to zero along a cosine; gradients are clipped.

    Each group of parameters has a rate of its own.
    """

    def __init__(self, *groups: tuple[Iterable[nn.Parameter], float], n_steps: int) -> None:
        wanted = [{"params": list(parameters), "peak": rate, "lr": rate} for parameters, rate in groups]
        self._optimizer = torch.optim.AdamW(wanted, weight_decay=0.05, betas=(0.9, 0.98))
        self._n_steps = n_steps

    def step(self, number: int, loss: torch.Tensor) -> None:
        """Take step `number` of the stage down `loss`."""
        for group in self._optimizer.param_groups:
            group["lr"] = group["peak"] * self._factor(number)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_([p for group in self._optimizer.param_groups for p in group["params"]], 1.0)
        self._optimizer.step()

    def _factor(self, number: int) -> float:
        warm = max(1, self._n_steps // 20)
        if number < warm:
            return (number + 1) / warm
        return 0.5 * (1 + math.cos(math.pi * (number - warm) / max(1, self._n_steps - warm)))

    def state_dict(self) -> dict[str, object]:
        """Return what `load_state_dict` goes on from."""
        return self._optimizer.state_dict()

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Go on where another was."""
        self._optimizer.load_state_dict(state)
