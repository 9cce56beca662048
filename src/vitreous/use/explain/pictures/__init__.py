"""Patch values, photo -> pictures of an explanation: maps in photo pixels, overlays, figures and contact sheets."""
