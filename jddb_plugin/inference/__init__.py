"""Restoration of whole frames by any burst network, tile by tile: one engine for validation and for the restore command."""
import jddb_plugin.archs  # noqa: F401  (models import from here, so networks and models are registered first)
