"""What may run unasked: ANALYZE and plain VACUUM of named relations, nothing that hides behind them."""

import pytest

from optimizers.actions import is_automatic


@pytest.mark.parametrize(
    "sql",
    [
        "ANALYZE t",
        "ANALYZE public.t",
        'VACUUM "Odd ""name"""."t;x"',
        "VACUUM (ANALYZE) public.t",
        "VACUUM (FREEZE) a.b, a.c",
        "VACUUM (FREEZE, ANALYZE) a.b",
    ],
)
def test_automatic_statements(sql: str) -> None:
    """Each is allowed."""
    assert is_automatic(sql)


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "VACUUM",
        "ANALYZE",
        "VACUUM FULL t",
        "VACUUM (FULL) t",
        "VACUUM (FREEZE, FULL) t",
        "ANALYZE t; DROP TABLE t",
        "ANALYZE t -- x",
        "ANALYZE t\n",
        "ANALYZE t, ",
        "REINDEX TABLE t",
        'ANALYZE "t"; DROP TABLE "t"',
        "DROP TABLE t",
        "ANALYZE (VERBOSE) t",
        "ANALYZE a.b.c",
    ],
)
def test_other_statements(sql: str) -> None:
    """None is."""
    assert not is_automatic(sql)
