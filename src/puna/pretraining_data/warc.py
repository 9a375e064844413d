"""A small reader of web archives: the HTML bodies of WARC response records (ISO 28500), plain or gzipped."""

import gzip
import re
import zlib
from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path

from puna.core.errors import DataError

__all__ = ["read_warc"]


def read_warc(path: Path) -> Iterator[str]:
    """Yield the HTML of every successful response, in order.

    Raises:
        DataError: a record does not start as WARC says, or the file ends inside one.
    """
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as stream:
            for headers, block in _records(stream):
                if headers.get("warc-type") == "response":
                    html = _html(block)
                    if html is not None:
                        yield html
    except (OSError, EOFError, ValueError, zlib.error) as error:
        fix = "The archive is damaged or truncated: restore it."
        raise DataError(where=str(path), expected="a WARC file", got=str(error), fix=fix) from None


def _records(stream: BufferedIOBase) -> Iterator[tuple[dict[str, str], bytes]]:
    while line := stream.readline():
        if not line.strip():
            continue
        if not line.startswith(b"WARC/"):
            raise ValueError(f"a record that starts with {line[:20]!r}")
        headers = {}
        while (line := stream.readline()).strip():
            name, _, value = line.decode("utf-8", "replace").partition(":")
            headers[name.strip().lower()] = value.strip()
        length = int(headers.get("content-length", "0"))
        block = stream.read(length)
        if len(block) < length:
            raise ValueError("a record cut short")
        yield headers, block


def _html(response: bytes) -> str | None:
    """The decoded body of an HTTP response, when it is a successful HTML page."""
    head, _, body = response.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    content_type = headers.get("content-type", "")
    if " 200" not in status or "html" not in content_type:
        return None
    if "chunked" in headers.get("transfer-encoding", ""):
        body = _dechunk(body)
    if "gzip" in headers.get("content-encoding", ""):
        body = gzip.decompress(body)
    charset = re.search(r"charset=\"?([\w-]+)", content_type)
    try:
        return body.decode(charset[1] if charset else "utf-8", "replace")
    except LookupError:
        return body.decode("utf-8", "replace")


def _dechunk(body: bytes) -> bytes:
    """Undo HTTP/1.1 chunking (RFC 9112, §7.1); a body stored without it comes back as it is."""
    chunks, rest = [], body
    while rest:
        size, separator, rest = rest.partition(b"\r\n")
        if not separator or not re.fullmatch(rb"[0-9A-Fa-f]+(?:;.*)?", size):
            return body
        n_bytes = int(size.split(b";")[0], 16)
        if n_bytes == 0:
            break
        chunks.append(rest[:n_bytes])
        rest = rest[n_bytes + 2 :]
    return b"".join(chunks)
