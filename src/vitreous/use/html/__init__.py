"""Texts, events and numbers -> HTML: what all pages share, and cells of notebooks."""
