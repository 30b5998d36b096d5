"""Pages and files of the repository that lie outside docs/: the site has copies, and links lead to them.

A page that is written elsewhere, such as the format, stays where it belongs and has one source. Links are written as a
reader of the repository follows them; here they become those of the site.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]

PAGES = {
    "storage/FORMAT.md": "format.md",
    "benchmarks/README.md": "benchmarks.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "index.md",
}
"""Where pages of the repository stand in the site; its README is the site's home, which is written for the site."""

HOME = "index.md"

LINK = re.compile(r"(\]\()(?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?(\))")


def find_targets(text: str, origin: str) -> Iterator[str]:
    """Yield the files of the repository that links of the page `origin` lead to, as paths from its root."""
    for found in LINK.finditer(text):
        yield resolve(found[2], origin)


def resolve(target: str, origin: str) -> str:
    """Return the path from the repository's root that a link of the page `origin` leads to."""
    return os.path.normpath(PurePosixPath(origin).parent / target)


def place_in_site(path: str) -> str:
    """Return where a file of the repository stands in the site."""
    if path in PAGES:
        return PAGES[path]
    return path.removeprefix("docs/") if path.startswith("docs/") else f"repository/{path}"


def rewrite_links(text: str, origin: str) -> str:
    """Return the page `origin` with links that lead to places in the site."""
    folder = PurePosixPath(place_in_site(origin)).parent

    def lead(found: re.Match[str]) -> str:
        place = os.path.relpath(place_in_site(resolve(found[2], origin)), folder)
        return f"{found[1]}{place}{found[3] or ''}{found[4]}"

    return LINK.sub(lead, text)


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages that are written elsewhere, and every other file of the repository that a page links to."""
    wanted: set[str] = set()
    for origin, place in PAGES.items():
        if place != HOME:
            text = (ROOT / origin).read_text(encoding="utf-8")
            files.append(File.generated(config, place, content=rewrite_links(text, origin)))
            wanted.update(find_targets(text, origin))
    for page in files.documentation_pages():
        if page.generated_by is None:
            wanted.update(find_targets(page.content_string, f"docs/{page.src_uri}"))
    for path in sorted(wanted):
        place = place_in_site(path)
        if place.startswith("repository/") and (ROOT / path).is_file():
            files.append(File.generated(config, place, abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Return the page with links that lead to places in the site."""
    if page.file.generated_by is not None:
        return markdown
    return rewrite_links(markdown, f"docs/{page.file.src_uri}")
