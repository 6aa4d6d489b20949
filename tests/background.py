"""Background: something that goes on in a thread for as long as a block lasts."""

import threading
from types import TracebackType
from typing import Self

JOIN_S = 30.0


class Background:
    """A thread from the beginning to the end of a block; `_run` returns soon after `_stop` is set."""

    def __init__(self, name: str) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join(JOIN_S)

    def _run(self) -> None:
        raise NotImplementedError
