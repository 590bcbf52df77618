"""A call store and notices for the webhook."""

from __future__ import annotations

from rapida_twisted.context import CallContext, CallProgress, CallStatus, record_of
from tests.store.shared.case import NOW, StoreTestCase, context


class NoticeTests(StoreTestCase):
    """Of one process."""

    async def test_notices(self) -> None:
        """Each change makes a notice if asked for: numbered, in order, with the moment's record, until dropped."""
        store = await self.outbound()
        changes: list[CallContext] = []
        for status in (CallStatus.INITIATED, CallStatus.RINGING, CallStatus.ANSWERED):
            progress = CallProgress(status=status, at=NOW + len(changes))
            changes.append(await store.follow(context().context_id, progress, notify=True))
        notices = await store.notices(10)
        self.assertEqual([notice.record for notice in notices], [record_of(changed) for changed in changes])
        self.assertEqual([notice.made_at for notice in notices], [NOW, NOW + 1, NOW + 2])
        self.assertEqual({notice.context_id for notice in notices}, {context().context_id})
        first, second, third = (notice.number for notice in notices)
        self.assertLess(first, second)
        self.assertEqual([notice.number for notice in await store.notices(1)], [first])
        self.assertEqual([notice.number for notice in await store.notices(9, after=first)], [second, third])
        for number in (first, third, third):
            await store.drop_notice(number)
        self.assertEqual([notice.number for notice in await store.notices(9)], [second])
        over = CallProgress(status=CallStatus.COMPLETED, at=NOW + 9)
        await store.follow(context().context_id, over, notify=True)
        self.assertGreater([notice.number for notice in await store.notices(9)][-1], third)
