"""The faults that ``benchmarks/faults`` injects into the real program under load; tests run their short forms."""
