"""The active calls of a process."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.errors import TooManyCalls
from rapida_twisted.media.call import Call
from rapida_twisted.media.calls import Calls
from tests.media.fakes import CallOnFakes


def make_call(context_id: str) -> Call:
    """A call that was not started."""
    return CallOnFakes(context_id=context_id, start=False).call


class CallsTests(SynchronousTestCase):
    """Look-up, limit, and word when the last one is gone."""

    def setUp(self) -> None:
        """Room for two calls."""
        self.calls = Calls(limit=2)

    def test_look_up(self) -> None:
        """A call is found by its contextId while it is up, and counted for ever."""
        first, second = make_call("a"), make_call("b")
        self.calls.add(first)
        self.calls.add(second)
        self.assertIs(self.calls.get("a"), first)
        self.assertIsNone(self.calls.get("c"))
        self.assertEqual((len(self.calls), list(self.calls)), (2, [first, second]))
        self.calls.remove(first)
        self.assertIsNone(self.calls.get("a"))
        self.assertEqual((len(self.calls), self.calls.total), (1, 2))

    def test_removing_while_walking(self) -> None:
        """Calls may end during an iteration."""
        for name in "ab":
            self.calls.add(make_call(name))
        for call in self.calls:
            self.calls.remove(call)
        self.assertEqual(len(self.calls), 0)

    def test_limit(self) -> None:
        """There is room up to the limit, and again when one is gone."""
        first, second = make_call("a"), make_call("b")
        self.calls.add(first)
        self.calls.check_room()
        self.calls.add(second)
        self.assertRaises(TooManyCalls, self.calls.check_room)
        self.calls.remove(first)
        self.calls.check_room()

    def test_when_empty_at_once(self) -> None:
        """Without calls the word comes at once."""
        self.successResultOf(self.calls.when_empty())

    def test_when_empty(self) -> None:
        """All waiting Deferreds fire when the last call has ended, and only then."""
        first, second = make_call("a"), make_call("b")
        self.calls.add(first)
        self.calls.add(second)
        waiting = [self.calls.when_empty() for _ in range(3)]
        self.calls.remove(first)
        for empty in waiting:
            self.assertNoResult(empty)
        self.calls.remove(second)
        self.calls.remove(second)
        for empty in waiting:
            self.successResultOf(empty)

    def test_no_longer_waiting(self) -> None:
        """A cancelled wait does not fire; the others do."""
        call = make_call("a")
        self.calls.add(call)
        cancelled, kept = self.calls.when_empty(), self.calls.when_empty()
        cancelled.cancel()
        self.failureResultOf(cancelled, CancelledError)
        self.calls.remove(call)
        self.successResultOf(kept)

    def test_waiting_again(self) -> None:
        """A callback may wait again, for calls that came meanwhile."""
        first, second = make_call("a"), make_call("b")
        self.calls.add(first)
        self.calls.when_empty().addCallback(lambda _: self.calls.add(second))
        self.calls.remove(first)
        again = self.calls.when_empty()
        self.assertNoResult(again)
        self.calls.remove(second)
        self.successResultOf(again)
