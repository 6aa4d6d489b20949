"""How long fuzzing goes on: a few examples in the suite, as many as FUZZ_EXAMPLES says in `make fuzz`.

What fails is printed with a `@reproduce_failure` line: put above the test it runs that example again.
"""

import os
from typing import Any, Final, cast

from hypothesis import HealthCheck, settings

ASKED: Final = int(os.environ.get("FUZZ_EXAMPLES", "0"))


def examples(count: int) -> Any:
    """Return settings of a test that tries `count` examples, or as many as were asked for."""
    return settings(
        max_examples=ASKED or count,
        deadline=None,
        database=None,
        print_blob=True,
        suppress_health_check=cast("Any", list(HealthCheck)),
    )
