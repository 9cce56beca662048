from vitreous.printable import printable, printable_error, printable_list


def test_untrusted_text_is_escaped_and_shortened() -> None:
    assert printable("tête.weight") == "tête.weight"
    assert printable("a\nb\x1b[2J") == r"a\nb\x1b[2J"
    assert printable("x" * 500, 10) == "xxxxxxxxxx…"


def test_list_of_names_is_sorted_and_shortened() -> None:
    assert printable_list(["b", "a", "d", "c"], 2) == "a, b and 2 more"
    assert printable_list({"b", "a"}, 2) == "a, b"
    assert printable_list(["z\n", "a"]) == r"a, z\n"


def test_error_is_one_short_line() -> None:
    assert printable_error(ValueError("first\n  second\x1b[2J")) == r"first second\x1b[2J"
    assert printable_error(KeyError()) == "KeyError"
    assert len(printable_error(ValueError("x" * 5000))) == 201
