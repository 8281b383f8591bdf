"""Bursts on disk and as data sets."""
