"""Exposition: numbers, headers and blocks of lines in the Prometheus text form, 0.0.4 and OpenMetrics 1.0.

In: values as columns and prefixes made once per series. Out: bytes, and pages of them with their gzip member.
Promise: a value has one text, whatever it stands beside; sample lines are the same in both formats; pages whose
pieces did not change are neither joined nor compressed again. Concatenated gzip members are one stream (RFC 1952).
"""

from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np
from isal import igzip_lib
from numpy.typing import NDArray

from contract.metric import Kind

TEXT: Final = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PAGE_BYTES: Final = 1 << 16
GZIP_LEVEL: Final = 1

_EXACT: Final = 2.0**53
_TYPES: Final = {Kind.COUNTER: "counter", Kind.GAUGE: "gauge", Kind.HISTOGRAM: "histogram"}


def format_value(value: float) -> str:
    """Return the text of one value: integers without a point, else the shortest that reads back the same."""
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    if value.is_integer() and abs(value) < _EXACT:
        return str(int(value))
    return repr(value)


class _Text:
    """Something whose `%a` is a text of its own."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


_NAN: Final = _Text("NaN")
_INFINITE: Final = {True: _Text("+Inf"), False: _Text("-Inf")}


def printable(values: NDArray[np.float64]) -> list[Any]:
    """Return what `%a` writes as `format_value` would: whole numbers as ints, others as they are.

    One %-format of a template of bytes for many lines costs 70 ns a line; a text and a line of each, 270 ns.
    """
    whole = (np.trunc(values) == values) & (np.abs(values) < _EXACT)
    if whole.all():
        return values.astype(np.int64).tolist()
    if not whole.any() and np.isfinite(values).all():
        return values.tolist()
    return [_printable(value) for value in values.tolist()]


def _printable(value: float) -> Any:
    if value != value:
        return _NAN
    if value in (float("inf"), float("-inf")):
        return _INFINITE[value > 0]
    return int(value) if value.is_integer() and abs(value) < _EXACT else value


def format_bound(bound: float) -> str:
    """Return the `le` label of a bucket, as both client_python and OpenMetrics write it: `1.0`, `+Inf`."""
    return "+Inf" if bound == float("inf") else repr(float(bound))


def header(name: str, kind: Kind, text: str, unit: str, *, openmetrics: bool) -> bytes:
    """Return the HELP, TYPE and (OpenMetrics) UNIT lines of a family.

    In OpenMetrics a counter family is named without `_total`; a counter whose samples lack that suffix is of
    type unknown there, so that a sample has the same name in both formats.
    """
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
    kind_text = _TYPES[kind]
    if not openmetrics:
        return f"# HELP {name} {escaped}\n# TYPE {name} {kind_text}\n".encode()
    escaped = escaped.replace('"', '\\"')
    if kind is Kind.COUNTER:
        kind_text = "counter" if name.endswith("_total") else "unknown"
        name = name.removesuffix("_total")
    unit_line = f"# UNIT {name} {unit}\n" if unit and name.endswith("_" + unit) else ""
    return f"# HELP {name} {escaped}\n# TYPE {name} {kind_text}\n{unit_line}".encode()


def sample_template(key: str) -> bytes:
    """Return the %-template of the line of a counter or gauge."""
    return key.replace("%", "%%").encode() + b" %a\n"


def histogram_template(key: str, bounds: Sequence[float], *, with_sum: bool = True) -> bytes:
    """Return the %-template of one histogram's lines: cumulative counts, then sum and count.

    OpenMetrics has the count if and only if it has the sum; it is the +Inf bucket's.
    """
    name, _, labels = key.partition("{")
    labels = labels.removesuffix("}").replace("%", "%%")
    inside = labels + "," if labels else ""
    lines = [f'{name}_bucket{{{inside}le="{format_bound(bound)}"}} %d\n' for bound in (*bounds, float("inf"))]
    braces = f"{{{labels}}}" if labels else ""
    if with_sum:
        lines.append(f"{name}_sum{braces} %a\n{name}_count{braces} %d\n")
    return "".join(lines).encode()


class Page:
    """A run of pieces of the exposition with its joined bytes and its gzip member, each made when first asked for."""

    __slots__ = ("_gzip", "_plain", "pieces")

    def __init__(self, pieces: tuple[bytes, ...]) -> None:
        self.pieces = pieces
        self._plain: bytes | None = None
        self._gzip: bytes | None = None

    def plain(self) -> bytes:
        """Return the joined pieces."""
        if self._plain is None:
            self._plain = self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)
        return self._plain

    def gzip(self) -> bytes:
        """Return one gzip member."""
        if self._gzip is None:
            self._gzip = igzip_lib.compress(self.plain(), GZIP_LEVEL, igzip_lib.COMP_GZIP)
        return self._gzip

    def holds(self, pieces: tuple[bytes, ...]) -> bool:
        """Whether these very pieces are in it (by identity: a piece that did not change is the same object)."""
        return len(pieces) == len(self.pieces) and all(a is b for a, b in zip(pieces, self.pieces, strict=True))


def paginate(pieces: Iterable[bytes], before: Sequence[Page]) -> list[Page]:
    """Group pieces into pages of at least PAGE_BYTES; a page equal to one of `before` is that one."""
    known = {id(page.pieces[0]): page for page in before}
    pages: list[Page] = []
    run: list[bytes] = []
    size = 0
    for piece in pieces:
        if not piece:
            continue
        run.append(piece)
        size += len(piece)
        if size >= PAGE_BYTES:
            pages.append(_page(tuple(run), known))
            run, size = [], 0
    if run:
        pages.append(_page(tuple(run), known))
    return pages


def _page(pieces: tuple[bytes, ...], known: dict[int, Page]) -> Page:
    page = known.get(id(pieces[0]))
    return page if page is not None and page.holds(pieces) else Page(pieces)
