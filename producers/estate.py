"""Estate: what a dead producer left in the spool, sent by whoever finds it.

In: the spool's root, a clock, a way to deliver. Out: the dead producer's own batches, under its own id and seqs.
Promise: only what no living process holds is touched, by one finder at a time; a directory goes when everything in
it is acknowledged, so that a finder that dies too leaves it to the next; sent twice, it counts once (the ledger).
"""

import fcntl
import logging
import os
import re
import shutil
import stat
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from contract.batch import read_body, read_envelope, seal
from contract.windows import window_start_s
from producers.clock import UNKNOWN_UNCERTAINTY_US, Clock
from producers.drainer import Drainer
from producers.journal import SEGMENT_SUFFIX, Tail
from producers.seal import Sealer
from producers.spool import LOCK, SUFFIX, UNBORN, VERSION, Flush, write_flush

log = logging.getLogger(__name__)

EXPIRE_S: Final = 7 * 86400.0
"""As long as the ledger remembers a producer: what is older would be parked, whoever sends it."""
_NAME: Final = re.compile(rf"{re.escape(UNBORN)}?[0-9a-f]{{32}}")
"""A producer's directory; whatever else lies there is somebody else's."""
_decoder = msgspec.msgpack.Decoder(Flush)

Deliver = Callable[[bytes, Sequence[bytes]], bool]
"""(producer id, batches in order of seq) -> whether all are acknowledged. Raises what the sender raises."""


def settle_estates(root: Path, clock: Clock, deliver: Deliver) -> int:
    """Send what the dead left and remove it; returns how many estates are settled. Never raises."""
    settled = 0
    try:
        folders = sorted(folder for folder in root.iterdir() if _NAME.fullmatch(folder.name))
    except OSError:
        return 0
    for folder in folders:
        try:
            with claim(folder) as is_mine:
                settled += is_mine and _settle(folder, clock, deliver)
        except Exception as error:  # noqa: BLE001 - one estate that cannot be read or sent concerns nobody else
            log.warning("estate_left", extra={"folder": str(folder), "error": repr(error)})
    return settled


@contextmanager
def claim(folder: Path) -> Generator[bool, None, None]:
    """Hold a directory whose owner is dead: one of several finders does, the others get False."""
    found = folder.lstat()
    is_old = time.time() - found.st_mtime > EXPIRE_S
    # Others may write to a shared directory: what they put there is not ours to send.
    is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    if not is_ours or (folder.name.startswith(UNBORN) and not is_old):
        yield False
        return
    try:
        lock = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        if is_old:
            shutil.rmtree(folder, ignore_errors=True)
        yield False
        return
    try:
        yield _lock(lock, folder / LOCK)
    finally:
        os.close(lock)


def _lock(lock: int, path: Path) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Another finder may have settled and removed it between our open and our lock.
        return os.fstat(lock).st_ino == path.stat().st_ino
    except (BlockingIOError, FileNotFoundError):
        return False


def _settle(folder: Path, clock: Clock, deliver: Deliver) -> bool:
    files = sorted(folder.glob(f"*{SUFFIX}"))
    if files and time.time() - files[-1].stat().st_mtime > EXPIRE_S:
        log.warning("estate_expired", extra={"folder": str(folder), "files": len(files)})
        shutil.rmtree(folder, ignore_errors=True)
        return False
    flushes = [_decoder.decode(file.read_bytes()) for file in files]
    if any(flush.version != VERSION for flush in flushes):
        log.info("estate_of_another_version", extra={"folder": str(folder)})
        return False
    if flushes:
        flushes[-1] = _freeze(folder, int(files[-1].stem), flushes[-1], clock)
    batches = [data for flush in flushes for data in flush.sealed]
    if batches and not deliver(read_envelope(batches[0]).producer_id, batches):
        return False
    if batches:
        log.warning("estate_settled", extra={"producer": folder.name, "batches": len(batches)})
    shutil.rmtree(folder, ignore_errors=True)
    return True


def _freeze(folder: Path, number: int, last: Flush, clock: Clock) -> Flush:
    """Make drafts and tail batches, on disk before one is sent: whoever goes on must send the same bytes."""
    journal = list(folder.glob(f"*{SEGMENT_SUFFIX}"))
    if last.closed or not (last.drafts or journal):
        return last
    drafts = [_date(data, clock) for data in last.drafts]
    tail = _replay(folder, last, clock) if journal else []
    frozen = msgspec.structs.replace(last, sealed=[*last.sealed, *drafts, *tail], drafts=[], closed=True)
    write_flush(folder, number, frozen)
    return frozen


def _replay(folder: Path, last: Flush, clock: Clock) -> list[bytes]:
    """Return the batches of what was emitted after the last flush, and the farewell if that was all."""
    tail = Tail(folder, last.positions)
    at = last.numbering
    events = sum(read_envelope(data).events for data in last.drafts)
    # What cannot be recovered stays a gap in the sequence: it is counted as lost when the gap closes.
    sealer = Sealer(clock, last.service, last.run_id, bytes.fromhex(folder.name))
    sealer.numbering = msgspec.structs.replace(
        at, seq=at.seq + len(last.drafts) + (tail.unknown > 0), sealed_events=at.sealed_events + events + tail.unknown
    )
    sealer.dropped = dict(last.dropped)
    drainer = Drainer(sealer, clock)
    drainer.take_levels(tail.children, last.levels)
    drainer.drain(tail.children)
    batches = drainer.tick((), sys.maxsize) if drainer.has_pending() else []
    if tail.is_whole and not _said_farewell(last):
        batches.append(sealer.fin(clock.now_ms()))
    return [each.data for each in batches]


def _said_farewell(last: Flush) -> bool:
    return any(read_body(read_envelope(data), data).fin for data in last.sealed)


def _date(data: bytes, clock: Clock) -> bytes:
    """Return the batch, booked to now if its producer never learned the time."""
    envelope = read_envelope(data)
    body = read_body(envelope, data)
    if body.clock_uncertainty_us != UNKNOWN_UNCERTAINTY_US:
        return data
    now_ms = clock.now_ms()
    dated = msgspec.structs.replace(
        body,
        window_start_s=window_start_s(now_ms),
        span_start_ms=now_ms,
        flushed_ms=now_ms,
        clock_offset_us=clock.offset_us(),
        clock_uncertainty_us=clock.uncertainty_us(),
    )
    return seal(envelope.producer_id, envelope.seq, envelope.events, dated)
