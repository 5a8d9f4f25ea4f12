"""A process of its own for work that may crash, hang or be called off: a window or a run outlives it.

Started by name (``python -m evbiodist.batch.child``), not by multiprocessing, which would run a user's own script again.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import IO, Any

_LENGTH = 8
_EVENT, _RESULT, _ERROR = "event", "result", "error"


class ChildDiedError(RuntimeError):
    """The process ended before its work did: a decoder crashed, or memory ran out."""


class CancelledWorkError(RuntimeError):
    """Somebody called the work off."""


class Child:
    """Runs functions in another process, one after the other; a process that died is replaced at the next call.

    Parameters
    ----------
    imports : modules that the process loads while it waits, so that the first call is quick.

    Examples
    --------
    >>> child = Child()
    >>> child.call(sorted, [3, 1, 2])
    [1, 2, 3]
    >>> child.close()
    """

    def __init__(self, imports: Sequence[str] = ()) -> None:
        self._imports = tuple(imports)
        self._process: subprocess.Popen[bytes] | None = None
        self._turn = threading.Lock()
        self._cancelled = False
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
        Exception : what the function raised; ChildDiedError when its process died; CancelledWorkError after `cancel`.
        """
        with self._turn:
            self._cancelled = False
            process = self._running()
            if not wanted():
                raise CancelledWorkError("called off before it began")
            try:
                _send(process.stdin, (function, args, tell is not None))
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
                if self._cancelled:
                    raise CancelledWorkError("called off; what was finished is kept") from None
                raise ChildDiedError("the process that read it died (a damaged file that crashes the decoder, or out of "
                                     "memory); export the file again, or close other programs") from None  # fmt: skip

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
            _send(self._process.stdin, (sys.path, self._imports))
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
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


def _serve() -> None:
    """Run what the other end sends until it closes; whatever the work prints goes to standard error."""
    inbox = os.fdopen(os.dup(0), "rb")
    outbox = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    path, imports = _receive(inbox)
    sys.path[:] = path
    from evbiodist.batch.engine import one_thread

    one_thread()
    for name in imports:
        importlib.import_module(name)
    while True:
        try:
            function, args, listening = _receive(inbox)
        except EOFError:
            return
        except Exception as err:  # arguments that cannot be rebuilt here
            _send(outbox, (_ERROR, _portable(err)))
            continue
        keywords = {"tell": lambda event: _send(outbox, (_EVENT, event))} if listening else {}
        try:
            answer: tuple[str, Any] = (_RESULT, function(*args, **keywords))
            _send(outbox, answer)
        except Exception as err:
            _send(outbox, (_ERROR, _portable(err)))


if __name__ == "__main__":
    _serve()
