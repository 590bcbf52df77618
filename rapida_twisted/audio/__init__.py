"""Audio formats, conversion, the playout queue, clock drift, WAV files. Without Twisted; I/O only for WAV files."""
