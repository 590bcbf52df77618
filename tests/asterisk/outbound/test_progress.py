"""What ARI's events say of outbound calls: as a real Asterisk 22 sent them, see tests/live/test_outbound.py."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.asterisk.outbound.progress import ChannelNews, end_of, news_of, status_of_state
from rapida_twisted.context import CallStatus, EndReason

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "state", "x"]), inner),
    max_leaves=8,
)


class NewsTests(SynchronousTestCase):
    """Events."""

    def told(self, **event: Any) -> ChannelNews:
        """The news of an event that has some."""
        news = news_of(event)
        assert news is not None
        return news

    def test_dial(self) -> None:
        """Dialling tells of the channel that is dialled, and of no other."""
        for dial_status, status in [
            ("", CallStatus.INITIATED), ("RINGING", CallStatus.RINGING), ("PROGRESS", CallStatus.RINGING),
            ("ANSWER", CallStatus.ANSWERED), ("BUSY", None), ("NOANSWER", None), ("WHATEVER", None),
        ]:  # fmt: skip
            news = self.told(type="Dial", peer={"id": "p"}, caller={"id": "c"}, dialstatus=dial_status)
            self.assertEqual((news.channel_id, news.status, news.dial_status), ("p", status, dial_status))

    def test_state(self) -> None:
        """A channel's states."""
        for state, status in [
            ("Down", "initiated"),
            ("Dialing", "initiated"),
            ("Ringing", "ringing"),
            ("Up", "answered"),
        ]:
            news = self.told(type="ChannelStateChange", channel={"id": "c", "state": state})
            self.assertEqual((news.channel_id, news.status), ("c", status))
            self.assertEqual(status_of_state(state), status)

    def test_destroyed(self) -> None:
        """A channel's end, with its cause; what is no cause is none."""
        news = self.told(type="ChannelDestroyed", channel={"id": "c"}, cause=17, cause_txt="User busy")
        self.assertEqual((news.destroyed, news.cause, news.cause_text), (True, 17, "User busy"))
        for odd in (None, "17", True, [17]):
            news = self.told(type="ChannelDestroyed", channel={"id": "c"}, cause=odd, cause_txt=odd)
            self.assertEqual((news.destroyed, news.cause), (True, None))

    def test_others(self) -> None:
        """All other events say nothing."""
        for event in [
            {}, {"type": "Dial"}, {"type": "ChannelStateChange", "channel": None},
            {"type": "ChannelHangupRequest", "channel": {"id": "c"}}, {"type": "Dial", "peer": {"id": 1}},
        ]:  # fmt: skip
            self.assertIs(news_of(event), None)

    @given(st.dictionaries(st.sampled_from(["type", "channel", "peer", "dialstatus", "cause", "cause_txt"]), ANYTHING),
           st.sampled_from(["Dial", "ChannelStateChange", "ChannelDestroyed"]))  # fmt: skip
    def test_garbage(self, event: dict[str, Any], kind: str) -> None:
        """Nothing that calls itself an event raises."""
        for known in (event, {**event, "type": kind}):
            news = news_of(known)
            self.assertTrue(news is None or isinstance(news.channel_id, str))


class EndTests(SynchronousTestCase):
    """Why a call ended."""

    def reason(self, reached: CallStatus, dial_status: str, cause: int | None) -> EndReason | None:
        """Why a call failed."""
        end = end_of(reached=reached, cancelled=False, dial_status=dial_status, cause=cause, cause_text="words", at=7.0)
        self.assertEqual((end.status, end.cause, end.cause_text, end.at), (CallStatus.FAILED, cause, "words", 7.0))
        return end.reason

    def test_trunk(self) -> None:
        """As a SIP trunk ends: the cause tells more than dialling, which calls 404 and 603 NOANSWER."""
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
        """As a Local channel ends, without a cause; and one whose end nobody saw."""
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

    def test_answered_or_taken_back(self) -> None:
        """An answered call is completed whatever its cause; one that was taken back is cancelled."""
        for reached, cancelled, status, reason in [
            (CallStatus.ANSWERED, False, "completed", "no_media"),
            (CallStatus.ANSWERED, True, "completed", "no_media"),
            (CallStatus.RINGING, True, "cancelled", "cancelled"),
            (CallStatus.INITIATED, True, "cancelled", "cancelled"),
        ]:
            end = end_of(reached=reached, cancelled=cancelled, dial_status="", cause=19, cause_text="", at=1.0)
            self.assertEqual((end.status, end.reason), (status, reason))
