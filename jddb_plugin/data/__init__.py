"""Bursts on disk and as data sets.

The two data sets import from basicsr, which imports them when it registers them; so they import nothing from each other. All
else does without basicsr: processes that build an LMDB start faster.
"""
