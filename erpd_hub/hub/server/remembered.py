"""What was worked out once from content that never changes, kept as text of bounded size."""

import threading
from collections import OrderedDict
from collections.abc import Callable


class Remembered:
    """Texts by key, as many as fit into `limit` characters; those not asked for longest go first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._texts: OrderedDict[str, str] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def get(self, key: str, make: Callable[[], str]) -> str:
        """The text of a key, made where there is none; two threads may make the same one."""
        with self._lock:
            text = self._texts.get(key)
            if text is not None:
                self._texts.move_to_end(key)
                return text
        text = make()
        with self._lock:
            self._size += len(text) - len(self._texts.pop(key, ""))
            self._texts[key] = text
            while self._size > self._limit:
                _, gone = self._texts.popitem(last=False)
                self._size -= len(gone)
        return text
