"""Run -> the files of its folder, and the trackers that get a copy of its records."""
