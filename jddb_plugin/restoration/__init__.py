"""Restoration of bursts: from files to pictures."""
