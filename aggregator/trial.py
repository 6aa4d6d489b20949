"""Trial: decodes one batch from standard input in a process of its own, so that a crash harms nobody.

Run as `python -m aggregator.trial`. Exit code 0: it decodes, or fails as decoding may fail.
"""

import asyncio
import sys

from aggregator.decode import BlockCache, Entry, decode
from contract.batch import BatchError, read_envelope

TRIAL_TIMEOUT_S = 20.0


def main() -> int:
    """Decode standard input once."""
    data = sys.stdin.buffer.read()
    try:
        decode(Entry(0, "0-0", data), read_envelope(data), BlockCache())
    except BatchError:
        return 0
    return 0


async def survives(data: bytes) -> bool:
    """Whether decoding `data` in a child process ends by itself and without a crash."""
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "aggregator.trial", stdin=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        await asyncio.wait_for(child.communicate(data), TRIAL_TIMEOUT_S)
    except TimeoutError:
        child.kill()
        await child.wait()
        return False
    return child.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
