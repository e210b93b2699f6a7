import gzip
import http.client
import socket
import subprocess
import sys
import time

import pytest

HEAVY = [
    "pandas",
    "numpy",
    "statsmodels",
    "sqlite_utils",
    "pydantic",
    "joserfc",
    "cryptography",
    "requests",
    "apscheduler",
]


def test_the_web_process_imports_nothing_heavy():
    code = (
        "import sys, pathlib; from pricing.web.app import create_app\n"
        "app = create_app(pathlib.Path('x'), pathlib.Path('y'))\n"
        "assert app.test_client().get('/v1/').status_code == 503; print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "flask" in loaded and "pricing.published" in loaded
    assert loaded.isdisjoint(HEAVY)


@pytest.fixture
def served(trees):
    trees.write(1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = (
        "import sys, pathlib; from pricing.web.server import serve\n"
        "serve(pathlib.Path(sys.argv[1]), '127.0.0.1', int(sys.argv[2]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(trees.data), str(port)])
    try:
        for _ in range(150):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert process.poll() is None, "the server ended at once"
                time.sleep(0.1)
        yield trees, port
    finally:
        process.terminate()
        assert process.wait(timeout=20) == 0


def ask(port, path, method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.putrequest(method, path, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


def test_a_real_server_hands_out_the_bytes_and_follows_the_pointer(served):
    trees, port = served
    path = "/v1/indices/exchange-traded-metals"
    body = (trees.root / "releases/000001/indices/exchange-traded-metals.json").read_bytes()
    plain, got = ask(port, path)
    assert plain.status == 200 and got == body and plain.headers["Content-Length"] == str(len(body))
    assert "/" not in (plain.headers["Server"] or "")  # a name at most, no version
    zipped, got = ask(port, path, Accept_Encoding="gzip")
    assert zipped.headers["Content-Encoding"] == "gzip" and gzip.decompress(got) == body
    same, got = ask(port, path, If_None_Match=plain.headers["ETag"])
    assert same.status == 304 and got == b"" and same.headers["ETag"] == plain.headers["ETag"]
    head, got = ask(port, path, method="HEAD")
    assert head.status == 200 and got == b"" and head.headers["Content-Length"] == str(len(body))
    for wrong in ("/v1/..%2f..%2fstatus", "/v1/../../current", "/v1/%00"):
        assert ask(port, wrong)[0].status in (400, 404), wrong
    assert ask(port, path + "?from=2026-09&asOf=release:1")[0].status == 200
    assert ask(port, path + "?form=2026")[0].status == 400
    assert ask(port, path, method="DELETE")[0].status == 405
    trees.write(2)
    assert ask(port, "/readyz")[1].startswith(b'{"ready":true,"release":2')
