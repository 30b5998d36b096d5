"""A real S3 server: SeaweedFS, in one process on loopback."""

from __future__ import annotations

import json
import socket
import subprocess
import sysconfig
import time
from contextlib import ExitStack
from datetime import timedelta
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from threading import Event
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

START_TIMEOUT_S = 60
LOG_TAIL_BYTES = 4000


class S3Server:
    """Serve S3 at ``endpoint`` to whoever signs with ``access_key`` and ``secret_key``; all files are in `folder`.

    Notes
    -----
    Free ports are found before the server binds them, so another process may take one in between; the server then
    stops, and entering raises. A server that is killed keeps its objects: a second one on the same folder has them.
    """

    access_key = "test-access-key"
    secret_key = "test-secret-key"
    region = "us-east-1"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.endpoint = ""
        self._ports: dict[str, int] = {}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        (self.folder / "volumes").mkdir(parents=True, exist_ok=True)
        self._ports = find_free_ports("master", "volume", "filer", "s3")
        self.endpoint = f"http://127.0.0.1:{self._ports['s3.port']}"
        self._write_config()
        with (self.folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                self._command(),
                cwd=self.folder,
                env={"HOME": str(self.folder)},  # nobody's own settings and keys
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.kill()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def kill(self) -> None:
        """End the server at once; asked politely it takes 17 s."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        for name, port in self._ports.items():  # it makes these sockets whatever it is told, and leaves them
            part, _, grpc = name.partition(".port.")
            if grpc:
                Path(f"/tmp/seaweedfs-{part}-grpc-{port}.sock").unlink(missing_ok=True)

    def environment(self) -> dict[str, str]:
        """Return the environment variables by which any S3 client finds this server."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": self.region,
            "AWS_ALLOW_HTTP": "true",
        }

    def open_bucket(
        self, name: str, *, endpoint: str | None = None, max_retries: int = 0, timeout: str = "30s"
    ) -> S3Store:
        """Return a client of a bucket that retries after 5 ms; `endpoint` may be a proxy's."""
        pause = timedelta(milliseconds=5)
        return S3Store(
            name,
            endpoint=endpoint or self.endpoint,
            access_key_id=self.access_key,
            secret_access_key=self.secret_key,
            region=self.region,
            client_options={"allow_http": True, "timeout": timeout},
            retry_config={"max_retries": max_retries, "backoff": {"init_backoff": pause, "max_backoff": pause}},
        )

    def make_bucket(self, name: str) -> None:
        """Create a bucket.

        Raises
        ------
        RuntimeError
            If the server refuses, be it that the bucket exists.
        """
        status, answer = self._put_bucket(name)
        if status != 200:
            raise RuntimeError(f"bucket {name}: expected status 200, found {status}: {answer}")

    def _put_bucket(self, name: str) -> tuple[int, str]:
        signed = urlsplit(obstore.sign(self.open_bucket(name), "PUT", "", timedelta(minutes=1)))
        connection = HTTPConnection(signed.netloc, timeout=10)
        try:
            connection.request("PUT", f"{signed.path}?{signed.query}")
            response = connection.getresponse()
            return response.status, response.read().decode()
        finally:
            connection.close()

    def _wait_until_ready(self) -> None:
        assert self._process is not None
        deadline, pause = time.monotonic() + START_TIMEOUT_S, Event()
        found = "nothing"
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                self._put_bucket("ready")  # a second server on a folder finds it there
                obstore.put(self.open_bucket("ready"), "ready", b"ready")
            except (OSError, HTTPException, BaseError) as error:
                found = repr(error)
            else:
                return
            pause.wait(0.05)
        raise RuntimeError(f"{self.endpoint}: expected an S3 server, found {found}; its log ends:\n{self._log_tail()}")

    def _log_tail(self) -> str:
        return (self.folder / "log").read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")

    def _write_config(self) -> None:
        credentials = [{"accessKey": self.access_key, "secretKey": self.secret_key}]
        identity = {"name": "test", "credentials": credentials, "actions": ["Admin"]}
        (self.folder / "s3.json").write_text(json.dumps({"identities": [identity]}))

    def _command(self) -> list[str]:
        return [
            str(Path(sysconfig.get_path("scripts")) / "weed"),
            "-logtostderr=true",  # and not to files in /tmp
            "server",
            "-dir=volumes",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            "-master.peers=none",  # without an election, which now and then takes 5 s
            "-master.telemetry=false",
            "-filer",
            "-filer.localSocket=filer.sock",
            "-s3",
            "-s3.autoCreateBucket=false",  # as elsewhere
            "-s3.config=s3.json",
            "-s3.localSocket=s3.sock",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-volume.max=200",  # of 30 GB at most, and empty at first; a bucket takes seven
            "-volume.preStopSeconds=1",
            *(f"-{name}={port}" for name, port in self._ports.items()),
        ]


def find_free_ports(*parts: str) -> dict[str, int]:
    """Return free ports on loopback for the flags ``<part>.port`` and ``<part>.port.grpc`` of every part."""
    flags = [f"{part}.port{suffix}" for part in parts for suffix in ("", ".grpc")]
    with ExitStack() as held:  # all at once, so that they differ
        sockets = [held.enter_context(socket.socket()) for _ in flags]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return {flag: each.getsockname()[1] for flag, each in zip(flags, sockets, strict=True)}
