"""The HTTP interface: registration, calls, outbound calls, health, metrics."""
