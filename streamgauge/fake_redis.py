"""The last resort of `streamgauge up`: the fakeredis TCP server, for machines without any Redis.

In: a port. Out: a server on the loopback interface until SIGTERM. It keeps nothing: for trying out only.
"""

import signal
import sys
import threading
from types import FrameType

from fakeredis import TcpFakeServer


def main() -> int:
    """Serve until SIGTERM or SIGINT."""
    server = TcpFakeServer(("127.0.0.1", int(sys.argv[1])), server_type="redis")
    done = threading.Event()

    def finish(number: int, frame: FrameType | None) -> None:
        done.set()

    signal.signal(signal.SIGTERM, finish)
    signal.signal(signal.SIGINT, finish)
    threading.Thread(target=server.serve_forever, name="fake-redis", daemon=True).start()
    done.wait()
    server.shutdown()
    server.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
