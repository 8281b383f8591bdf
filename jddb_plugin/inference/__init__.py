"""Restoration of whole frames by any burst network, tile by tile: one engine for validation and for the restore command."""
