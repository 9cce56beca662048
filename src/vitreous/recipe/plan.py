"""Choices, each with its reason -> Plan: the RunConfig and the page that explains it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from vitreous.data.sources.source import as_text
from vitreous.recipe.pace import Pace
from vitreous.recipe.run_config import RunConfig
from vitreous.wording import show

ASKED = "you asked for it"


@dataclass(frozen=True)
class Choice:
    """One key of a run, as on the command line, its value, and the reason for it, one clause that the user sees."""

    key: str
    value: Any
    reason: str


@dataclass(frozen=True)
class Plan:
    """What a run will do, and why.

    Attributes:
        config: The complete configuration.
        choices: The keys that were chosen for this data set, machine and budget; all other keys have their defaults.
        notes: What the user should know before the run starts, one sentence each.
        pace: Measured time of the training steps; None if nothing was measured.
        advice: What the plan means and what would change it, one sentence each.
    """

    config: RunConfig
    choices: tuple[Choice, ...]
    notes: tuple[str, ...]
    pace: Pace | None = None
    advice: tuple[str, ...] = ()

    def as_markdown(self, summary: Iterable[str]) -> str:
        """Return the page `plan.md`: summary, choices with their reasons, notes.

        The summary has sentences on the data and the model, which are shown first.
        """
        rows = [f"| `{choice.key}` | {_cell(show(choice.value))} | {_cell(choice.reason)} |" for choice in self.choices]
        notes = [f"- {note}" for note in self.notes] or ["- none"]
        page = "\n".join(
            [
                f"# Plan (recipe `{self.config.recipe}`)",
                "",
                *(f"- {sentence}" for sentence in summary),
                "",
                "| key | value | why |",
                "|---|---|---|",
                *rows,
                "",
                "To change a key: `vitreous train DATA --section.key value`. `config.yaml` lists all keys.",
                "",
                "## Worth knowing",
                "",
                *notes,
                "",
            ]
        )
        return as_text(page)


def _cell(text: str) -> str:
    """Escape text for a table cell; names of classes and folders may contain bars and line breaks."""
    return " ".join(text.split()).replace("|", r"\|")
