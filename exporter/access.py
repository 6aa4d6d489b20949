"""Access: who may read what the exporter serves when a token is configured.

In: a request's method and Authorization header. Out: whether it carries the token. Pure.
Promise: compared in constant time; HTTP Basic (what a browser can send when a person opens a page) opens reading only:
a browser adds it to requests that other sites start, so nothing is changed by it.
"""

import base64
import binascii
import hmac
from typing import Final

CHALLENGES: Final = ("Bearer", 'Basic realm="streamgauge", charset="UTF-8"')
"""One WWW-Authenticate each (browsers do not take a list apart): the second makes them ask for a password."""
READING: Final = frozenset({"GET", "HEAD"})


def carries_token(token: str, method: str, authorization: str) -> bool:
    """Whether the header is the bearer token, or, for reading, HTTP Basic with the token as password."""
    scheme, _, given = authorization.partition(" ")
    secret = given.strip().encode("latin-1", "replace")
    is_basic = scheme.lower() == "basic" and method in READING
    if is_basic:
        secret = _password(secret)
    return hmac.compare_digest(secret, token.encode()) and (is_basic or scheme.lower() == "bearer")


def _password(credentials: bytes) -> bytes:
    try:
        return base64.b64decode(credentials, validate=True).partition(b":")[2]
    except binascii.Error:
        return b""
