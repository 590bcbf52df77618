"""A call over any transport: its audio in both directions, its digits and its end, and the clock of all calls."""
