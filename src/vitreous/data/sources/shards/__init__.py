"""Tar files in the WebDataset layout <-> samples."""
