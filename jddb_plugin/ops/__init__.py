"""Arithmetic on tensors: pure functions that know no option, no registry and no file."""
