"""Who may read, with a token configured."""

import base64

import pytest

from exporter.access import carries_token


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


@pytest.mark.parametrize("given", ["Bearer s3cret", "bearer s3cret", basic("anybody:s3cret"), basic(":s3cret")])
def test_reading_takes_the_token_as_bearer_and_as_password(given: str) -> None:
    assert carries_token("s3cret", "GET", given)


@pytest.mark.parametrize(
    "given",
    [
        "",
        "s3cret",
        "Bearer",
        "Bearer s3cre",
        "Bearer s3cret2",
        "Basic s3cret",
        basic("s3cret"),
        basic("s3cret:"),
        "Basic ÿ",
    ],
)
def test_anything_else_is_refused(given: str) -> None:
    assert not carries_token("s3cret", "GET", given)


def test_a_password_that_a_browser_adds_by_itself_changes_nothing() -> None:
    assert not carries_token("s3cret", "POST", basic("anybody:s3cret"))
    assert carries_token("s3cret", "POST", "Bearer s3cret")


def test_a_token_outside_ascii_and_with_a_colon_works_as_password() -> None:
    assert carries_token("grün:geheim", "GET", basic("me:grün:geheim"))
