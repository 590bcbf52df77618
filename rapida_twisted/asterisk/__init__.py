"""What we say to the PBX and to whoever configures it."""
