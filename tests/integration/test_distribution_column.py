"""What docs/scaling.md says about sharding PostgreSQL, held against the schema itself."""

from pathlib import Path

import asyncpg

SCALING = Path(__file__).parents[2] / "docs" / "scaling.md"
WITH_SERIES = """SELECT c.relname::text AS name FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
    WHERE c.relnamespace = 'streamgauge'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
    AND a.attname = 'series_id' ORDER BY 1"""
KEYS_WITHOUT = """SELECT c.relname::text AS name, i.indexrelid::regclass::text AS key FROM pg_index i
    JOIN pg_class c ON c.oid = i.indrelid JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'series_id'
    WHERE c.relnamespace = 'streamgauge'::regnamespace AND NOT c.relispartition
    AND i.indisunique AND NOT a.attnum = ANY (i.indkey) ORDER BY 1"""


async def test_every_key_of_the_values_holds_the_series_and_only_their_identity_has_another(dsn: str) -> None:
    connection = await asyncpg.connect(dsn, timeout=10)
    try:
        tables = [row["name"] for row in await connection.fetch(WITH_SERIES)]
        others = [(row["name"], row["key"].rpartition(".")[2]) for row in await connection.fetch(KEYS_WITHOUT)]
    finally:
        await connection.close(timeout=10)
    assert tables == ["archived", "gauges", "parts", "rollup_10s", "rollup_1h", "rollup_1m", "series", "totals"]
    assert others == [("series", "series_key_hash_key")]
    text = SCALING.read_text()
    assert [name for name in tables if f"`{name}`" not in text] == []
    assert "series_key_hash_key" in text
