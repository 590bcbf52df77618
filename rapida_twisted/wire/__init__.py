"""Codecs of the media protocols: bytes and text to typed frames and messages, and back. No I/O, no clock."""
