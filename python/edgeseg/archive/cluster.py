"""Where the work is done: a Ray cluster, or this machine as one."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from edgeseg.errors import InputError, MissingDependencyError
from edgeseg.files import reason

_OBJECT_STORE = 128 << 20  # bytes; no frame passes through it


@contextmanager
def connected(address: str | None, cpus: int) -> Iterator[None]:
    """Be connected to a Ray cluster, or to workers on this machine that end with the block.

    Raises:
        MissingDependencyError: Ray is not installed.
        InputError: the cluster cannot be reached.
    """
    if address is not None:
        _check_answers(address)
    # Ray reads these on import: nobody is told; the standard output is left to its owner, whatever
    # dies; and a machine for itself listens on loopback only.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    if address is None:
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise MissingDependencyError(
            "Ray is not installed, but shares out the work: pip install 'edgeseg[ray]', in the "
            "source folder pip install '.[ray]'"
        ) from error
    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    local: dict[str, Any] = {
        "num_cpus": cpus,
        "include_dashboard": False,
        "object_store_memory": _OBJECT_STORE,
    }
    try:
        if address is None:
            ray.init("local", **local, **quiet)
        else:
            ray.init(address, **quiet)
    except Exception as error:  # Ray raises this very class, too
        ray.shutdown()
        where = "on this machine" if address is None else f"at {address}"
        raise InputError(
            f"Ray cannot be used {where}: {(str(error).strip() or repr(error)).splitlines()[0]} "
            "A cluster is started with 'ray start --head', which prints its address"
        ) from error
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # deaths are told in our words
    try:
        yield
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Raises InputError where nobody listens; Ray would try for ten minutes."""
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal() and int(port) < 65_536) or "/" in host:
        raise InputError(
            f"the address {address!r} is not HOST:PORT; 'ray start --head' prints the cluster's, "
            "like 10.0.0.1:6379"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise InputError(
            f"no Ray cluster answers at {address}: {reason(error)}; start one with "
            "'ray start --head', which prints its address"
        ) from error


def room(cpus: float, gpus: float) -> int:
    """How many workers the machines hold.

    Raises:
        InputError: none.
    """
    import ray

    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    needs = {name: need for name, need in (("CPU", cpus), ("GPU", gpus)) if need > 0}
    workers = sum(min(int(node.get(n, 0) // need) for n, need in needs.items()) for node in nodes)
    if workers == 0:
        has = [", ".join(f"{node.get(n, 0):g} {n}" for n in ("CPU", "GPU")) for node in nodes]
        wanted = ", ".join(f"{need:g} {name}" for name, need in needs.items())
        raise InputError(
            f"no machine has room for a worker of {wanted}; there are {'; '.join(has)}: choose "
            "fewer threads or GPUs"
        )
    return workers
