"""Named SQL: each statement lives in a `.sql` file of this folder and is loaded by its name."""

from functools import cache
from importlib.resources import files


@cache
def load(name: str) -> str:
    """Return the text of `<name>.sql`."""
    return files(__name__).joinpath(f"{name}.sql").read_text()
