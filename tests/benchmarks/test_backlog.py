"""The sealed backlog is what producers would have sent: every batch decodes, and its seqs and counts go on."""

from aggregator.decode import BlockCache, Entry, decode
from benchmarks.backlog import Backlog, CounterBacklog
from contract.batch import read_envelope


def test_every_batch_decodes_and_the_producers_take_turns() -> None:
    backlog = Backlog(producers=2, series=30)
    blocks = BlockCache()
    decoded = [
        decode(Entry(shard, "0-0", data), read_envelope(data), blocks)
        for _ in range(2)
        for shard, data in backlog.seal(4, samples=3)
    ]
    assert [d.envelope.seq for d in decoded] == [1, 1, 2, 2, 3, 3, 4, 4]
    assert sum(d.envelope.events for d in decoded) == backlog.events == 8 * 90
    assert decoded[-1].sealed_after == 4 * 90
    assert len(set(decoded[0].samples.tolist())) == 90


def test_only_the_chosen_counters_grow() -> None:
    backlog = CounterBacklog(series=50)
    (_, data), *rest = backlog.seal(range(0, 50, 10))
    decoded = decode(Entry(0, "0-0", data), read_envelope(data), BlockCache())
    assert rest == [] and backlog.events == 5
    assert decoded.block.directory.keys[1] == b'bench_requests_total{route="r000010"}'
    assert decoded.counter_n.tolist() == [1] * 5
