"""The oracle's lines add up, and every kind of disagreement is found."""

from pathlib import Path

from streamgauge.load_oracle import Expected, OracleWriter, compare, read_oracle


def test_lines_of_several_bursts_and_processes_add_up(tmp_path: Path) -> None:
    for number in range(2):
        writer = OracleWriter(tmp_path / f"oracle.{number}")
        writer.write([("h", 0.5, (0.5, 1.0)), ("h", 0.6, (0.5, 1.0)), ("c", 2.0, None)])
        writer.write([("h", 7.0, (0.5, 1.0))])
        writer.close()
    assert read_oracle(tmp_path.glob("oracle.*")) == {"h": Expected(6, 16.2, [2, 2, 2]), "c": Expected(2, 4.0, [])}


def test_a_line_that_a_kill_cut_off_does_not_count(tmp_path: Path) -> None:
    file = tmp_path / "oracle.0"
    file.write_text('["c", 1, 1.0, []]\n["c", 1, 1.')
    assert read_oracle([file]) == {"c": Expected(1, 1.0, [])}


def test_sums_may_differ_by_rounding_and_counts_by_nothing() -> None:
    meant = {"h": Expected(2, 1.0, [1, 1])}
    assert compare(meant, {"h": Expected(2, 1.0 + 5e-10, [1, 1])}) == []
    assert [d.what for d in compare(meant, {"h": Expected(2, 1.0 + 5e-9, [1, 1])})] == ["sum"]
    assert [d.what for d in compare(meant, {"h": Expected(2, 1.0, [2, 0])})] == ["le"]
    assert [d.what for d in compare(meant, {"h": Expected(3, 1.0, [1, 1])})] == ["n", "le in all"]


def test_missing_and_unexpected_series_are_differences() -> None:
    one = {"c": Expected(1, 1.0, [])}
    assert [(d.key, d.what) for d in compare(one, {})] == [("c", "n"), ("c", "sum")]
    assert [(d.key, d.what) for d in compare({}, one)] == [("c", "n"), ("c", "sum")]
