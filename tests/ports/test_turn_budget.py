"""HTTP has a part of each turn of the reactor."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.ports.turn_budget import TurnBudget
from tests.support.turns import Turns


class TurnBudgetTests(SynchronousTestCase):
    """A budget of 1 ms, on a clock that the test moves."""

    def setUp(self) -> None:
        self.now_s = 1.0
        self.reactor = Turns()
        self.needed = True
        self.done: list[str] = []
        self.budget = TurnBudget(self.reactor, lambda: self.needed, 0.001, lambda: self.now_s)

    def work(self, seconds: float, name: str = "") -> None:
        """Something that takes time."""
        self.now_s += seconds
        self.done.append(name)

    def begin_and_end(self, seconds: float) -> bool:
        """One piece of work, if there is time."""
        if not self.budget.begin():
            return False
        self.work(seconds)
        self.budget.end()
        return True

    def turn(self) -> list[str]:
        """The next turn; gives what was done in it."""
        self.done.clear()
        self.reactor.turn()
        return list(self.done)

    def test_spent(self) -> None:
        """Work that follows on work has the rest of the budget, then none."""
        self.assertTrue(self.begin_and_end(0.0006))
        self.assertTrue(self.begin_and_end(0.0006))
        self.assertFalse(self.begin_and_end(0.0006))

    def test_pause(self) -> None:
        """After as long without work there is a whole budget."""
        self.assertTrue(self.begin_and_end(0.005))
        self.now_s += 0.0011
        self.assertTrue(self.begin_and_end(0.005))
        self.assertEqual(self.reactor.calls, [])

    def test_later(self) -> None:
        """What is left waits for further turns, in its order, and newcomers wait behind it."""
        for name in "abcde":
            self.budget.later(lambda name=name: self.work(0.0006, name))  # type: ignore[misc]
        self.now_s += 1
        self.assertFalse(self.begin_and_end(0.0))
        self.assertEqual([self.turn() for _ in range(4)], [["a", "b"], ["c", "d"], ["e"], []])
        self.now_s += 1
        self.assertTrue(self.begin_and_end(0.0))

    def test_once_a_turn(self) -> None:
        """What adds itself again has its next turn in the next turn."""

        def again() -> None:
            self.work(0.0, "again")
            if len(self.budget._waiting) < 2:
                self.budget.later(again)

        self.budget.later(again)
        self.assertEqual([self.turn(), self.turn()], [["again"], ["again"]])

    def test_not_needed(self) -> None:
        """Without calls there is no limit."""
        self.needed = False
        self.assertTrue(self.begin_and_end(0.005))
        self.assertTrue(self.begin_and_end(0.005))
        for name in "ab":
            self.budget.later(lambda name=name: self.work(0.005, name))  # type: ignore[misc]
        self.assertEqual(self.turn(), ["a", "b"])
