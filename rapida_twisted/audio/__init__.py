"""Audio: samples in, samples out. Pure: no I/O but WAV files, no Twisted, no clock."""
