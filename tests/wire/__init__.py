"""The codecs: bytes in, frames out, and back."""
