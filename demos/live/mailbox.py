"""A mailbox with one place: whoever is slow gets the newest, and nothing piles up."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """Hands items from one thread to another; an item nobody fetched gives way to the next.

    Attributes:
        dropped: Items that gave way.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._item: T | None = None
        self._closed = False
        self._change = threading.Condition()

    def put(self, item: T) -> None:
        """Leave an item, in place of one that is still there."""
        with self._change:
            self.dropped += self._item is not None
            self._item = item
            self._change.notify()

    def take(self, timeout: float | None = None) -> T | None:
        """Fetch the item, waiting for one.

        Returns:
            None after ``timeout`` seconds, or when the box was closed and is empty.
        """
        with self._change:
            self._change.wait_for(lambda: self._item is not None or self._closed, timeout)
            item, self._item = self._item, None
            return item

    def close(self) -> None:
        """No more items will come; whoever waits is woken."""
        with self._change:
            self._closed = True
            self._change.notify_all()

    @property
    def ended(self) -> bool:
        """Closed, and nothing left to fetch."""
        with self._change:
            return self._closed and self._item is None
