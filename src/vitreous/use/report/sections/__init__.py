"""A finished run -> the sections of its report, one file each."""
