"""Child processes: one that is talked to line by line, and many that are forked from one that has its imports."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

PYTHON = (sys.executable, "-W", "error::UserWarning", "-c")
"""zarr's warnings, say of what it does not know, are errors, as in all tests."""


class Child:
    """A Python process that runs `script`; what it writes to standard error is shown with the test's own output."""

    def __init__(self, script: str, *arguments: str | Path) -> None:
        self.process = subprocess.Popen(
            [*PYTHON, script, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def say(self, line: str) -> None:
        """Send a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        """Return the next line that it prints."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"ended with {self.process.wait()}; what it said is above"
        return line.strip()

    def wait_until_stopped(self) -> None:
        """Return when it has received SIGSTOP."""
        state = os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        assert state is not None and state.si_code == os.CLD_STOPPED, state

    def finish(self) -> str:
        """Return what it still prints until it ends well."""
        printed, _ = self.process.communicate()
        assert self.process.returncode == 0, "what it said is above"
        return str(printed).strip()


@contextmanager
def start(script: str, *arguments: str | Path) -> Iterator[Child]:
    """Start a child that is killed, if it is still there, when the block is left."""
    child = Child(script, *arguments)
    try:
        yield child
    finally:
        child.process.kill()
        child.process.communicate()


PARENT = """
import json, os, sys, traceback
{imports}
print("ready", flush=True)  # zarr's event loop must not run yet: a fork has none of its threads
for line in sys.stdin:
    argument = json.loads(line)
    child = os.fork()
    if child == 0:
        try:
            {job}(argument)
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    print(child, flush=True)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)  # its number stays its own until the test is done with it
    print("ended", flush=True)
    sys.stdin.readline()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class ForkServer:
    """Run `job`, a function that the statement `imports` brings, in a new process for every call of `run`."""

    def __init__(self, *, imports: str, job: str) -> None:
        self._parent = subprocess.Popen(
            [*PYTHON, PARENT.format(imports=imports, job=job)],
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},  # no thread before the fork
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,  # select must see every line
        )

    def __enter__(self) -> Self:
        assert self._read() == "ready"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._parent.kill()
        self._parent.communicate()

    def run(self, argument: Any, *, kill_after_s: float | None = None) -> int:
        """Return how a child ended that was given `argument`: its exit code, or minus the signal that killed it."""
        self._send(json.dumps(argument))
        child = int(self._read())
        assert self._parent.stdout is not None
        ended, _, _ = select.select([self._parent.stdout], [], [], kill_after_s)
        if not ended:
            os.kill(child, signal.SIGKILL)
        assert self._read() == "ended"
        self._send("")
        return int(self._read())

    def _send(self, line: str) -> None:
        assert self._parent.stdin is not None
        self._parent.stdin.write(f"{line}\n".encode())

    def _read(self) -> str:
        assert self._parent.stdout is not None
        line = self._parent.stdout.readline()
        assert line, "the parent of all children died; what it said is above"
        return line.decode().strip()
