import pytest

from vitreous.recipe.plan import Choice, Plan
from vitreous.recipe.run_config import RunConfig
from vitreous.wording import show


def test_page_contains_summary_choices_with_reasons_and_notes(config: RunConfig) -> None:
    choices = (
        Choice("data.img_size", (24, 36), "all images are 24x36 px"),
        Choice("data.flip", False, "they are letters"),
    )
    page = Plan(config, choices, ("few images",)).as_markdown(["60 images", "5 parameters"])
    assert page.splitlines() == [
        "# Plan (recipe `by-hand`)",
        "",
        "- 60 images",
        "- 5 parameters",
        "",
        "| key | value | why |",
        "|---|---|---|",
        "| `data.img_size` | 24x36 | all images are 24x36 px |",
        "| `data.flip` | false | they are letters |",
        "",
        "To change a key: `vitreous train DATA --section.key value`. `config.yaml` lists all keys.",
        "",
        "## Worth knowing",
        "",
        "- few images",
    ]


def test_page_without_notes_says_so(config: RunConfig) -> None:
    assert Plan(config, (), ()).as_markdown([]).endswith("## Worth knowing\n\n- none\n")


def test_bars_and_line_breaks_in_names_do_not_break_the_table(config: RunConfig) -> None:
    page = Plan(config, (Choice("data.source", "/a|b", "cat|dog,\nbird"),), ()).as_markdown([])
    assert r"| `data.source` | /a\|b | cat\|dog, bird |" in page.splitlines()


def test_folder_with_an_undecodable_name_can_be_written(config: RunConfig) -> None:
    page = Plan(config, (Choice("data.source", "/caf\udce9", "the data"),), ()).as_markdown(["caf\udce9: 3 images"])
    assert "| `data.source` | /caf\\xe9 | the data |" in page.encode().decode()


@pytest.mark.parametrize(
    ("value", "text"),
    [((24, 36), "24x36"), ((0.5, 0.25), "0.5,0.25"), (True, "true"), (1e-4, "0.0001"), (7, "7"), (None, "none"),
     ("mean", "mean"), (20.0, "20")],
)  # fmt: skip
def test_value_is_shown_as_on_the_command_line(value: object, text: str) -> None:
    assert show(value) == text
