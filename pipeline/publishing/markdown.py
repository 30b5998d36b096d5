"""Texts from elsewhere in Markdown: shown as they are, whatever they hold."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence

SPECIAL = re.compile(r"([\\`*_{}\[\]()#+\-.!|~^:@$=])")
"""What may begin anything but text, that what a hub adds to Markdown (links of bare addresses, formulas) included."""

HARMLESS = re.compile(r"(?<=[0-9A-Za-z])\\([-.:=+])(?=[0-9A-Za-z])|\\([.:()!])(?=\s|$)")
"""Escapes that nothing needs: within words, and where a sentence has them."""


def escape(text: str) -> str:
    """Return a text as Markdown that shows it on one line, in a table or anywhere else."""
    flat = html.escape(" ".join(text.split()), quote=False)
    return HARMLESS.sub(lambda found: found[1] or found[2], SPECIAL.sub(r"\\\1", flat))


def code(text: str) -> str:
    r"""Return a text as a piece of code on one line; line breaks are shown as ``\n``.

    Bars are escaped, as tables want them: outside of tables, they are shown so.
    """
    flat = re.sub(r"[\x00-\x1f\x7f]", " ", text.replace("\r", "").replace("\n", "\\n"))
    longest = max((len(run) for run in re.findall(r"`+", flat)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if flat.startswith(("`", " ")) or flat.endswith(("`", " ")) or not flat else ""
    return f"{fence}{pad}{flat or ' '}{pad}{fence}".replace("|", "\\|")


def link(url: str, text: str | None = None) -> str:
    """Return a link to an address of the web; anything else is shown as code."""
    if not re.fullmatch(r"https?://[A-Za-z0-9._~:/?#@!$&*+,;=%-]+", url):
        return code(url)
    return f"<{url}>" if text is None else f"[{escape(text)}]({url})"


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: Sequence[int] = ()) -> str:
    """Return a table of cells that are Markdown; the columns in `numbers` are set flush right."""
    rule = ["---:" if column in numbers else "---" for column in range(len(header))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))


def fence(text: str, language: str = "") -> str:
    """Return a block of code; a line of backquotes in it ends nothing."""
    longest = max((len(run) for run in re.findall(r"`{3,}", text)), default=2)
    mark = "`" * (longest + 1)
    return f"{mark}{language}\n{text.strip(chr(10))}\n{mark}"
