"""What paths of machines and addresses of people look like, and how a path is told without them."""

from __future__ import annotations

import re
from collections.abc import Iterable

ROOTS = """
    home Users root mnt tmp var data datasets media opt srv scratch work workspace workspaces private etc usr nfs
    lustre gpfs fsx efs Volumes export shared storage run proc dev projects project cluster content kaggle dbfs
    local cache models checkpoints app code lib bin snap beegfs ceph vol volume net u
"""
"""First names of paths on machines: what begins otherwise, such as an option ``/ no``, is no path."""

HOMES = ("home", "Users", "users", "user", "Documents and Settings")
"""Folders whose folders are called by users."""

GENERIC_NAMES = """
    root user users admin administrator ubuntu debian fedora centos ec2-user azureuser runner runneradmin nobody docker
    app apps home localhost host node test tests data dataset datasets model models work worker tmp temp shared public
    common guest jovyan vscode coder sagemaker-user ray jenkins gitlab-runner circleci kaggle default system system32
    cache local run task tasks sample samples image images train validation probe residual heads layer python
"""
"""Names of users and hosts that tell nothing, or that records have as words."""

MIN_NAME = 3
"""Letters of a name at least, for it to be looked for in any text."""

POSIX_DONE = r"/(?:home|Users)/USER(?![\w-])|/(?:[\w.-]+/)?\.\.\./"
WINDOWS_DONE = r"[A-Za-z]:[\\/]+(?:Users[\\/]+USER(?![\w-])|\.\.\.)"
"""Beginnings of paths that were shortened already."""

NAME = r"[^\s/\\\"'`<>|*?:;,(){}\[\]]*[^\s/\\\"'`<>|*?:;,(){}\[\].!]"
ROOT = rf"/(?:{'|'.join(ROOTS.split())})"

LOCAL_PATH = re.compile(
    rf"""
    (?P<path>
      file://(?!{POSIX_DONE})/*(?:{NAME}/+)*{NAME}
    | (?<=["'])(?!{POSIX_DONE}){ROOT}/[^"'\n]*[^"'\n/\s](?=["'])
    | (?<![\w./~*}}-])(?!{POSIX_DONE}){ROOT}(?:/+{NAME})+
    | (?<!\w)(?!{WINDOWS_DONE})[A-Za-z]:
        (?:[\\/]+(?:Users|Windows|Program\ Files|ProgramData|Temp|Documents\ and\ Settings)|\\+[^nrtu\W]\w*|\\\\+\w+)
        (?:[\\/]+{NAME})*
    | (?<![\\\w])\\\\(?!HOST\\)[A-Za-z0-9][\w.-]+\\[\w.$-]+(?:\\{NAME})*
    )
    """,
    re.VERBOSE,
)
"""A path within a text: a file's URL, in quotes with any blanks, on POSIX, on Windows, of a Windows server."""

PATH_BEGIN = re.compile(r"(?<![\w.])/|file:|:[\\/]|\\\\")
"""What every such path has, in a pattern that is quickly tried."""

SPACED_PATH = re.compile(rf"(?!{POSIX_DONE}){ROOT}/[^\n\"<>|]*[^\n\"<>|/ ] [^\n\"<>|/ ][^\n\"<>|]*/[^\n\"<>|]*")
"""A whole text that is a path with blanks in the names of folders."""

USER = re.compile(rf"[\\/](?:{'|'.join(HOMES)})[\\/]+(?P<user>[^\\/\s\"']+)")

EMAIL = re.compile(
    r"(?<![\w.+/@-])(?!git@)[A-Za-z0-9][\w.+-]*@(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.)+[A-Za-z]{2,24}(?![\w@/])"
)


def is_whole_path(text: str) -> bool:
    """Return whether a text is one path, blanks and all."""
    return " /" not in text and SPACED_PATH.fullmatch(text) is not None


def find_users(path: str) -> set[str]:
    """Return the users that a path names."""
    return {match["user"] for match in USER.finditer(path)}


def is_telling(name: str) -> bool:
    """Return whether a name tells who or which machine it is, so that it may be looked for as a word."""
    return len(name) >= MIN_NAME and name.lower() not in GENERIC_NAMES.split() and not name.replace(".", "").isdigit()


def word_pattern(names: Iterable[str]) -> re.Pattern[str] | None:
    """Return a pattern of any of the names as whole words; None of none."""
    longest_first = sorted(set(names), key=lambda name: (-len(name), name))
    if not longest_first:
        return None
    return re.compile(rf"(?<!\w)(?:{'|'.join(re.escape(name) for name in longest_first)})(?!\w)")


def split_path(path: str) -> tuple[str, str]:
    r"""Return what a shortened path begins with, the mark of what is left out included, and its last name.

    ``/home/anna/models/llava`` is ``/home/USER/.../`` and ``llava``; of ``/home/anna`` the last name is empty.
    """
    scheme = "file://" if path.startswith("file:") else ""
    bare = "/" + path.removeprefix("file:").lstrip("/") if scheme else path
    slash = "/" if bare.startswith("/") else "\\"
    names = [name for name in re.split(r"[\\/]+", bare) if name]
    if bare.startswith("\\\\"):
        return "\\\\HOST\\...\\", names[-1]
    begin, names = (f"{slash}", names) if slash == "/" else (f"{names[0]}\\", names[1:])
    if len(names) > 1 and names[0] in ("home", "Users"):
        middle = f"...{slash}" if len(names) > 3 else ""
        last = names[-1] if len(names) > 2 else ""
        return f"{scheme}{begin}{names[0]}{slash}USER{slash if last else ''}{middle}", last
    first = f"{names[0]}{slash}" if slash == "/" and len(names) > 1 else ""
    return f"{scheme}{begin}{first}...{slash}", names[-1] if names else ""
