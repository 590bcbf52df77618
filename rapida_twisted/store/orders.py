"""The limits of the orders between processes, in every store."""

from __future__ import annotations

__all__ = ["LONGEST_QUEUE", "ORDER_S"]

LONGEST_QUEUE = 1000
"""Orders that may wait for one process. It takes them twice a second, so more means that it is gone or stuck."""
ORDER_S = 60.0
"""How long (s) an order waits to be taken; then it is dropped."""
