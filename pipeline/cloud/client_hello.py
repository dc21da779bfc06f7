"""What a TLS client says before anything is encrypted: which protocols it offers (RFC 8446, RFC 7301)."""

from __future__ import annotations

ALPN = 16  # the extension's number
HANDSHAKE, CLIENT_HELLO = 22, 1


def offered_protocols(record: bytes) -> list[str]:
    """The ALPN names in a TLS record with a ClientHello, such as ``["h2"]``; empty when there are none."""
    try:
        return _protocols(record)
    except (IndexError, UnicodeDecodeError):
        return []


def record_length(header: bytes) -> int:
    """Length of the first record's content, from its five bytes of header."""
    return int.from_bytes(header[3:5], "big")


def _protocols(record: bytes) -> list[str]:
    if record[0] != HANDSHAKE or record[5] != CLIENT_HELLO:
        return []
    position = 5 + 4 + 2 + 32  # record header, handshake header, version, random
    position += 1 + record[position]  # session id
    position += 2 + int.from_bytes(record[position : position + 2], "big")  # cipher suites
    position += 1 + record[position]  # compression methods
    end = position + 2 + int.from_bytes(record[position : position + 2], "big")
    position += 2
    while position + 4 <= end:
        kind = int.from_bytes(record[position : position + 2], "big")
        length = int.from_bytes(record[position + 2 : position + 4], "big")
        if kind == ALPN:
            return _names(record[position + 6 : position + 4 + length])
        position += 4 + length
    return []


def _names(data: bytes) -> list[str]:
    names, position = [], 0
    while position < len(data):
        length = data[position]
        names.append(data[position + 1 : position + 1 + length].decode("ascii"))
        position += 1 + length
    return names
