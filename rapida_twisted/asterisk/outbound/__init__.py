"""Outbound calls: trunks, limits, progress."""
