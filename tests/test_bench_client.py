"""The client of the benchmarks: it must not count answers that it did not read to their end, or wrong ones."""

from __future__ import annotations

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from benchmarks import client


def test_a_body_of_known_length_is_read_whole(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/long").respond_with_data(b"x" * 1_000_000, headers={"ETag": '"a"'})
    reply = client.get(httpserver.port, "/long")
    assert (reply.status, len(reply.body), reply.headers["etag"]) == (200, 1_000_000, '"a"')


def test_a_body_in_chunks_is_put_together() -> None:
    assert client._joined(b"5\r\n[1,\r\n\r\n3\r\n 2]\r\n0\r\n\r\n") == b"[1,\r\n 2]"


def test_a_request_carries_its_headers_and_every_one_is_sent(httpserver: HTTPServer) -> None:
    seen = []

    def answer(request: Request) -> Response:
        seen.append(request.headers["If-None-Match"])
        return Response(status=304)

    httpserver.expect_request("/x").respond_with_handler(answer)
    client.storm(httpserver.port, "/x", {"If-None-Match": '"a"', "Connection": "keep-alive"}, 4, 304)
    assert seen == ['"a"'] * 4


def test_an_answer_of_another_status_ends_the_measurement(httpserver: HTTPServer) -> None:
    httpserver.expect_request("/gone").respond_with_data(b"", 404)
    with pytest.raises(RuntimeError, match="/gone should answer 200, said .*404"):
        client.storm(httpserver.port, "/gone", {}, 4, 200)
