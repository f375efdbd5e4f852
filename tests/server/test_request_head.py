"""Faults of a request's head, decided without a connection."""

import pytest

from broker.server.request_head import MAX_HEADERS, NOT_HTTP, head_fault

HOST = (b"host", b"broker.test")
CHUNKED = (b"transfer-encoding", b"chunked")

VALID = {
    "1.1": ("1.1", [HOST]),
    "1.0": ("1.0", [HOST]),
    "1.0 without a host": ("1.0", []),
    "chunked": ("1.1", [HOST, CHUNKED]),
    "chunked in any case": ("1.1", [HOST, (b"transfer-encoding", b" Chunked ")]),
    # The parser itself refuses these.
    "a coding after chunked": ("1.1", [HOST, (b"transfer-encoding", b"chunked, gzip")]),
    "another coding": ("1.1", [HOST, (b"transfer-encoding", b"gzip")]),
    "as many headers as allowed": ("1.1", [HOST, *[(b"x", b"1")] * (MAX_HEADERS - 1)]),
}


@pytest.mark.parametrize(("version", "headers"), VALID.values(), ids=VALID)
def test_a_valid_head_has_no_fault(version: str, headers: list[tuple[bytes, bytes]]) -> None:
    assert head_fault(version, headers) is None


FAULTS = {
    "2.0": ("2.0", [HOST], 400, "request"),
    "0.9 with a head": ("0.9", [], 400, "request"),
    "no host": ("1.1", [], 400, "host"),
    "two hosts": ("1.1", [HOST, HOST], 400, "host"),
    "two hosts in 1.0": ("1.0", [HOST, HOST], 400, "host"),
    "chunked in 1.0": ("1.0", [HOST, CHUNKED], 400, "request"),
    "gzip before chunked": (
        "1.1",
        [HOST, (b"transfer-encoding", b"gzip, chunked")],
        400,
        "transfer-encoding",
    ),
    "gzip in another line": (
        "1.1",
        [HOST, (b"transfer-encoding", b"gzip"), CHUNKED],
        400,
        "transfer-encoding",
    ),
    "an empty coding": (
        "1.1",
        [HOST, (b"transfer-encoding", b",chunked")],
        400,
        "transfer-encoding",
    ),
    "too many headers": ("1.1", [HOST, *[(b"x", b"1")] * MAX_HEADERS], 431, "headers"),
}


@pytest.mark.parametrize(("version", "headers", "status", "field"), FAULTS.values(), ids=FAULTS)
def test_a_fault_names_its_field(
    version: str, headers: list[tuple[bytes, bytes]], status: int, field: str
) -> None:
    fault = head_fault(version, headers)
    assert fault is not None
    assert (fault.status, fault.members["field"]) == (status, field)
    assert fault.code == NOT_HTTP.code == "invalid_request"
