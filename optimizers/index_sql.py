"""Statements that make and drop indexes, and those that undo them.

In: quoted table, column names as the catalogue has them. Out: SQL with a name of its own, so that it can be undone.
Promise: the name fits 63 bytes and is the same for the same columns.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import Final

MOST_BYTES: Final = 63


def quote(name: str) -> str:
    """Return an identifier as SQL writes it; always quoted unless it is plain and no reserved word can be meant."""
    # Quoting is harmless, and the list of reserved words is another in each version.
    return name if re.fullmatch(r"[a-z][a-z0-9_]*_[a-z0-9_]*", name) else '"' + name.replace('"', '""') + '"'


def index_name(table: str, columns: Sequence[str]) -> str:
    """Return the name of an index on columns of a table, both as the catalogue has them."""
    digest = hashlib.sha256("\0".join((table, *columns)).encode()).hexdigest()[:6]
    stem = re.sub(r"[^a-z0-9_]", "_", "_".join((table, *columns)).lower())
    return f"ix_{stem[: MOST_BYTES - 10]}_{digest}"


def create_index(schema: str, table: str, columns: Sequence[str], *, is_partitioned: bool) -> tuple[str, str]:
    """Return the statement that makes an index and the one that undoes it; `schema` is quoted, the rest is not.

    An index of a partitioned table cannot be made CONCURRENTLY: it locks writers out while it is built.
    """
    concurrently = "" if is_partitioned else "CONCURRENTLY "
    name = index_name(table, columns)
    listed = ", ".join(map(quote, columns))
    return (
        f"CREATE INDEX {concurrently}{name} ON {schema}.{quote(table)} ({listed})",
        f"DROP INDEX {concurrently}{schema}.{name}",
    )


def drop_index(name: str, *, is_partitioned: bool) -> str:
    """Return the statement that drops an index, quoted as SQL writes it."""
    return f"DROP INDEX {'' if is_partitioned else 'CONCURRENTLY '}{name}"
