"""The progress of outbound calls from ARI's events, as a real Asterisk 22 sends them (tests/live/test_outbound.py)."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.asterisk.outbound.progress import ChannelUpdate, end_of, status_of_state, update_from
from rapida_twisted.context import CallStatus, EndReason

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "state", "x"]), inner),
    max_leaves=8,
)


class UpdateTests(SynchronousTestCase):
    """Events."""

    def update(self, **event: Any) -> ChannelUpdate:
        """The update of an event that holds one."""
        update = update_from(event)
        assert update is not None
        return update

    def test_dial(self) -> None:
        """A Dial event reports on the dialled channel only."""
        for dial_status, status in [
            ("", CallStatus.INITIATED), ("RINGING", CallStatus.RINGING), ("PROGRESS", CallStatus.RINGING),
            ("ANSWER", CallStatus.ANSWERED), ("BUSY", None), ("NOANSWER", None), ("WHATEVER", None),
        ]:  # fmt: skip
            update = self.update(type="Dial", peer={"id": "p"}, caller={"id": "c"}, dialstatus=dial_status)
            self.assertEqual((update.channel_id, update.status, update.dial_status), ("p", status, dial_status))

    def test_state(self) -> None:
        """A channel's states."""
        for state, status in [
            ("Down", "initiated"),
            ("Dialing", "initiated"),
            ("Ringing", "ringing"),
            ("Up", "answered"),
        ]:
            update = self.update(type="ChannelStateChange", channel={"id": "c", "state": state})
            self.assertEqual((update.channel_id, update.status), ("c", status))
            self.assertEqual(status_of_state(state), status)

    def test_destroyed(self) -> None:
        """A channel's end, with its cause; what is no cause is none."""
        update = self.update(type="ChannelDestroyed", channel={"id": "c"}, cause=17, cause_txt="User busy")
        self.assertEqual((update.destroyed, update.cause, update.cause_text), (True, 17, "User busy"))
        for odd in (None, "17", True, [17]):
            update = self.update(type="ChannelDestroyed", channel={"id": "c"}, cause=odd, cause_txt=odd)
            self.assertEqual((update.destroyed, update.cause), (True, None))

    def test_others(self) -> None:
        """Other events hold no update."""
        for event in [
            {}, {"type": "Dial"}, {"type": "ChannelStateChange", "channel": None},
            {"type": "ChannelHangupRequest", "channel": {"id": "c"}}, {"type": "Dial", "peer": {"id": 1}},
        ]:  # fmt: skip
            self.assertIs(update_from(event), None)

    @given(st.dictionaries(st.sampled_from(["type", "channel", "peer", "dialstatus", "cause", "cause_txt"]), ANYTHING),
           st.sampled_from(["Dial", "ChannelStateChange", "ChannelDestroyed"]))  # fmt: skip
    def test_garbage(self, event: dict[str, Any], kind: str) -> None:
        """Nothing that calls itself an event raises."""
        for known in (event, {**event, "type": kind}):
            update = update_from(known)
            self.assertTrue(update is None or isinstance(update.channel_id, str))


class EndTests(SynchronousTestCase):
    """Why a call ended."""

    def reason(self, reached: CallStatus, dial_status: str, cause: int | None) -> EndReason:
        """Why a call failed."""
        status, reason = end_of(status=reached, cancelled=False, dial_status=dial_status, cause=cause)
        self.assertEqual(status, CallStatus.FAILED)
        return reason

    def test_trunk(self) -> None:
        """The end of a SIP trunk's call: the cause is more exact than the dial status, NOANSWER for 404 and 603."""
        for reached, dial_status, cause, reason in [
            ("initiated", "BUSY", 17, "busy"),
            ("initiated", "NOANSWER", 1, "unavailable"),
            ("initiated", "CONGESTION", 34, "congestion"),
            ("initiated", "NOANSWER", 21, "rejected"),
            ("ringing", "RINGING", 19, "no_answer"),
            ("ringing", "", 19, "no_answer"),
            ("initiated", "", 19, "unavailable"),
            ("initiated", "NOANSWER", 18, "unavailable"),
        ]:
            self.assertEqual(
                self.reason(CallStatus(reached), dial_status, cause), reason, (reached, dial_status, cause)
            )

    def test_local(self) -> None:
        """The end of a Local channel, which has no cause; and an end that no event reported."""
        for reached, dial_status, cause, reason in [
            ("initiated", "BUSY", 0, "busy"),
            ("initiated", "CONGESTION", 0, "congestion"),
            ("ringing", "NOANSWER", 0, "no_answer"),
            ("initiated", "CHANUNAVAIL", 0, "unavailable"),
            ("ringing", "", None, "no_answer"),
            ("initiated", "", None, "unavailable"),
        ]:
            self.assertEqual(
                self.reason(CallStatus(reached), dial_status, cause), reason, (reached, dial_status, cause)
            )

    def test_answered_or_cancelled(self) -> None:
        """An answered call is completed whatever its cause; a cancelled one is cancelled."""
        for reached, cancelled, status, reason in [
            (CallStatus.ANSWERED, False, "completed", "no_media"),
            (CallStatus.ANSWERED, True, "completed", "no_media"),
            (CallStatus.RINGING, True, "cancelled", "cancelled"),
            (CallStatus.INITIATED, True, "cancelled", "cancelled"),
        ]:
            end = end_of(status=reached, cancelled=cancelled, dial_status="", cause=19)
            self.assertEqual(end, (status, reason))
