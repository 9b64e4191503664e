"""Which form an Accept header asks for."""

import pytest

from headrace.api.forms import RowForm, form_of


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("", RowForm.JSON), ("*/*", RowForm.JSON), ("application/json", RowForm.JSON), ("TEXT/CSV", RowForm.CSV),
        ("text/html, text/csv;q=0.5", RowForm.CSV), ("text/csv;q=0.2, application/vnd.apache.parquet", RowForm.PARQUET),
        ("application/vnd.apache.arrow.stream", RowForm.ARROW), ("text/csv;q=0", None), ("image/png", None),
        ("text/csv;q=x, */*;q=0.1", RowForm.JSON), (";;,,", None),
    ],
)  # fmt: skip
def test_a_form_is_chosen(accept, form):
    assert form_of(accept) is form
