"""A Ray cluster as its users start one, by ``ray start``, with several nodes on this machine's loopback address."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

BIN = Path(sys.executable).parent


def find_free_ports(n: int, host: str) -> list[int]:
    """Return `n` ports of `host` that nothing listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(n)]
        for opened in sockets:
            opened.bind((host, 0))
        return [opened.getsockname()[1] for opened in sockets]


class Node:
    """One ``ray start --block`` and all that it started; it is ready when this object is."""

    def __init__(self, *arguments: str, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [str(BIN / "ray"), "start", "--block", *arguments],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            said.append(line)
            if "Ray runtime started." in line:
                return
        self.kill()
        raise AssertionError(f"the node ended before it had started: {''.join(said)}")

    def processes(self) -> list[psutil.Process]:
        """Return every process of this node, those of workers and jobs on it too."""
        try:
            root = psutil.Process(self._process.pid)
            return [root, *root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def titles(self) -> list[str]:
        """Return the command lines of this node's processes; Ray's workers change theirs."""
        found = []
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):  # a zombie is none, either
                found.append(" ".join(process.cmdline()))
        return found

    def kill(self) -> None:
        """End every process of this node with SIGKILL, as if its machine were gone; one that is gone stays gone."""
        processes = self.processes()
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        psutil.wait_procs(processes, timeout=30)


class Cluster:
    """A head with `n_head_cpus` and the job server; more nodes join it. All of them end with the ``with`` block.

    Each node has a loopback address of its own. The cluster's token is its own, too: neither this machine's other
    clusters nor their users can reach it.
    """

    def __init__(self, *, n_head_cpus: int = 1) -> None:
        self._nodes: list[Node] = []
        self._folder = Path(tempfile.mkdtemp(prefix="sn", dir="/tmp"))  # the paths of Ray's sockets must be short
        self._token = secrets.token_hex(32)
        self.headers = {"Authorization": f"Bearer {self._token}"}
        host = self._next_host()
        port, dashboard_port, client_port = find_free_ports(3, host)
        self.address, self.dashboard_url = f"{host}:{port}", f"http://{host}:{dashboard_port}"
        try:
            self._start_node(
                *("--head", f"--port={port}", f"--temp-dir={self._folder}", f"--ray-client-server-port={client_port}"),
                *("--include-dashboard=true", f"--dashboard-host={host}", f"--dashboard-port={dashboard_port}"),
                n_cpus=n_head_cpus,
            )
        except BaseException:
            self.__exit__(None, None, None)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with ExitStack() as stack:
            stack.callback(shutil.rmtree, self._folder, ignore_errors=True)
            for node in self._nodes:
                stack.callback(node.kill)

    def add_node(self) -> Node:
        """Return one more node with one CPU."""
        return self._start_node(f"--address={self.address}", "--include-log-monitor=false", n_cpus=1)

    def drain(self, node_id: str) -> None:
        """Say that a node is about to be taken away, with the command of docs/spot-notice.sh."""
        where = (f"--address={self.address}", f"--node-id={node_id}")
        notice = ("--reason=DRAIN_NODE_REASON_PREEMPTION", "--reason-message=spot notice")
        subprocess.run(
            [str(BIN / "ray"), "drain-node", *where, *notice, "--deadline-remaining-seconds=110"],
            env=self.environment(),
            check=True,
            capture_output=True,
        )

    def environment(self) -> dict[str, str]:
        """Return the environment of a shell on one of the nodes; nothing of another cluster is in it."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        return clean | {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "PYTHONUNBUFFERED": "1",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self._token,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_health_check_period_ms": "500",  # five refusals, and a node is gone; one that is slow has longer
        }

    def _next_host(self) -> str:
        return f"127.0.0.{2 + len(self._nodes)}"  # for 127.0.0.1 Ray takes the machine's address on the network

    def _start_node(self, *arguments: str, n_cpus: int) -> Node:
        host = self._next_host()
        (agent_port,) = find_free_ports(1, host)
        place = (f"--node-ip-address={host}", f"--dashboard-agent-listen-port={agent_port}")
        resources = (f"--num-cpus={n_cpus}", "--num-gpus=0", f"--object-store-memory={10**8}")
        node = Node(*arguments, *place, *resources, environment=self.environment())
        self._nodes.append(node)
        return node
