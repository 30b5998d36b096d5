"""Services: replicas behind one address, from the start of Ray to its end."""

from __future__ import annotations

import io
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, replace

from ..engine.ray_engine import connect
from ..errors import EngineError
from .port import hold_port
from .replica import ReplicaSettings

PROXY_GATE = f"{__package__}.gate:make_proxy_gate"

ERROR_LINE = re.compile(r"[\w.]+Error: ")

SERVE_NAMESPACE = "serve"
"""Of the actors of Ray Serve."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Where a classifier is served, and by how many.

    Attributes
    ----------
    replica
        What each replica does.
    n_replicas
        How many there are; clients see one address.
    host, port
        What is listened on: by the head node of a cluster.
    address
        A Ray cluster ("auto" for the one this machine belongs to); without it, and without ``RAY_ADDRESS``, one is
        started on this machine and ended afterwards. A process that is connected stays connected.
    """

    replica: ReplicaSettings
    n_replicas: int = 1
    host: str = "127.0.0.1"
    port: int = 8000
    address: str | None = None

    @property
    def url(self) -> str:
        """What clients ask."""
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @property
    def is_here(self) -> bool:
        """Whether this machine alone serves."""
        return self.address is None and not os.environ.get("RAY_ADDRESS")


@contextmanager
def start_ray(service: Service) -> Iterator[None]:
    """Connect this process to the Ray of a service while the ``with`` block runs.

    Raises
    ------
    EngineError
        If there is none, it has no room, or it serves already; or if the port is taken.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    with hold_port(service.host, service.port) if service.is_here else nullcontext():
        is_ours, ends_serve = not ray.is_initialized(), False
        try:
            if is_ours:
                connect(service.address, n_cpus=service.n_replicas * service.replica.threads)
            _validate_room(service)
            ends_serve = not (is_ours and service.is_here)  # else Serve ends with Ray
            yield
        finally:
            _leave(ends_serve=ends_serve, ends_ray=is_ours)


def _leave(*, ends_serve: bool, ends_ray: bool) -> None:
    """End what was started."""
    import ray
    from ray import serve

    with redirect_stdout(io.StringIO()):  # Ray tells of Serve's controller, which ends itself, as of one that died
        if ends_serve:
            serve.shutdown()
        if ends_ray:
            ray.shutdown()


def _validate_room(service: Service) -> None:
    """Refuse what cannot be had; on a cluster that was named, nodes may still come."""
    import ray

    if any(actor["namespace"] == SERVE_NAMESPACE for actor in ray.util.list_named_actors(all_namespaces=True)):
        raise EngineError(
            "Ray: expected no Ray Serve on the cluster, found one that listens already; end it with `serve shutdown`, "
            "or take another cluster"
        )
    if not service.is_here:
        return
    there = ray.cluster_resources()
    for name, wanted in (("CPU", service.replica.threads), ("GPU", service.replica.n_gpus)):
        if service.n_replicas * wanted > there.get(name, 0):
            raise EngineError(
                f"Ray on this machine: expected {wanted:g} {name} for each of {service.n_replicas} replicas, found "
                f"{there.get(name, 0):g} in all; ask for less"
            )


@contextmanager
def deploy(service: Service) -> Iterator[None]:
    """Serve while the ``with`` block runs; it begins when every replica has loaded its model.

    Raises
    ------
    EngineError
        If it cannot be served.
    """
    from ray import serve
    from ray.exceptions import RayError

    from .application import APPLICATION, build_application

    logging.getLogger("ray.serve").setLevel(logging.CRITICAL)  # what goes wrong is raised, too
    application = build_application(service.replica, n_replicas=service.n_replicas)
    try:
        _start_proxy(service)
        serve.run(application, name=APPLICATION, route_prefix="/")
    except (RayError, RuntimeError, TimeoutError) as error:
        raise EngineError(
            f"{service.url}: expected to serve there, found: {_find_cause(error)}; mend it, or see Ray's logs"
        ) from error
    try:
        yield
    finally:
        serve.delete(APPLICATION)  # once it has answered what it has begun with


def _start_proxy(service: Service) -> None:
    """Start the one proxy that listens, with a gate in it."""
    from ray import serve

    limits = service.replica.limits
    limits = replace(limits, max_open=limits.max_open * service.n_replicas)
    environment = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": PROXY_GATE} | limits.to_environment()
    serve.start(
        proxy_location="HeadOnly",
        http_options={"host": service.host, "port": service.port},
        controller_options={"runtime_env": {"env_vars": environment}},  # which the proxy inherits
    )


def _find_cause(error: Exception) -> str:
    """Return the line that says why Serve could not start, out of what it tells, with tracebacks, of its replicas."""
    from ray import serve

    applications = serve.status().applications.values()
    told = [deployment.message for application in applications for deployment in application.deployments.values()]
    lines = [line.strip() for report in (str(error), *told) for line in report.splitlines() if line.strip()]
    causes = [line for line in lines if ERROR_LINE.match(line)] or lines or ["no reason"]
    return ERROR_LINE.sub("", causes[-1]).rstrip(".")
