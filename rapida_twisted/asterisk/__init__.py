"""The PBX: its REST interface, outbound calls, Stasis, the vault, and its configuration."""
