"""Trained models -> answers over HTTP: a page for people, JSON for programs, the Open Inference Protocol."""
