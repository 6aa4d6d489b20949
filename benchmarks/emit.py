"""Emit: what an observation costs the application, beside the other clients and a bare list append.

In: a scratch stack (the flusher sends to a real Redis). Out: a Section, nanoseconds an event.
Each subject runs in a process of its own, in turns; clients that send datagrams send them to a socket that drops.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from typing import Final

from benchmarks.measure import OURS, Section
from benchmarks.scratch import Scratch

SPOOLED: Final = "streamgauge, each emit spooled"
"""STREAMGAUGE_SPOOL_EVENTS: kill -9 loses nothing."""
SUBJECTS: Final = {
    OURS: "streamgauge",
    "prometheus_client, in-process": "prometheus",
    "prometheus_client, multi-process": "prometheus",
    "opentelemetry-sdk": "opentelemetry",
    "statsd client": "statsd",
    "datadog client": "datadog",
    "bare list append": "append",
    SPOOLED: "streamgauge",
}
WORKS: Final = (
    ("bound", "observe, bound child", 60.0),
    ("labels", "labels(...) then observe", 300.0),
    ("cpu", "with the flusher's share, 200 k/s", 250.0),
    ("flood", "with the flusher's share, 1 M/s", 250.0),
)
TIMEOUT_S: Final = 120


def run(full: bool) -> Section:
    """Run every subject in turns."""
    section = Section("emit", "Emit: cost for the application", less_is_better=True)
    found: dict[str, list[dict[str, float | None]]] = {name: [] for name in SUBJECTS}
    with Scratch() as stack:
        for _ in range(9 if full else 3):
            for name, subject in SUBJECTS.items():
                found[name].append(_measure(stack, name, subject))
    for work, title, goal in WORKS:
        for name in SUBJECTS:
            values = [value for round_ in found[name] if (value := round_.get(work)) is not None]
            if values:
                section.add(title, name, "ns", values, at_most=goal if name == OURS else None)
    _note_flusher(section, found[OURS])
    section.notes.append(
        "100 histogram series with 14 buckets; the loop over the values is part of each figure; processor time. "
        "OpenTelemetry has no reader that exports, statsd and datadog send timings to a loopback socket (datadog "
        "with its own buffering): all at their cheapest."
    )
    return section


def _note_flusher(section: Section, rounds: list[dict[str, float | None]]) -> None:
    for mode, pace, per_s in (("cpu", "200 k/s", 2e5), ("flood", "1 M/s", 1e6)):
        whole = statistics.median(round_[mode] or 0.0 for round_ in rounds)
        calling = statistics.median(round_[f"{mode}_calling"] or 0.0 for round_ in rounds)
        rest = max(0.0, whole - calling)
        section.notes.append(
            f"At {pace} the flusher takes {rest:.0f} ns of the {whole:.0f} ns an event ({rest / whole:.0%}), "
            f"{rest * per_s / 1e7:.1f} % of a core."
        )


def _measure(stack: Scratch, name: str, subject: str) -> dict[str, float | None]:
    measured: dict[str, float | None] = {}
    for mode in ("alone", "cpu", *(["flood"] if subject == "streamgauge" else [])):
        with tempfile.TemporaryDirectory(dir="/dev/shm" if name == SPOOLED else stack.home) as folder:
            command = [sys.executable, "-m", "benchmarks.emit_subject", subject, mode]
            environ = {**stack.environ, **_environ(name, folder)}
            done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
            measured |= json.loads(done.stdout)
    return measured


def _environ(name: str, folder: str) -> dict[str, str]:
    if name == SPOOLED:
        return {"STREAMGAUGE_SPOOL_DIR": folder, "STREAMGAUGE_SPOOL_EVENTS": "1"}
    return {"PROMETHEUS_MULTIPROC_DIR": folder} if "multi-process" in name else {}
