"""What people write in YAML, read and checked: every mistake is one line that says where it is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import PipelineError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails
    from yaml.nodes import Node

Place = tuple[str | int, ...]
"""Where in a file something stands: keys and numbers of entries, from the outside in."""

MAX_PLACES = 10_000
"""Values of a file, those of aliases counted wherever they are used: a bomb of aliases is refused."""


RANKS = {"extra_forbidden": 0, "too_short": 2, "missing": 2}
"""Which kinds of mistakes are told first: one that is misspelt is missing, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lines:
    """Which line of a file each place is on, from 1; ``path`` is the file, empty for what stands in none.

    A mistake there is a ``fault``.
    """

    path: str
    fault: type[PipelineError]
    numbers: Mapping[Place, int] = field(default_factory=dict)

    def mistake(self, place: Place, text: str) -> PipelineError:
        """Return an error that says where `text` is to be read, in one line."""
        told = f"{name_place(place)}{text}"
        if not self.path:
            return self.fault(told)
        known = next((place[:end] for end in range(len(place), 0, -1) if place[:end] in self.numbers), ())
        return self.fault(f"{self.path}, line {self.numbers.get(known, 1)}: {told}")


def name_place(place: Place) -> str:
    """Return a place as people write it, ``models[1].weights_dtype: ``; nothing for the whole file."""
    named = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return f"{named.removeprefix('.')}: " if place else ""


Shape = TypeVar("Shape", bound="Entry")


class Entry(BaseModel):
    """Anything that is read of a file: keys that are not known are refused, and nothing is converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @classmethod
    def known_keys(cls, place: Sequence[str]) -> list[str]:
        """Return the keys at a place within, which is told by the keys that lead to it."""
        inner = cls.inner_entries()
        return list((inner[place[-1]] if place else cls).model_fields)

    @classmethod
    def inner_entries(cls) -> Mapping[str, type[Entry]]:
        """Return the entries that stand under a key, by the key."""
        return {}


def parse_document(content: dict[str, Any], shape: type[Shape], *, lines: Lines) -> Shape:
    """Return the document that plain values describe.

    Raises
    ------
    PipelineError
        Of the kind that `lines` says, if they describe none.
    """
    try:
        return shape.model_validate(content)
    except ValidationError as error:
        first, *others = sorted(error.errors(), key=lambda detail: RANKS.get(detail["type"], 1))
        more = f" (and {len(others)} more)" if others else ""
        place, text = _place_of(first), _describe(first, shape) + more
        raise lines.mistake(place, text) from error


def read_yaml(path: str | Path, *, kind: str, fault: type[PipelineError]) -> tuple[Any, Lines]:
    """Return what a YAML file holds, as plain values, and its lines; `kind` says what it should describe.

    Raises
    ------
    PipelineError
        A `fault`, if it cannot be read or is not YAML.
    """
    import yaml

    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "bytes that are not UTF-8"
        raise fault(f"{path}: expected {kind}, found: {reason}; check the path") from error
    lines = Lines(path=str(path), fault=fault)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        lines = replace(lines, numbers=dict(_walk(node, lines)) if node is not None else {})
        return yaml.safe_load(text), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        problem = " ".join(str(error.problem or error.context or "no YAML").split())
        raise fault(f"{path}, line {line}: expected YAML, found: {problem}; correct the line") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: the 31st of February
        problem = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise fault(f"{path}, line 1: expected YAML, found: {problem}; correct the file") from error


def _walk(root: Node, lines: Lines) -> Iterator[tuple[Place, int]]:
    """Return every place below a node with its line; that of a key is where the key stands."""
    from yaml.nodes import MappingNode, SequenceNode

    waiting: list[tuple[Place, Node]] = [((), root)]
    n_places = 0
    while waiting:
        place, node = waiting.pop()
        n_places += 1
        if n_places > MAX_PLACES:
            raise lines.fault(
                f"{lines.path}, line {node.start_mark.line + 1}: expected at most {MAX_PLACES} values, found more; "
                "leave out aliases that repeat each other"
            )
        if isinstance(node, SequenceNode):
            for number, entry in enumerate(node.value):
                yield (*place, number), entry.start_mark.line + 1
                waiting.append(((*place, number), entry))
        elif isinstance(node, MappingNode):
            seen: dict[str, int] = {}
            for key, value in node.value:
                line = key.start_mark.line + 1
                name = str(key.value)
                where = (*place, name)
                if name in seen and name != "<<":
                    raise lines.fault(
                        f"{lines.path}, line {line}: {name_place(where)}expected once, found a second time after line "
                        f"{seen[name]}; leave one out"
                    )
                seen[name] = line
                yield where, line
                waiting.append((where, value))


def _place_of(error: ErrorDetails) -> Place:
    return tuple(part for part in error["loc"] if isinstance(part, str | int))


def _describe(error: ErrorDetails, shape: type[Entry]) -> str:
    """Return what pydantic finds wrong in this project's words: what was expected, what was found, the remedy."""
    kind, found, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "extra_forbidden":
        return _describe_unknown_key(error["loc"], shape)
    wanted = re.sub("greater|less", r"a number \g<0>", error["msg"].removeprefix("Input should be "))
    texts = {
        "missing": "expected a value, found none; add it",
        "invalid_key": f"expected a text as the key, found {_show(found)}; choose one of the known keys",
        "too_short": "expected at least one entry, found none; add one",
        "literal_error": f"expected {context.get('expected')}, found {_show(found)}; choose one of them",
        "tuple_type": f"expected a list, found {_show(found)}; write each entry on a line of its own after a dash",
        "model_type": f"expected a name or keys with values, found {_show(found)}; write what is expected",
    }
    return texts.get(kind, f"expected {wanted[:1].lower()}{wanted[1:]}, found {_show(found)}; correct it")


def _describe_unknown_key(place: Sequence[str | int], shape: type[Entry]) -> str:
    known = shape.known_keys([part for part in place[:-1] if isinstance(part, str)])
    from storage.spelling import suggest_name

    remedy = suggest_name(str(place[-1]), known, otherwise="leave it out")
    return f"expected one of the keys {', '.join(known)}, found {place[-1]!r}; {remedy}"


def _show(found: Any) -> str:
    if isinstance(found, dict):
        return "keys with values"
    if isinstance(found, list | tuple):
        return "a list"
    return "nothing" if found is None else f"{found!r:.60}"
