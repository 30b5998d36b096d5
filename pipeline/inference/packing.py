"""Rows: prompts that share a picture side by side in one sequence, so that what they share is computed once.

A row is the tokens that its prompts share, followed by each prompt's own. A token sees the shared ones and those of its
own prompt that came before it, at the positions that they would have alone: every prompt gets the activations of a pass
of its own. Compared with a key/value cache of the shared part there is nothing to expand or copy, and one pass instead
of two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

SHARED, PADDING = 0, -1
"""Segments of a token; a row's prompts are counted from 1."""

MAX_OWN_TOKENS = 1024
"""Tokens that the prompts of a row may have besides the shared ones. Each also passes by those of the others, which it
does not see: rows of many prompts would spend more on that than sharing saves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A prompt as the model reads it.

    ``sample`` is its place in the block, ``token_ids`` (token) int64, ``positions`` (axis, token) int64, ``blocks``
    (token) int64 or None as in `pipeline.family.Family.attention_blocks`, and ``picture`` the place of its pictures in
    the block's list, None without any.
    """

    sample: int
    token_ids: torch.Tensor
    positions: torch.Tensor
    blocks: torch.Tensor | None
    picture: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Prompts of one sequence, the first ``n_shared`` tokens of which are the same in all."""

    prompts: tuple[Prompt, ...]
    n_shared: int

    def __len__(self) -> int:
        return self.n_shared + sum(len(prompt.token_ids) - self.n_shared for prompt in self.prompts)

    def halves(self) -> tuple[Row, Row]:
        """Return two rows of half the prompts each."""
        middle = len(self.prompts) // 2
        return (
            Row(prompts=self.prompts[:middle], n_shared=self.n_shared),
            Row(prompts=self.prompts[middle:], n_shared=self.n_shared),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What decides which tokens see each other: three tensors of shape (row, token), int64.

    ``segment`` is whose token it is, ``offset`` its place in its own prompt, ``block`` as in `Prompt`, or None.
    """

    segment: torch.Tensor
    offset: torch.Tensor
    block: torch.Tensor | None

    def append(self, other: Tokens) -> Tokens:
        """Return these tokens followed by `other`, which are in no block."""
        import torch

        return Tokens(
            segment=torch.cat([self.segment, other.segment], dim=1),
            offset=torch.cat([self.offset, other.offset], dim=1),
            block=None
            if self.block is None
            else torch.nn.functional.pad(self.block, (0, other.offset.shape[1]), value=-1),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Rows padded to one length on the right.

    ``token_ids`` (row, token) and ``position_ids`` (axis, row, token) int64; ``pictures`` as in `Prompt`, of each row.
    Of each prompt, in the order of the rows: ``prompts``; ``rows`` and ``columns``, where its last token is; ``turns``,
    its place among the prompts of its row.
    """

    token_ids: torch.Tensor
    position_ids: torch.Tensor
    tokens: Tokens
    pictures: tuple[int | None, ...]
    prompts: tuple[Prompt, ...]
    rows: torch.Tensor
    columns: torch.Tensor
    turns: torch.Tensor

    @property
    def is_plain(self) -> bool:
        """Whether every row is one prompt whose tokens see what came before: what any decoder does by itself."""
        return len(self.prompts) == len(self.token_ids) and self.tokens.block is None


def plan_rows(
    groups: Sequence[Sequence[Prompt]], *, image_tokens: Sequence[int], share: bool
) -> tuple[list[Row], set[str]]:
    """Return rows of the prompts, each group's prompts about the same pictures, and why some could not share.

    With `share`, the prompts of a group are put into as few rows as `MAX_OWN_TOKENS` allows, if no image token follows
    what they have in common.
    """
    rows: list[Row] = []
    reasons: set[str] = set()
    for group in groups:
        n_shared = count_shared([prompt.token_ids for prompt in group]) if share and len(group) > 1 else 0
        reason = "" if n_shared == 0 else _find_obstacle(group, n_shared, image_tokens)
        if n_shared == 0 or reason:
            reasons |= {reason} - {""}
            rows += [Row(prompts=(prompt,), n_shared=0) for prompt in group]
            continue
        rows += [Row(prompts=tuple(part), n_shared=n_shared) for part in _split(group, n_shared)]
    return rows, reasons


def count_shared(sequences: Sequence[torch.Tensor]) -> int:
    """Return how many tokens all `sequences` begin with, leaving each at least one of its own."""
    import torch

    length = min(len(sequence) for sequence in sequences) - 1
    heads = torch.stack([sequence[:length] for sequence in sequences])
    differs = (heads != heads[0]).any(dim=0).nonzero()
    return length if len(differs) == 0 else int(differs[0])


def plan_batches(rows: Sequence[Row], *, size: int) -> Iterator[list[Row]]:
    """Return the rows, `size` at a time, rows of like length together, the longest first."""
    by_length = sorted(rows, key=lambda row: (-len(row), row.prompts[0].sample))
    return (by_length[start : start + size] for start in range(0, len(by_length), size))


def _find_obstacle(group: Sequence[Prompt], n_shared: int, image_tokens: Sequence[int]) -> str:
    import torch

    pieces = torch.tensor(list(image_tokens))
    if any(bool(torch.isin(prompt.token_ids[n_shared:], pieces).any()) for prompt in group):
        return "a picture comes after the question"
    return ""


def _split(group: Sequence[Prompt], n_shared: int) -> Iterator[list[Prompt]]:
    part: list[Prompt] = []
    n_own = 0
    for prompt in group:
        own = len(prompt.token_ids) - n_shared
        if part and n_own + own > MAX_OWN_TOKENS:
            yield part
            part, n_own = [], 0
        part.append(prompt)
        n_own += own
    yield part


def collate(rows: Sequence[Row], *, device: Any) -> Batch:
    """Return `rows` as one batch on `device`."""
    import torch

    laid = [_lay_out(row) for row in rows]
    length = max(len(row) for row in rows)

    def stack(name: str, fill: int) -> torch.Tensor:
        return torch.stack([_pad(row[name], length, fill) for row in laid]).to(device)

    columns = [
        row.n_shared - 1 + sum(len(prompt.token_ids) - row.n_shared for prompt in row.prompts[: turn + 1])
        for row in rows
        for turn in range(len(row.prompts))
    ]
    return Batch(
        token_ids=stack("token_id", 0),
        # positions go on behind the end: transformers takes a jump for the beginning of another sequence
        position_ids=torch.stack([_go_on(row["position"], length) for row in laid], dim=1).to(device),
        tokens=Tokens(
            segment=stack("segment", PADDING),
            offset=stack("offset", 0),
            block=stack("block", -1) if "block" in laid[0] else None,
        ),
        pictures=tuple(row.prompts[0].picture for row in rows),
        prompts=tuple(prompt for row in rows for prompt in row.prompts),
        rows=torch.tensor([place for place, row in enumerate(rows) for _ in row.prompts], device=device),
        columns=torch.tensor(columns, device=device),
        turns=torch.tensor([turn for row in rows for turn in range(len(row.prompts))], device=device),
    )


def _lay_out(row: Row) -> dict[str, torch.Tensor]:
    import torch

    first, n_shared = row.prompts[0], row.n_shared
    if len(row.prompts) == 1:  # nothing to join
        alone = {
            "token_id": first.token_ids,
            "position": first.positions,
            "segment": torch.ones_like(first.token_ids),
            "offset": torch.arange(len(first.token_ids)),
        }
        return alone if first.blocks is None else alone | {"block": first.blocks}
    parts = [(first, SHARED, slice(0, n_shared))]
    parts += [(prompt, place, slice(n_shared, None)) for place, prompt in enumerate(row.prompts, start=1)]
    laid = {
        "token_id": torch.cat([prompt.token_ids[part] for prompt, _, part in parts]),
        "position": torch.cat([prompt.positions[:, part] for prompt, _, part in parts], dim=1),
        "segment": torch.cat([torch.full_like(prompt.token_ids[part], whose) for prompt, whose, part in parts]),
        "offset": torch.cat([torch.arange(len(prompt.token_ids))[part] for prompt, _, part in parts]),
    }
    if first.blocks is not None:
        laid["block"] = torch.cat([prompt.blocks[part] for prompt, _, part in parts if prompt.blocks is not None])
    return laid


def _pad(values: torch.Tensor, length: int, fill: int) -> torch.Tensor:
    import torch

    n_more = length - values.shape[-1]
    return torch.nn.functional.pad(values, (0, n_more), value=fill) if n_more else values


def _go_on(positions: torch.Tensor, length: int) -> torch.Tensor:
    import torch

    n_more = length - positions.shape[-1]
    if n_more == 0:
        return positions
    return torch.cat([positions, positions[:, -1:] + torch.arange(1, n_more + 1)], dim=1)


def sees(query: Tokens, key: Tokens, *, window: int | None = None, blocks_pass_window: bool = False) -> torch.Tensor:
    """Return which tokens of `query` see which of `key`, shape (row, 1, query, key), boolean.

    With a `window`, only the nearest so many that came before, itself included. It also limits what is seen within a
    block, unless `blocks_pass_window`.
    """
    whose, whose_key = query.segment[:, :, None], key.segment[:, None]
    # in place and as booleans only: a mask has as many elements as the rows have pairs of tokens
    seen = (whose == whose_key).logical_or_(whose_key == SHARED)
    seen &= key.offset[:, None] <= query.offset[:, :, None]
    if window is not None and blocks_pass_window:
        seen &= _is_near(query, key, window)
    if query.block is not None and key.block is not None:
        seen |= (query.block[:, :, None] == key.block[:, None]).logical_and_(query.block[:, :, None] >= 0)
    if window is not None and not blocks_pass_window:
        seen &= _is_near(query, key, window)
    seen &= whose_key != PADDING
    return seen.logical_or_(whose == PADDING)[:, None]  # padding sees anything: attention to nothing is NaN


def _is_near(query: Tokens, key: Tokens, window: int) -> torch.Tensor:
    return key.offset[:, None] > query.offset[:, :, None] - window
