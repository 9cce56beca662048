"""Choices, each with its reason -> Plan: the RunConfig and the page that explains it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from vitreous.data.sources.source import as_text
from vitreous.recipe.run_config import RunConfig

ASKED = "you asked for it"


@dataclass(frozen=True)
class Choice:
    """One key of a run, and why it has its value.

    Attributes:
        key: Dotted, as on the command line.
        value: Of the key's type.
        reason: One clause, for people.
    """

    key: str
    value: Any
    reason: str


@dataclass(frozen=True)
class Plan:
    """What a run will do and why.

    Attributes:
        config: Complete.
        choices: Those that were made for this data set, machine and budget; what is not listed is a default.
        notes: Consequences worth knowing before the run, one sentence each.
    """

    config: RunConfig
    choices: tuple[Choice, ...]
    notes: tuple[str, ...]

    def as_markdown(self, summary: Iterable[str]) -> str:
        """The page `plan.md`: a summary, the choices with their reasons, the consequences.

        Args:
            summary: Sentences on the data and the model to begin with.
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
                "Every key can be set: `vitreous train DATA --room.key value`. All of them stand in `config.yaml`.",
                "",
                "## Worth knowing",
                "",
                *notes,
                "",
            ]
        )
        return as_text(page)


def show(value: object) -> str:
    """A value as a person would write it on the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        separator = "x" if all(isinstance(item, int) for item in value) else ","
        return separator.join(show(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    """Text that stays in its cell: classes and folders may have any name."""
    return " ".join(text.split()).replace("|", r"\|")
