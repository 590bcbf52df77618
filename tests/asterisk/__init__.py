"""What we say to the PBX, against a scripted one."""
