"""A process of its own for work that may crash, hang or be called off: a window or a run outlives it.

Started by name (``python -m evbiodist.batch.child``), not by multiprocessing, which would run a user's own script again.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, Any

_LENGTH = 8
_READY, _EVENT, _RESULT, _ERROR = "ready", "event", "result", "error"


class ChildDiedError(RuntimeError):
    """The process ended before its work did: a decoder crashed, or memory ran out."""


class ChildLateError(ChildDiedError):
    """The work took longer than it may."""


class CancelledWorkError(RuntimeError):
    """Somebody called the work off."""


@dataclass(frozen=True)
class Limits:
    """What a process may use before it is ended.

    Parameters
    ----------
    memory_bytes : of its own memory; None for no limit. Kept by the operating system on Linux, not on other systems.
    seconds : for one call; None for no limit.
    """

    memory_bytes: int | None = None
    seconds: float | None = None


class Child:
    """Runs functions in another process, one after the other; a process that died is replaced at the next call.

    Parameters
    ----------
    imports : modules that the process loads while it waits, so that the first call is quick.
    limits : of memory and time.

    Examples
    --------
    >>> child = Child()
    >>> child.call(sorted, [3, 1, 2])
    [1, 2, 3]
    >>> child.close()
    """

    def __init__(self, imports: Sequence[str] = (), limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._imports = tuple(imports)
        self._process: subprocess.Popen[bytes] | None = None
        self._turn = threading.Lock()
        self._cancelled = self._late = self._ready = False
        atexit.register(self.close)

    def start(self) -> None:
        """Start the process, unless it runs; it loads its modules while the caller goes on."""
        with self._turn:
            self._running()

    def call(
        self,
        function: Callable[..., Any],
        *args: Any,
        tell: Callable[[Any], None] | None = None,
        wanted: Callable[[], bool] = lambda: True,
    ) -> Any:
        """Return what ``function(*args)`` returns there.

        Parameters
        ----------
        function : importable by name; arguments and result must be picklable.
        tell : called here with everything that the function gives to its keyword ``tell`` there.
        wanted : asked when the turn comes: False where somebody called the work off while it waited.

        Raises
        ------
        Exception : what the function raised; ChildDiedError when its process died or took too long; CancelledWorkError
            after `cancel`.
        """
        with self._turn:
            self._cancelled = self._late = False
            process = self._running()
            if not wanted():
                raise CancelledWorkError("called off before it began")
            timer = self._timer()
            try:
                while not self._ready:  # loading libraries is no part of the work
                    self._ready = _receive(process.stdout)[0] == _READY
                if self.limits.seconds is not None:
                    timer.start()
                _send(process.stdin, (function, args, tell is not None, os.getcwd()))
                while True:
                    what, content = _receive(process.stdout)
                    if what == _EVENT and tell is not None:
                        tell(content)
                    elif what == _RESULT:
                        return content
                    elif what == _ERROR:
                        raise content
            except (EOFError, BrokenPipeError):
                self._end()
                raise self._why() from None
            finally:
                timer.cancel()

    def _timer(self) -> threading.Timer:
        """Return a clock that ends the process when its time is over."""

        def late() -> None:
            self._late = True
            if self._process is not None:
                self._process.kill()

        timer = threading.Timer(self.limits.seconds or 0.0, late)
        timer.daemon = True
        return timer

    def _why(self) -> Exception:
        """Return why the process is gone."""
        if self._cancelled:
            return CancelledWorkError("called off; what was finished is kept")
        if self._late:
            return ChildLateError(f"it took longer than {self.limits.seconds:g} s and was ended; export the file again, or allow "
                                  "more time")  # fmt: skip
        return ChildDiedError("the process that read it died (a damaged file that crashes the decoder, or out of "
                              "memory); export the file again, or close other programs")  # fmt: skip

    def cancel(self) -> None:
        """Kill the process; the call that waits for it raises CancelledWorkError."""
        self._cancelled = True
        process = self._process
        if process is not None:
            process.kill()

    def close(self) -> None:
        """End the process."""
        self.cancel()
        with self._turn:
            self._end()
        atexit.unregister(self.close)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._end()
            command = [sys.executable, "-m", __name__]
            quiet = {**os.environ, "PYTHONFAULTHANDLER": ""}
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=quiet)  # noqa: S603
            _send(self._process.stdin, (sys.path, self._imports, self.limits.memory_bytes))
        return self._process

    def _end(self) -> None:
        process, self._process, self._ready = self._process, None, False
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def _send(pipe: IO[bytes] | None, message: Any) -> None:
    assert pipe is not None  # noqa: S101
    data = pickle.dumps(message, protocol=5)
    pipe.write(len(data).to_bytes(_LENGTH, "little"))
    pipe.write(data)
    pipe.flush()


def _receive(pipe: IO[bytes] | None) -> Any:
    """Read a message that this program's other half wrote; EOFError where that one is gone."""
    assert pipe is not None  # noqa: S101
    head = pipe.read(_LENGTH)
    if len(head) < _LENGTH:
        raise EOFError
    data = bytearray(int.from_bytes(head, "little"))
    view, have = memoryview(data), 0
    while have < len(data):
        got = pipe.readinto(view[have:])  # type: ignore[attr-defined]
        if not got:
            raise EOFError
        have += got
    return pickle.loads(data)  # noqa: S301  from the process that was started above, never from a file


def _portable(err: BaseException) -> BaseException:
    """Return an error that can cross to another process: itself, or its words."""
    try:
        pickle.loads(pickle.dumps(err))  # noqa: S301
        return err
    except Exception:
        return ValueError(str(err))


def _limit(memory_bytes: int | None) -> None:
    """Bound this process's own memory, where the system can."""
    if memory_bytes is not None and sys.platform.startswith("linux"):
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))


def _serve() -> None:
    """Run what the other end sends until it closes; whatever the work prints goes to standard error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started this process ends it
    inbox = os.fdopen(os.dup(0), "rb")
    outbox = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    path, imports, memory_bytes = _receive(inbox)
    sys.path[:] = path
    from evbiodist.batch.engine import one_thread

    one_thread()
    for name in imports:
        importlib.import_module(name)
    _limit(memory_bytes)
    _send(outbox, (_READY, None))
    work: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(inbox, work), daemon=True).start()
    while True:
        answer = _answer(work.get(), outbox)
        try:
            _send(outbox, answer)
        except (pickle.PicklingError, TypeError, AttributeError) as err:
            _send(outbox, (_ERROR, ValueError(f"its result cannot leave the process: {err}")))


def _listen(inbox: IO[bytes], work: queue.SimpleQueue[Any]) -> None:
    """Pass on what arrives, and end this process with the one that started it, even in the middle of its work."""
    while True:
        try:
            work.put(_receive(inbox))
        except EOFError:
            os._exit(0)
        except Exception as err:  # arguments that cannot be rebuilt here
            work.put(err)


def _answer(message: Any, outbox: IO[bytes]) -> tuple[str, Any]:
    if isinstance(message, Exception):
        return _ERROR, _portable(message)
    function, args, listening, folder = message
    keywords = {"tell": lambda event: _send(outbox, (_EVENT, event))} if listening else {}
    try:
        os.chdir(folder)
        result = function(*args, **keywords)
    except MemoryError:
        return _ERROR, ValueError("it needs more memory than a process may use here; allow more, or run fewer at once")
    except Exception as err:
        return _ERROR, _portable(err)
    return _RESULT, result


if __name__ == "__main__":
    _serve()
