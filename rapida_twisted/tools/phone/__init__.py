"""``rapida-phone``: a telephone without an Asterisk."""
