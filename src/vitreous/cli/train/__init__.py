"""`vitreous train` -> a run folder, or the folder of a series of runs."""

from vitreous.cli.train.command import train

__all__ = ["train"]
