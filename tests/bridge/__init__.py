"""Bridged calls."""
