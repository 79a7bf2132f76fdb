"""Asking a server who it is, in its own protocol, without a client library: `headrace stack` needs none.

Both raise `OSError`, or what decoding raises, where nobody or somebody else answers.
"""

from __future__ import annotations

import socket
import struct


def kafka_cluster(host: str, port: int) -> tuple[set[int], str]:
    """Ask a broker for the brokers it sees alive and its cluster id: a Metadata request, version 2, written by hand to need no client."""
    metadata, version, correlation, client = 3, 2, 1, b"headrace"
    request = struct.pack(f">hhih{len(client)}si", metadata, version, correlation, len(client), client, 0)
    with socket.create_connection((host, port), timeout=2) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        with connection.makefile("rb") as answer:

            def number(form: str) -> int:
                return int(struct.unpack(f">{form}", answer.read(struct.calcsize(form)))[0])

            def text() -> str:
                return answer.read(max(number("h"), 0)).decode()

            number("i"), number("i")  # its length, our correlation id
            nodes = set()
            for _ in range(number("i")):
                nodes.add(number("i"))
                text(), number("i"), text()  # host, port, rack
            return nodes, text()


def redis_server_lines(host: str, port: int) -> str:
    """Ask a Redis-protocol server about itself; the answer as it came."""
    with socket.create_connection((host, port), timeout=2) as connection:
        connection.sendall(b"INFO server\r\n")
        with connection.makefile("rb") as answer:
            first = answer.readline()
            return (answer.read(int(first[1:])) if first.startswith(b"$") else first).decode()
