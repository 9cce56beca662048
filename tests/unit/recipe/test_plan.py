import pytest

from vitreous.recipe.plan import Choice, Plan, show
from vitreous.recipe.run_config import RunConfig


def test_page_holds_summary_choices_with_reasons_and_notes(config: RunConfig) -> None:
    choices = (Choice("data.img_size", (24, 36), "the images are so"), Choice("data.flip", False, "they are letters"))
    page = Plan(config, choices, ("few images",)).as_markdown(["60 images", "5 parameters"])
    assert page.splitlines() == [
        "# Plan (recipe `by-hand`)",
        "",
        "- 60 images",
        "- 5 parameters",
        "",
        "| key | value | why |",
        "|---|---|---|",
        "| `data.img_size` | 24x36 | the images are so |",
        "| `data.flip` | false | they are letters |",
        "",
        "Every key can be set: `vitreous train DATA --room.key value`. All of them stand in `config.yaml`.",
        "",
        "## Worth knowing",
        "",
        "- few images",
    ]


def test_page_without_notes_says_so(config: RunConfig) -> None:
    assert Plan(config, (), ()).as_markdown([]).endswith("## Worth knowing\n\n- none\n")


def test_names_with_bars_or_line_ends_stay_in_their_cell(config: RunConfig) -> None:
    page = Plan(config, (Choice("data.source", "/a|b", "cat|dog,\nbird"),), ()).as_markdown([])
    assert r"| `data.source` | /a\|b | cat\|dog, bird |" in page.splitlines()


def test_folder_whose_name_is_no_text_can_be_written(config: RunConfig) -> None:
    page = Plan(config, (Choice("data.source", "/caf\udce9", "the data"),), ()).as_markdown(["caf\udce9: 3 images"])
    assert "| `data.source` | /caf\ufffd | the data |" in page.encode().decode()


@pytest.mark.parametrize(
    ("value", "text"),
    [((24, 36), "24x36"), ((0.5, 0.25), "0.5,0.25"), (True, "true"), (1e-4, "0.0001"), (7, "7"), (None, "None"),
     ("mean", "mean"), (20.0, "20")],
)  # fmt: skip
def test_value_is_shown_as_a_person_writes_it(value: object, text: str) -> None:
    assert show(value) == text
