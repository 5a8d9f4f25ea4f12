"""The second engine: scans on the workers of a dask scheduler, which may stand on other machines.

A scheduler runs whatever arrives: unless it is on this machine, the connection must be encrypted or the user insist.
"""

from __future__ import annotations

import ipaddress
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from evbiodist.batch.child import Limits
from evbiodist.batch.engine import Result, Task, run_tasks

if TYPE_CHECKING:
    from distributed import Client

#: Address that stands for a scheduler and workers of this run's own, on this machine.
OWN = "local"
#: Tasks under way for each thread of a worker: enough that none waits, few enough that results do not pile up.
_AHEAD = 4
#: How long a scheduler may take to answer.
_PATIENCE = "20s"


class ClusterError(ValueError):
    """The scheduler cannot be used or is gone, with the remedy."""


@dataclass(frozen=True)
class Scheduler:
    """Where a dask scheduler listens, and how to talk to it.

    Parameters
    ----------
    address : ``tcp://host:port``, ``tls://host:port``, or ``local`` for one of this run's own that only this machine reaches.
    ca, certificate, key : PEM files for TLS.
    insecure : talk to another machine without encryption.

    Raises
    ------
    ClusterError : another address, TLS without its files, another machine without encryption.

    Examples
    --------
    >>> Scheduler("tcp://127.0.0.1:8786").address
    'tcp://127.0.0.1:8786'
    >>> Scheduler("tcp://10.0.0.1:8786")
    Traceback (most recent call last):
    ...
    evbiodist.batch.cluster.ClusterError: --scheduler tcp://10.0.0.1:8786 is on another machine and not encrypted; ...
    """

    address: str
    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    insecure: bool = False

    def __post_init__(self) -> None:
        if self.address == OWN:
            return
        try:
            parts = urlsplit(self.address)
            whole = parts.scheme in ("tcp", "tls") and bool(parts.hostname) and parts.port is not None
        except ValueError:
            whole = False
        if not whole:
            raise ClusterError(
                f"--scheduler {self.address}: expected tcp://host:port, tls://host:port or {OWN}; correct it"
            )
        if parts.scheme == "tls" and not (self.ca and self.certificate and self.key):
            raise ClusterError(f"--scheduler {self.address} is encrypted; name --tls-ca, --tls-cert and --tls-key")
        if parts.scheme == "tcp" and not self.insecure and not _here(parts.hostname or ""):
            raise ClusterError(f"--scheduler {self.address} is on another machine and not encrypted; use tls://, or --insecure "
                               "where nobody else reaches that network")  # fmt: skip


def _here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def run_on_cluster(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    scheduler: Scheduler,
    workers: int = 1,
    limits: Limits | None = None,
) -> Iterator[tuple[int, Result | BaseException]]:
    """Run a function over tasks on a dask cluster and yield (position, result or exception) as they end.

    Parameters
    ----------
    function : importable by name there; tasks : picklable. Paths in them must lead to the same files on every worker.
    scheduler : where it listens.
    workers : processes, for a scheduler of this run's own.
    limits : of the process that each worker starts for a task.

    Yields
    ------
    (int, result or exception) : dask gives the task of a worker that died to another one, three times.

    Raises
    ------
    ClusterError : dask is not installed, nobody listens, another version of evbiodist, or the scheduler is gone.
    """
    from concurrent.futures import CancelledError

    with _client(scheduler, workers, limits) as client:
        _same_version(client)
        from distributed import as_completed
        from distributed.scheduler import KilledWorker

        rest = iter(range(len(tasks)))
        place: dict[Any, int] = {}
        threads = [1]

        def send() -> list[Any]:
            """Keep enough tasks under way for the workers there are now; those of a queue come and go."""
            with suppress(OSError):  # a scheduler that is gone shows in what was sent to it
                threads[0] = sum(client.nthreads().values())
            wanted = max(_AHEAD * threads[0], _AHEAD) - len(place)
            sent = []
            for i in itertools.islice(rest, max(wanted, 0)):
                sent.append(client.submit(_alone, function, tasks[i], limits, pure=False))
                place[sent[-1].key] = i
            return sent

        under_way = as_completed(send(), loop=client.loop)
        for future in under_way:
            error = future.exception()
            if isinstance(error, CancelledError) or future.status in ("cancelled", "lost"):
                raise ClusterError(f"the scheduler at {scheduler.address} is gone; what was finished is kept: start it again and run "
                                   "the same command")  # fmt: skip
            if isinstance(error, KilledWorker):
                error = RuntimeError(
                    "its workers died again and again (out of memory, or machines that were switched off)"
                )
            yield place.pop(future.key), future.result() if error is None else error
            future.release()
            under_way.update(send())


def _alone(function: Callable[[Any], Any], task: Any, limits: Limits | None) -> Any:
    """Run one task in a process of its own beside the worker, which outlives what happens there."""
    [(_, outcome)] = run_tasks(function, [task], 1, limits)
    return outcome


@contextmanager
def _client(scheduler: Scheduler, workers: int, limits: Limits | None) -> Iterator[Client]:
    try:
        import dask
        from distributed import Client, LocalCluster
        from distributed.security import Security
    except ImportError as err:
        raise ClusterError("--scheduler needs dask; install it with: pip install 'evbiodist[cluster]'") from err
    quiet = {"distributed.logging.distributed": "critical", "distributed.scheduler.allowed-failures": 3}
    with dask.config.set(quiet):
        if scheduler.address == OWN:
            # memory is bounded where the work is done, in the process that each worker starts
            own = LocalCluster(n_workers=workers, threads_per_worker=1, host="127.0.0.1", dashboard_address=None,
                               memory_limit=0, protocol="tcp")  # fmt: skip
            with own, Client(own) as client:
                yield client
            return
        security = Security(tls_ca_file=scheduler.ca, tls_client_cert=scheduler.certificate, tls_client_key=scheduler.key,
                            require_encryption=True) if scheduler.ca else None  # fmt: skip
        try:
            client = Client(scheduler.address, security=security, timeout=_PATIENCE, set_as_default=False)
        except (OSError, ValueError) as err:
            raise ClusterError(f"no scheduler answers at {scheduler.address} ({str(err).splitlines()[0]}); start one with: dask "
                               "scheduler") from err  # fmt: skip
        with client:
            yield client


def _same_version(client: Client) -> None:
    """Refuse workers that would compute otherwise."""
    found = client.run(version, "evbiodist")
    if not found:
        raise ClusterError("the scheduler has no workers; start one with: dask worker ADDRESS")
    others = sorted(set(found.values()) - {version("evbiodist")})
    if others:
        raise ClusterError(
            f"workers run evbiodist {', '.join(others)}, this is {version('evbiodist')}; install the same everywhere"
        )
