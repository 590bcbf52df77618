"""The call context and the legal changes of its status."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

from twisted.trial.unittest import SynchronousTestCase

from rapida_twisted.context import (
    CallContext,
    CallProgress,
    CallStatus,
    ContextStatus,
    Direction,
    EndReason,
    record_of,
)


def context() -> CallContext:
    """A pending context."""
    return CallContext(context_id="c", assistant_id="1", created_at=1.0, expires_at=301.0)


NEVER_ANSWERED = (
    "busy", "no_answer", "congestion", "rejected", "unavailable", "not_placed", "cancelled", "no_media",
    "asterisk_gone",
)  # fmt: skip
"""Why an outbound call may have had no media."""


class CallContextTests(SynchronousTestCase):
    """pending -> claimed -> completed | failed, and pending -> expired; nothing else."""

    def test_new(self) -> None:
        """A new context is pending, inbound and anonymous, and says nothing of what has not been."""
        new = context()
        self.assertEqual((new.status, new.direction), (ContextStatus.PENDING, Direction.INBOUND))
        self.assertEqual((new.caller, new.called, new.transport, new.reason, dict(new.variables)), ("", "", "", "", {}))
        self.assertEqual((new.claimed_at, new.ended_at), (None, None))

    def test_frozen(self) -> None:
        """A context does not change: each step makes another one."""
        new = context()
        with self.assertRaises(FrozenInstanceError):
            new.caller = "1"  # type: ignore[misc]
        new.claimed(transport="audiosocket", peer="p", now=2.0)
        self.assertEqual(new, context())

    def test_variables_are_not_shared(self) -> None:
        """The variables that a context has by default can't be written to."""
        with self.assertRaises(TypeError):
            context().variables["a"] = "b"  # type: ignore[index]

    def test_claimed(self) -> None:
        """A claim adds transport, peer and time."""
        claimed = context().claimed(transport="audiosocket", peer="192.0.2.7:1", now=2.0)
        self.assertEqual(claimed.status, ContextStatus.CLAIMED)
        self.assertEqual((claimed.transport, claimed.peer, claimed.claimed_at), ("audiosocket", "192.0.2.7:1", 2.0))

    def test_ended(self) -> None:
        """The end adds reason, seconds and time; the reason decides whether the call failed."""
        claimed = context().claimed(transport="audiosocket", peer="", now=2.0)
        for reason in EndReason:
            ended = claimed.ended(reason=reason, audio_in_s=3.0, audio_out_s=4.0, now=9.0)
            self.assertEqual(ended.status, ContextStatus.FAILED if reason.failed else ContextStatus.COMPLETED)
            self.assertEqual((ended.reason, ended.audio_in_s, ended.audio_out_s), (reason.value, 3.0, 4.0))
            self.assertEqual((ended.claimed_at, ended.ended_at), (2.0, 9.0))

    def test_what_failed(self) -> None:
        """A hang-up from either side, a transfer and a shutdown are no failures."""
        self.assertEqual(
            {reason.value for reason in EndReason if reason.failed},
            {
                "assistant_failed",
                "protocol_error",
                "peer_stalled",
                "connection_lost",
                "upstream_failed",
                "server_lost",
                *NEVER_ANSWERED,
            },
        )

    def test_expired(self) -> None:
        """A context whose media never came is over, with that reason."""
        expired = context().expired(now=302.0)
        self.assertEqual((expired.status, expired.reason, expired.ended_at), (ContextStatus.EXPIRED, "expired", 302.0))

    def test_illegal(self) -> None:
        """Every other change is refused, and says what the context is."""
        claimed = context().claimed(transport="a", peer="", now=2.0)
        over = claimed.ended(reason=EndReason.SHUTDOWN, audio_in_s=0, audio_out_s=0, now=3.0)
        expired = context().expired(now=302.0)
        for fixed in (claimed, over, expired):
            with self.assertRaisesRegex(ValueError, f"c is {fixed.status.value}, not pending"):
                fixed.claimed(transport="a", peer="", now=4.0)
            with self.assertRaises(ValueError):
                fixed.expired(now=4.0)
        for fixed in (context(), over, expired):
            with self.assertRaisesRegex(ValueError, f"c is {fixed.status.value}, not claimed"):
                fixed.ended(reason=EndReason.SHUTDOWN, audio_in_s=0, audio_out_s=0, now=4.0)


class CallStatusTests(SynchronousTestCase):
    """How an outbound call goes."""

    def outbound(self, status: CallStatus = CallStatus.NEW) -> CallContext:
        """A context of a call that was placed."""
        return replace(context(), direction=Direction.OUTBOUND, call_status=status)

    def test_order(self) -> None:
        """A call goes on only: what is late, comes twice or comes behind its end changes nothing."""
        steps = list(CallStatus)
        for now in steps:
            for news in steps:
                followed = self.outbound(now).followed(CallProgress(status=news, at=5.0))
                expected = news if steps.index(news) > steps.index(now) and not now.over else now
                self.assertIs(followed.call_status, expected, (now, news))

    def test_inbound(self) -> None:
        """An inbound call is not followed."""
        self.assertIs(context().followed(CallProgress(status=CallStatus.ANSWERED, at=5.0)).call_status, None)

    def test_record(self) -> None:
        """A record shows the call's status and its times."""
        answered = self.outbound().followed(CallProgress(status=CallStatus.ANSWERED, at=5.0, dial_status="ANSWER"))
        record = record_of(answered.followed(CallProgress(status=CallStatus.COMPLETED, at=6.5, cause=16)))
        self.assertEqual((record["call_status"], record["cause"], record["dial_status"]), ("completed", 16, "ANSWER"))
        self.assertEqual(
            (record["answered"], record["hung_up"]), ("1970-01-01T00:00:05.000Z", "1970-01-01T00:00:06.500Z")
        )
