"""Bridged calls: another server's assistant answers, with registration, far ends, a circuit breaker and a fallback."""
