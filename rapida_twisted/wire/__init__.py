"""Bytes <-> typed frames and messages. No I/O, no Twisted, no clock."""
