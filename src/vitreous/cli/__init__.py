"""Command line -> exit code; the only room that prints."""
