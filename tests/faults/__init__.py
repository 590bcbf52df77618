"""Faults, put into the real program while calls are up. Here are short forms; the long ones are
in ``benchmarks/faults``."""
