"""Run -> the files of its folder."""
