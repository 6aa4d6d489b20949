"""Report: the table and the picture of a load run, for a terminal and for docs/reliability.md.

In: a Result. Out: lines; the section of the page between the markers of its name. Promise: no host name and no path
gets into the page; what broke a promise is marked.
"""

import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.report import machine
from tests.faults.nemesis import say

DOCS: Final = Path(__file__).resolve().parents[2] / "docs"
PAGE: Final = DOCS / "reliability.md"
MOST_POINTS: Final = 600
"""Of a line in a picture."""
Points = Sequence[tuple[float, float]]


@dataclass
class Picture:
    """Panels of lines over minutes; a red line at each of `marks`."""

    title: str
    marks: Sequence[float]
    panels: list[tuple[str, Mapping[str, Points]]] = field(default_factory=list[tuple[str, Mapping[str, Points]]])

    def panel(self, unit: str, lines: Mapping[str, Points]) -> None:
        """Add a panel."""
        self.panels.append((unit, lines))

    def draw(self, file: Path) -> None:
        """Write it as SVG; the same figures give the same file."""
        import matplotlib

        matplotlib.use("svg")
        matplotlib.rcParams["svg.hashsalt"] = self.title
        import matplotlib.pyplot

        figure, axes = matplotlib.pyplot.subplots(
            len(self.panels), 1, figsize=(9, 2.6 * len(self.panels)), squeeze=False
        )
        for axis, (unit, lines) in zip(axes[:, 0], self.panels, strict=True):
            _panel(axis, unit, lines, self.marks)
        axes[-1, 0].set_xlabel("minutes", fontsize=8)
        figure.suptitle(self.title, fontsize=10)
        figure.tight_layout()
        figure.savefig(file, metadata={"Date": None})
        matplotlib.pyplot.close(figure)


def _panel(axis: Any, unit: str, lines: Mapping[str, Points], marks: Sequence[float]) -> None:
    for name, points in lines.items():
        shown = _thinned(points)
        axis.plot([t for t, _ in shown], [v for _, v in shown], linewidth=0.9, label=name)
    for mark in marks:
        axis.axvline(mark, color="#c1121f", linewidth=0.5, alpha=0.6)
    axis.set_ylabel(unit, fontsize=8)
    axis.set_yscale("log")
    axis.tick_params(labelsize=7)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7, ncols=4)


def _thinned(points: Points) -> Points:
    """Return the greatest of each few, so that the file stays small and no peak is lost."""
    few = -(-len(points) // MOST_POINTS) or 1
    return [max(points[at : at + few], key=lambda point: point[1]) for at in range(0, len(points), few)]


@dataclass
class Result:
    """What a run found."""

    name: str
    what: str
    rows: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    broken: list[str] = field(default_factory=list[str])
    picture: Picture | None = None

    def row(self, what: str, value: str) -> None:
        """Add a figure."""
        self.rows.append((what, value))

    def judge(self, what: str, value: str, is_kept: bool) -> None:
        """Add a figure that keeps a promise, or breaks it."""
        self.row(what, value if is_kept else f"{value} **BROKEN**")
        if not is_kept:
            self.broken.append(what)

    @property
    def is_kept(self) -> bool:
        """Whether every promise was kept."""
        return not self.broken

    def table(self) -> list[str]:
        """Return the rows in Markdown."""
        return ["| | |", "|---|---|", *(f"| {what} | {value} |" for what, value in self.rows)]


def seconds(value: float) -> str:
    """Return seconds as they are read."""
    return f"{value:.2f} s" if value < 10 else f"{value:.0f} s"


def mib(value: float) -> str:
    """Return MiB as they are read."""
    return f"{value:.0f} MiB"


class Progressing:
    """Says what a run is at, and how far."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)

    def say(self, text: str) -> None:
        """Name the part that begins."""
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    @contextmanager
    def during(self, length_s: float) -> Generator[None]:
        """Show a bar for a part of a known length, where somebody looks."""
        columns = (BarColumn(), TextColumn("{task.percentage:.0f} %"), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self._console, disable=not self._console.is_terminal) as bar:
            task, over = bar.add_task("", total=length_s), threading.Event()
            thread = threading.Thread(target=_advance, args=(bar, task, over), name="progress")
            thread.start()
            try:
                yield
            finally:
                over.set()
                thread.join()


def _advance(bar: Progress, task: Any, over: threading.Event) -> None:
    then_s = time.monotonic()
    while not over.wait(0.5):
        now_s = time.monotonic()
        bar.advance(task, now_s - then_s)
        then_s = now_s


def show(play: Callable[[Path, Progressing], Result], again: str) -> Result:
    """Run and print; a run that fails says how to repeat it, and where its logs are."""
    home = Path(tempfile.mkdtemp(prefix="sg-load-"))
    say(again)
    try:
        result = play(home, Progressing())
    except BaseException:
        say(f"FAILED; logs: {home}; again: {again}")
        raise
    say("\n".join(result.table()))
    for what in result.broken:
        say(f"BROKEN: {what}; logs: {home}; again: {again}")
    return result


def write(result: Result, how: str, page: Path = PAGE) -> None:
    """Replace the section of this run in the page, and its picture beside it."""
    name = result.name.lower()
    begin, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->\n"
    text = page.read_text()
    assert begin in text and end in text, f"{page.name} has no markers for {name}"
    image = page.parent / "img" / f"{name}.svg"
    image.parent.mkdir(exist_ok=True)
    lines = [f"{result.what}, {how}:", "", *result.table(), ""]
    if result.picture is not None:
        result.picture.draw(image)
        lines += [f"![{result.name}](img/{image.name})", ""]
    lines += [f"*{time.strftime('%Y-%m-%d')}, {machine()}*", ""]
    head, _, rest = text.partition(begin)
    page.write_text(head + begin + "\n".join(lines) + end + rest.partition(end)[2])
