"""One picture per section: medians as bars, the spread as whiskers, the goal as a line; growth as curves.

In: a Section and a folder. Out: the name of the picture, or "" where matplotlib is not installed.
"""

from pathlib import Path
from typing import Any

from benchmarks.measure import OURS, Curve, Row, Section

WIDE_RANGE = 20.0


def plot(section: Section, folder: Path) -> str:
    """Draw the section into `bench-<name>.svg`."""
    try:
        import matplotlib
    except ImportError:
        return ""
    matplotlib.use("svg")
    # Without these two the file would differ from run to run where the figures do not.
    matplotlib.rcParams["svg.hashsalt"] = section.name
    import matplotlib.pyplot

    rows = list(reversed([row for row in section.rows if row.values]))
    if not rows:
        return ""
    if section.curves:
        figure, panels = matplotlib.pyplot.subplots(1, len(section.curves), figsize=(9, 3.6), squeeze=False)
        for axes, (axis, curves) in zip(panels[0], section.curves.items(), strict=True):
            _lines(axes, axis, curves, rows[0].unit)
    else:
        figure, axes = matplotlib.pyplot.subplots(figsize=(9, 0.9 + 0.36 * len(rows)))
        _bars(axes, rows)
    figure.suptitle(section.title, fontsize=10)
    name = f"bench-{section.name}.svg"
    figure.tight_layout()
    figure.savefig(folder / name, metadata={"Date": None})
    matplotlib.pyplot.close(figure)
    return name


def _lines(axes: Any, axis: str, curves: list[Curve], unit: str) -> None:
    for curve in curves:
        axes.plot(curve.xs, curve.ys, marker="o", label=curve.label)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel(axis, fontsize=8)
    axes.set_ylabel(unit, fontsize=8)
    axes.tick_params(labelsize=7)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=7)


def _bars(axes: Any, rows: list[Row]) -> None:
    medians = [row.median for row in rows]
    errors = [[row.median - min(row.values) for row in rows], [max(row.values) - row.median for row in rows]]
    colours = ["#2a6f97" if row.subject == OURS else "#b8b8b8" for row in rows]
    axes.barh(range(len(rows)), medians, xerr=errors, color=colours, ecolor="#555555", height=0.66)
    axes.set_yticks(range(len(rows)), [f"{row.work}: {row.subject}" for row in rows], fontsize=7)
    for at, row in enumerate(rows):
        if row.goal is not None:
            axes.plot([row.goal.bound] * 2, [at - 0.42, at + 0.42], color="#c1121f", linewidth=1.6)
    units = sorted({row.unit for row in rows})
    axes.set_xlabel(f"{', '.join(units)} (red: goal)", fontsize=8)
    axes.tick_params(axis="x", labelsize=7)
    positive = [m for m in medians if m > 0]
    if positive and max(positive) / min(positive) > WIDE_RANGE:
        axes.set_xscale("log")
