"""States of calls in Stasis."""

from __future__ import annotations

from uuid import UUID

from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.net.bridge_states import BridgeStates


class BridgeStatesTests(SynchronousTestCase):
    """The states of the newest calls."""

    def test_states(self) -> None:
        """A call is not here, not bridged, then bridged."""
        states, call, other = BridgeStates(), str(UUID(int=1)), str(UUID(int=2))
        states.add(call)
        states.set_bridged(other)
        self.assertEqual((states.get(call), states.get(other)), (False, None))
        states.set_bridged(call)
        self.assertIs(states.get(call), True)

    def test_oldest_makes_room(self) -> None:
        """The newest 256 are kept."""
        states, calls = BridgeStates(), [str(UUID(int=number)) for number in range(300)]
        for call in calls:
            states.add(call)
            states.set_bridged(call)
        states.add(calls[0])
        self.assertEqual([states.get(call) for call in calls], [False] + [None] * 44 + [True] * 255)
