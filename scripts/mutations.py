"""Removes one mechanism at a time and shows that the test of its invariant turns red.

Run `python scripts/mutations.py [--only NAME]`. Each mutation is a text in a file, what replaces it, and the tests
that must notice. The tree is copied, so that nothing here changes. Exit code 1: a mutation survived, its text is no
longer in its file, or its tests did not end in time, which proves nothing.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).resolve().parents[1]
COPIED: Final = ("aggregator", "contract", "database", "exporter", "optimizers", "producers", "streamgauge", "tests")
TIMEOUT_S: Final = 240


class Mutation(NamedTuple):
    """One mechanism taken away."""

    invariant: str
    name: str
    file: str
    before: str
    after: str
    test: str


MUTATIONS: Final = (
    Mutation(
        "I1",
        "no look into the ledger",
        "database/migrations/0002_apply.sql",
        "WHERE p.applied @> b.seq OR p.quarantined @> b.seq;",
        "WHERE false;",
        "tests/fundamentals/test_one_effect.py",
    ),
    Mutation(
        "I1",
        "a high-water mark instead of intervals",
        "database/migrations/0002_apply.sql",
        "WHERE p.applied @> b.seq OR p.quarantined @> b.seq;",
        "WHERE b.seq <= p.top_seq;",
        "tests/fundamentals/test_one_effect.py::test_order_of_delivery_does_not_matter",
    ),
    Mutation(
        "I1",
        "copies within one commit are not told apart",
        "aggregator/committer.py",
        "        ready.booked = list(first.values())\n",
        "",
        "tests/fundamentals/test_one_effect.py::test_copies_within_one_commit_are_applied_once",
    ),
    Mutation(
        "I2",
        "a gap is not recorded",
        "database/migrations/0002_apply.sql",
        "IF lo > p.top_seq + 1 THEN",
        "IF false THEN",
        "tests/fundamentals/test_no_silent_loss.py",
    ),
    Mutation(
        "I2",
        "a quarantined batch is not accounted for",
        "database/migrations/0013_bounds.sql",
        "quarantined_events = quarantined_events + n_events,",
        "",
        "tests/fundamentals/test_no_silent_loss.py::test_quarantined_events_are_part_of_the_sum",
    ),
    Mutation(
        "I3",
        "the tag of COMMIT is not looked at",
        "database/connect.py",
        'if tag != "COMMIT" or warnings:',
        "if not tag or warnings:",
        "tests/fundamentals/test_commit_then_ack.py::test_commit_answered_with_rollback_is_an_error",
    ),
    Mutation(
        "I3",
        "acknowledged before the commit",
        "aggregator/shard.py",
        "        await self.committer.finish(prepared)\n",
        "        await self._ack([e.stream_id for e in prepared.entries])\n"
        "        await self.committer.finish(prepared)\n",
        "tests/fundamentals/test_commit_then_ack.py::test_nothing_is_acknowledged_while_commit_fails",
    ),
    Mutation(
        "I3",
        "a duplicate commits without a write",
        "aggregator/committer.py",
        "if not ready.booked and not ready.copies:",
        "if not ready.booked:",
        "tests/fundamentals/test_commit_then_ack.py::test_acknowledging_a_duplicate_waits_for_a_write_of_its_own",
    ),
    Mutation(
        "I4",
        "commits that were slower than later ones are missed",
        "database/queries/exporter_touched.sql",
        "xid >= $2::text::xid8 AND NOT pg_visible_in_snapshot(xid, $1::text::pg_snapshot)",
        "xid >= pg_snapshot_xmax($1::text::pg_snapshot) AND $2::text IS NOT NULL",
        "tests/fundamentals/test_totals_never_go_back.py::test_commit_that_was_slower_than_a_later_one_is_not_missed",
    ),
    Mutation(
        "I4",
        "served although a failover is being repaired",
        "exporter/snapshot.py",
        'if row["fenced"]:',
        "if False:",
        "tests/fundamentals/test_totals_never_go_back.py::test_nothing_is_served_behind_a_fence",
    ),
    Mutation(
        "I4",
        "counts that are in no stream are not restored",
        "aggregator/failover.py",
        "    await restore(link, pool)\n",
        "",
        "tests/faults/test_postgres_failover.py::test_a_lost_tail_of_commits_is_folded_again",
    ),
    Mutation(
        "I5",
        "emitting checks its value",
        "producers/metrics.py",
        "        self.observe: Callable[[float], None] = self.values.append\n",
        "        self.observe: Callable[[float], None] = lambda v: self.values.append(float(v))\n",
        "tests/fundamentals/test_application_never_pays.py",
    ),
    Mutation(
        "I5",
        "a forked child keeps what it inherited",
        "producers/client.py",
        "            child.values.clear()\n",
        "            pass\n",
        "tests/fundamentals/test_prefork_totals_are_exact.py::test_prefork_totals_are_exact",
    ),
    Mutation(
        "I5",
        "batches pile up while Redis is away",
        "producers/sender.py",
        "return 0 if self.held else MAX_WAITING - len(self.waiting)",
        "return MAX_WAITING",
        "tests/fundamentals/test_application_never_pays.py::test_outage_costs_no_count_and_little_memory",
    ),
    Mutation(
        "I6",
        "the checksum is not compared",
        "contract/batch.py",
        "if checksum != checksum_of(data):",
        "if False:",
        "tests/fundamentals/test_one_bad_event.py",
    ),
    Mutation(
        "I6",
        "a data fault is not divided",
        "aggregator/committer.py",
        "        if len(ready.booked) == 1:\n            batch = ready.booked[0].batch\n",
        "        for batch in [b.batch for b in ready.booked[1:]]:\n"
        "            fault = BatchError(Quarantined.DATABASE, '')\n"
        "            await self._refuse(ready.lane, batch.entry, batch.envelope, batch, fault)\n"
        "        if ready.booked:\n            batch = ready.booked[0].batch\n",
        "tests/fundamentals/test_one_bad_event.py::test_data_fault_is_pinned_on_the_batch_that_causes_it",
    ),
    Mutation(
        "I7",
        "compaction forgets the windows that are still open",
        "database/rollup.py",
        "    await write(connection, PARTS.parent, merged.take(is_open), arrived_s=carry_to_s)\n",
        "",
        "tests/fundamentals/test_levels_agree.py",
    ),
    Mutation(
        "I7",
        "retention drops a partition without adding it to the archived base",
        "database/retention.py",
        '        await connection.execute(load("archive_rows").format(table=part.name), level)\n',
        "",
        "tests/fundamentals/test_levels_agree.py",
    ),
    Mutation(
        "thresholds",
        "incidents teach a threshold",
        "optimizers/thresholds/calibrate.py",
        "    drop = excluded | _incidents(at_s, values, rule, held)\n",
        "    drop = excluded\n",
        "tests/unit/optimizers/thresholds/test_rules.py",
    ),
    Mutation(
        "thresholds",
        "limits that a doubled hour would not cross are taken",
        "optimizers/thresholds/rules.py",
        "if not firings(at_s[last], is_over(values[last] * factor, limit[of[last]], side)):",
        "if False:",
        "tests/unit/optimizers/thresholds/test_rules.py",
    ),
    Mutation(
        "thresholds",
        "a pin does not hold against recalibration",
        "optimizers/thresholds/calibrate.py",
        "if old is not None and old.is_pinned:",
        "if False:",
        "tests/unit/optimizers/thresholds/test_rules.py",
    ),
)


def main() -> int:
    """Apply each mutation to a copy of the tree and run its tests."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", metavar="NAME", help="just the mutations whose name or invariant holds this text")
    only = parser.parse_args().only
    chosen = [m for m in MUTATIONS if only is None or only in m.name or only == m.invariant]
    results = [(mutation, run(mutation)) for mutation in announced(chosen)]
    print()
    for mutation, result in results:
        print(f"{mutation.invariant}  {result:<9} {mutation.name}")
    return int(not results or any(result != "red" for _, result in results))


def announced(mutations: Iterable[Mutation]) -> Iterable[Mutation]:
    """Say what is being tried; each takes seconds."""
    for mutation in mutations:
        print(f"{mutation.invariant}: {mutation.name} …", flush=True)
        yield mutation


def run(mutation: Mutation) -> str:
    """Return `red` (a test failed), `SURVIVED`, `STALE` (the text is not there), or what ended the tests instead."""
    with tempfile.TemporaryDirectory(prefix="sg-mutation-") as folder:
        tree = Path(folder)
        for name in COPIED:
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", tree)
        target = tree / mutation.file
        text = target.read_text()
        if text.count(mutation.before) != 1:
            return "STALE"
        target.write_text(text.replace(mutation.before, mutation.after))
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", mutation.test]
        environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
        try:
            code = subprocess.run(
                command, cwd=tree, env=environment, capture_output=True, timeout=TIMEOUT_S, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            return "TIME-OUT"
        # 1: tests failed. Anything else but 0 would be a broken run, which proves nothing.
        return {0: "SURVIVED", 1: "red"}.get(code, f"ERROR {code}")


if __name__ == "__main__":
    sys.exit(main())
