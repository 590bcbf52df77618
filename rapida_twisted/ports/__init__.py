"""Listening ports: endpoints, TLS certificates, connection limits, the PROXY protocol."""
