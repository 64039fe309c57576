"""CSV that any reader takes back as it was, and no spreadsheet computes."""

import csv
import io

import pytest

from vibezen.metrics.spreadsheet import csv_lines


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "\0=1"])
def test_text_that_would_be_a_formula_is_made_inert(text: str) -> None:
    assert read(csv_lines([[text]])) == [["'" + text]]


def test_numbers_stay_numbers_and_nothing_is_empty() -> None:
    assert csv_lines([[-1.5, -2, None, 1e22]]) == "-1.5,-2,,1e+22\n"


@pytest.mark.parametrize("text", ["a,b", 'say "x"', "two\nlines", "a\rb", "a\r\nb", "ü€😀", "", " x "])
def test_any_text_comes_back(text: str) -> None:
    assert read(csv_lines([[text, 1], ["x", 2]])) == [[text, "1"], ["x", "2"]]


def read(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))
