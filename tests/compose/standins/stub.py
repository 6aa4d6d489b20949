"""In the place of a program that Debian lacks: says so on every path of its port, and has no metrics.

It writes to its folder first, as the program would, and ends where it may not.
"""

import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Stub(BaseHTTPRequestHandler):
    """Answers that it is a stub."""

    def do_GET(self) -> None:
        body = b"" if self.path == "/metrics" else b"a stub of the compose test\n"
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


Path(sys.argv[2], "stub").write_text("written")
ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), Stub).serve_forever()
