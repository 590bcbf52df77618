"""What holds for the orders that processes leave for one another, in every store."""

from __future__ import annotations

__all__ = ["LONGEST_QUEUE", "ORDER_S"]

LONGEST_QUEUE = 1000
"""Orders that may wait for one process: it takes them twice a second, so more means that it is gone, or stuck."""
ORDER_S = 60.0
"""How long an order waits to be taken; whoever gave it does not expect it to be carried out later than that."""
