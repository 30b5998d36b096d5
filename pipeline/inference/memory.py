"""Memory that runs out: what says so, and doing the same work in smaller pieces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of PyTorch or Python says that memory ran out, on a GPU or on the host."""
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "not enough memory" in str(error).replace("can't allocate", "not enough")


def halve_on_shortage(
    pieces: Sequence[T], run: Callable[[Sequence[T]], None], give_up: Callable[[T], Sequence[T]]
) -> int | None:
    """Return the size of the parts that were done after memory ran out, None where it did not.

    `run` does all `pieces` at once, or in halves, and these in halves, as long as memory runs out. A piece that is too
    much by itself goes to `give_up`, which may return smaller ones.
    """
    import torch

    try:
        run(pieces)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    else:
        return None
    # outside of the handler, whose traceback holds the tensors that filled the memory
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    middle = len(pieces) // 2
    parts = [pieces[:middle], pieces[middle:]] if middle else [[piece] for piece in give_up(pieces[0])]
    return min((halve_on_shortage(part, run, give_up) or len(part) for part in parts), default=1)
