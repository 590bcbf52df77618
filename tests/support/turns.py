"""A reactor whose turns the test makes. A ``task.Clock`` does at once what is to be done in the next turn."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Turns"]


class Turns:
    """Stands in for IReactorTime, for what is called later without a delay."""

    def __init__(self) -> None:
        self.calls: list[Callable[[], object]] = []

    def callLater(self, delay_s: float, call: Callable[[], object]) -> None:
        assert delay_s == 0
        self.calls.append(call)

    def turn(self) -> None:
        """The next turn."""
        calls, self.calls = self.calls, []
        for call in calls:
            call()
