"""The command line from outside: exit codes, messages, machine-readable answers, and the running service."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from werkzeug.serving import make_server

import service
from benchmarks import small_world
from pricing.errors import PricingError
from pricing.web.app import create_app
from service import main

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module", autouse=True)
def _no_proxy() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            patched.delenv(name, raising=False)
            patched.delenv(name.upper(), raising=False)
        yield


def call(folder: Path, *arguments: object) -> Result:
    """Run a command; an exception that is no exit is a fault of ours and is raised here."""
    line = ["--quiet", "--config", str(folder / "config.toml"), *map(str, arguments)]
    return CliRunner().invoke(main, line, catch_exceptions=False)


def answer(folder: Path, *arguments: object, code: int = 0) -> Any:
    result = call(folder, *arguments, "--json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def fails(folder: Path, *arguments: object, code: int) -> str:
    """The message of a command that must fail, on the error stream, without a traceback."""
    result = call(folder, *arguments)
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output and result.stderr.strip()
    return " ".join(result.stderr.split())


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """A folder with settings whose sources answer nowhere."""
    small_world.write(tmp_path, "http://127.0.0.1:9")
    return tmp_path


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What each source publishes, as files."""
    folder = tmp_path_factory.mktemp("kept")
    for name in small_world.SOURCES:
        (folder / f"{name}.csv").write_bytes(small_world.document(name, 1))
    return folder


@pytest.fixture(scope="module")
def replayed(tmp_path_factory: pytest.TempPathFactory, kept: Path) -> Path:
    """Kept files of all sources backfilled, and two public releases deemed made in the past."""
    folder = tmp_path_factory.mktemp("replayed")
    small_world.write(folder, "http://127.0.0.1:9")
    for name in small_world.OPEN:
        answer(folder, "backfill", name, kept / f"{name}.csv")
    for day in ("2026-11-21", "2026-11-22"):
        answer(folder, "release", "--at", day)
    return folder


@pytest.fixture
def released(replayed: Path, tmp_path: Path) -> Path:
    """A copy of it, to be spoilt."""
    return Path(shutil.copytree(replayed, tmp_path / "copy"))


# ---------------------------------------------------------------------------- settings and usage


def test_without_settings_or_with_wrong_ones_every_command_ends_with_2_and_names_the_file(tmp_path: Path) -> None:
    commands = (["collect"], ["release"], ["status"], ["sources", "list"], ["keys", "list"], ["run"], ["serve"])
    for command in commands:
        assert str(tmp_path / "config.toml") in fails(tmp_path, *command, code=2)
    small_world.write(tmp_path, "http://127.0.0.1:9")
    file = tmp_path / "config.toml"
    file.write_text(file.read_text().replace('frequency = "daily"', 'frequency = "hourly"').replace("[web]", "[webb]"))
    for command in commands:
        message = fails(tmp_path, *command, code=2)
        assert "sources.days.series.0.frequency" in message and "webb: unknown key" in message


def test_wrong_usage_ends_with_2_and_says_what_there_is(settings: Path, kept: Path) -> None:
    assert "there are alpha, beta" in fails(settings, "collect", "alfa", code=2)
    assert "there are alpha, beta" in fails(settings, "backfill", "alfa", kept / "alpha.csv", code=2)
    assert "does not exist" in fails(settings, "backfill", "alpha", kept / "none.csv", code=2)
    assert "No such command" in fails(settings, "relaese", code=2)
    assert "No such option" in fails(settings, "release", "--when", "now", code=2)
    answer(settings, "backfill", "alpha", kept / "alpha.csv")
    for wrong in ("yesterday", "2026-13-01", "2026-11-20T14:00"):
        assert wrong in fails(settings, "release", "--at", wrong, code=2)


def test_a_live_database_takes_its_release_time_from_the_clock(settings: Path, kept: Path) -> None:
    answer(settings, "collect", "alpha", kept / "alpha.csv")
    assert "the clock says when a release is made" in fails(settings, "release", "--at", "2026-11-20", code=2)
    assert answer(settings, "release")["number"] == 1


def test_a_release_cannot_be_deemed_made_in_the_future_or_before_the_last(released: Path) -> None:
    assert "has not come yet" in fails(released, "release", "--at", "2199-01-01", code=2)
    assert "is not after release 2" in fails(released, "release", "--at", "2026-11-01", code=1)


# ----------------------------------------------------------------------------------- collecting


def test_collect_without_a_network_fails_for_each_source_and_says_so(settings: Path) -> None:
    rows = answer(settings, "collect", code=1)
    assert [r["source"] for r in rows] == list(small_world.SOURCES) or {r["source"] for r in rows} == set(
        small_world.SOURCES
    )
    assert {r["outcome"] for r in rows} == {"failed"} and all("127.0.0.1:9" in r["message"] for r in rows)
    assert {r["vintage"] for r in rows} == {None}
    state = answer(settings, "status")
    assert state["kind"] == "live" and state["releases"] == {}
    assert {s["reachable"] for s in state["sources"].values()} == {False}
    assert "collect or backfill first" in fails(settings, "release", code=1)
    assert "no release yet" in call(settings, "status").stdout


def test_backfill_tells_what_each_file_brought_and_marks_the_database(settings: Path, kept: Path) -> None:
    (row,) = answer(settings, "backfill", "alpha", kept / "alpha.csv")
    assert row.pop("vintage").startswith("2026-09-30T23:59:59"), "the end of its last month"
    assert row == {
        "source": "alpha", "file": "alpha.csv", "outcome": "new", "message": "",
        "new": 66, "revised": 0, "withdrawn": 0,
    }  # fmt: skip
    (again,) = answer(settings, "backfill", "alpha", kept / "alpha.csv")
    assert (again["outcome"], again["new"]) == ("unchanged", 0)
    assert answer(settings, "status")["kind"] == "replayed"


def test_a_file_that_is_refused_ends_with_1_and_keeps_no_other_from_being_loaded(
    settings: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "a.csv").write_bytes(small_world.PAGE)
    (folder / "b.csv").write_bytes(small_world.document("alpha", 1))
    rows = {r["file"]: r for r in answer(settings, "backfill", "alpha", folder, code=1)}
    assert rows["a.csv"]["outcome"] == "refused" and "no column 'date'" in rows["a.csv"]["message"]
    assert rows["b.csv"]["new"] == 66


# --------------------------------------------------------------------------------------- looking


def test_sources_are_listed_with_their_rights(settings: Path) -> None:
    rows = {r["source"]: r for r in answer(settings, "sources", "list")}
    assert set(rows) == set(small_world.SOURCES)
    assert rows["closed"]["values"] == "internal" and rows["alpha"]["values"] == "public"
    assert rows["alpha"]["schedule"] == "0 13 * * mon-fri UTC" and rows["alpha"]["series"] == 2


def test_a_file_can_be_tried_without_storing_anything(settings: Path, kept: Path) -> None:
    told = answer(settings, "sources", "try", "alpha", kept / "alpha.csv")
    assert told == {"published": None, "observations": 66, "series": 2, "absent": [], "findings": 0}
    shown = call(settings, "sources", "try", "alpha", kept / "alpha.csv").stdout
    assert "alpha-cobalt" in shown and "2026-09" in shown and "USD/t" in shown
    assert "no column" in fails(settings, "sources", "try", "rates", kept / "alpha.csv", code=1)
    assert not (settings / "data").exists()


def test_sources_that_cannot_be_reached_are_named_by_check(settings: Path) -> None:
    rows = answer(settings, "sources", "check", "alpha", "beta", code=1)
    assert [(r["source"], r["ok"]) for r in rows] == [("alpha", False), ("beta", False)]
    assert not (settings / "data").exists()


def test_keys_are_made_listed_exported_and_retired(settings: Path) -> None:
    kid = call(settings, "keys", "new").stdout.strip()
    (row,) = answer(settings, "keys", "list")
    assert row["kid"] == kid and row["exp"] is None and row["revoked"] is None
    (public,) = json.loads(call(settings, "keys", "export").stdout)["keys"]
    assert public["kid"] == kid and "d" not in public
    assert call(settings, "keys", "retire", kid).exit_code == 0
    assert answer(settings, "keys", "list")[0]["exp"] is not None
    assert "nobody" in fails(settings, "keys", "retire", "nobody", code=1)


# ---------------------------------------------------------------------------------------- verify


def test_a_release_verifies_by_number_by_word_and_by_folder(replayed: Path) -> None:
    for target in ("2", "latest", replayed / "data/public/releases/000002"):
        report = answer(replayed, "verify", target)
        assert report["ok"] is True and report["number"] == 2 and report["chain"] == [2, 1], target
        assert report["problems"] == [] and report["checked_files"] > 30 and report["key_id"]
    assert "chain of 2 to release 1" in call(replayed, "verify", "latest").stdout
    assert answer(replayed, "verify", "1")["chain"] == [1]


def test_what_is_not_there_cannot_be_verified(replayed: Path, settings: Path, tmp_path: Path) -> None:
    assert "release 3 does not exist" in fails(replayed, "verify", "3", code=1)
    assert "no release yet" in fails(settings, "verify", "latest", code=1)
    assert "--keys" in fails(settings, "verify", tmp_path / "nothing", code=2)


@pytest.mark.parametrize(
    "name", ["prices/nickel/metal/XCN.json", "indices.json.gz", "register.json", "methodology.toml", "manifest.jws"]
)
def test_one_byte_changed_ends_with_1_and_names_the_file(released: Path, name: str) -> None:
    path = released / "data/public/releases/000002" / name
    path.chmod(0o644)
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(bytes(whole))
    assert name in fails(released, "verify", "latest", code=1)
    report = answer(released, "verify", "latest", code=1)
    assert report["ok"] is False and any(line.startswith(name) for line in report["problems"])


def test_a_changed_manifest_of_an_earlier_release_breaks_the_chain(released: Path) -> None:
    path = released / "data/public/releases/000001/manifest.json"
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b'"number":1', b'"number":1 ', 1))
    assert "000001/manifest.json" in fails(released, "verify", "2", code=1)
    assert call(released, "verify", "2", "--no-chain").exit_code == 0


@pytest.fixture(scope="module")
def address(replayed: Path) -> Iterator[str]:
    """The releases served on loopback by a threaded server."""
    data = replayed / "data"
    server = make_server("127.0.0.1", 0, create_app(data / "public", data / "status.json"), threaded=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_release_verifies_at_its_address_and_without_any_settings(
    address: str, replayed: Path, tmp_path: Path
) -> None:
    report = answer(tmp_path, "verify", f"{address}/v1/releases/2")
    assert report["ok"] is True and report["chain"] == [2, 1]
    key_set = replayed / "data/public/jwks.json"
    assert answer(tmp_path, "verify", f"{address}/v1/releases/1/manifest.json", "--keys", key_set)["ok"] is True


def test_an_address_that_is_no_release_and_a_foreign_key_end_with_1(address: str, tmp_path: Path) -> None:
    assert "/v1/releases/9" in fails(tmp_path, "verify", f"{address}/v1/releases/9", code=1)
    assert "127.0.0.1:9" in fails(tmp_path, "verify", "http://127.0.0.1:9/v1/releases/1", code=1)
    small_world.write(tmp_path, "http://127.0.0.1:9")
    call(tmp_path, "keys", "new")
    foreign = tmp_path / "data/public/jwks.json"
    assert "manifest.jws" in fails(tmp_path, "verify", f"{address}/v1/releases/2", "--keys", foreign, code=1)


# --------------------------------------------------------------------------------------- running


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def ask(port: int, path: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", path)
        got = connection.getresponse()
        return got.status, json.loads(got.read())
    finally:
        connection.close()


def told(process: subprocess.Popen[str], port: int, path: str, claim: Any) -> Any:
    """Ask until the claim holds of the answer."""
    deadline = time.monotonic() + 60
    last: Any = None
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        try:
            last = ask(port, path)
            if claim(last):
                return last
        except (OSError, ValueError):
            pass
        time.sleep(0.1)
    raise AssertionError(f"{path} did not come to say so within a minute; last it said {last}")


@pytest.fixture
def running(settings: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    port = free_port()
    small_world.write(settings, "http://127.0.0.1:9", port=port)
    command = [sys.executable, str(ROOT / "service.py"), "--config", str(settings / "config.toml"), "run"]
    env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    process = subprocess.Popen(
        command,
        env=env,
        cwd=settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process, port
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def test_run_without_any_network_starts_says_what_is_missing_and_ends_on_sigterm(
    running: tuple[subprocess.Popen[str], int],
) -> None:
    process, port = running
    names = set(small_world.SOURCES)
    status, body = told(process, port, "/readyz", lambda a: len(a[1]["unreachable"]) == len(names))
    assert status == 503 and body["ready"] is False and body["release"] is None
    assert {f"source {n} cannot be reached" for n in names} <= set(body["missing"])
    assert ask(port, "/healthz")[0] == 200
    assert ask(port, "/v1/")[0] == 503
    retries = {f"retry collect {n}" for n in names}
    _, state = told(process, port, "/v1/status", lambda a: retries <= set(a[1]["operation"]["jobs"]))
    for name, source in state["operation"]["sources"].items():
        assert source["reachable"] is False
        assert ("127.0.0.1:9" in source["message"]) if name != "closed" else "message" not in source
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=40)
    assert process.returncode == 0
    assert f"http://127.0.0.1:{port}/" in out and "next collect alpha:" in out
    with pytest.raises(OSError, match="refused"):
        ask(port, "/healthz")


def test_a_second_run_on_the_same_folder_is_refused(running: tuple[subprocess.Popen[str], int], settings: Path) -> None:
    process, port = running
    told(process, port, "/healthz", lambda a: a[0] == 200)
    command = [sys.executable, str(ROOT / "service.py"), "--config", str(settings / "config.toml"), "run"]
    second = subprocess.run(command, cwd=settings, capture_output=True, text=True, timeout=60)
    assert second.returncode == 1 and "a scheduler already runs on this folder" in second.stderr
    assert "Traceback" not in second.stderr
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=40)
    assert process.returncode == 0


def test_serve_hands_out_the_releases_and_ends_on_sigterm(replayed: Path) -> None:
    port = free_port()
    command = [sys.executable, str(ROOT / "service.py"), "--data", str(replayed / "data"), "serve"]
    process = subprocess.Popen([*command, "--host", "127.0.0.1", "--port", str(port)], cwd=ROOT,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    try:
        assert told(process, port, "/readyz", lambda a: a[0] == 200)[1]["release"] == 2
        index = ask(port, "/v1/indices/two-metals")[1]
        assert index["meta"]["release"] == 2 and index["meta"]["replayed"] is True
    finally:
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0


@pytest.mark.parametrize("command", [("retire",), ("revoke", "--reason", "lost")])
def test_a_key_name_that_begins_with_a_hyphen_is_a_name(settings: Path, command: tuple[str, ...]) -> None:
    made = call(settings, "keys", *command, "-qw0338Or_EGmbZYpxl2HEyuKupdSgnk1XeNxrGQnEs")
    assert made.exit_code == 1 and "-qw0338Or_EGmbZYpxl2HEyuKupdSgnk1XeNxrGQnEs" in made.output


def test_a_port_that_another_server_has_is_refused_before_anything_is_served(tmp_path):
    with socket.create_server(("127.0.0.1", 0), reuse_port=True) as other:
        port = other.getsockname()[1]
        with (
            pytest.raises(PricingError, match=f"127.0.0.1:{port} cannot be served at"),
            service._web(tmp_path, "127.0.0.1", port, 1),
        ):
            raise AssertionError("two servers would answer in turns")


def test_the_web_ends_with_all_its_workers_even_when_they_were_told_to_end_before(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    with service._web(tmp_path, "127.0.0.1", port, 1) as web:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        group = os.getpgid(web.pid)
        assert group == web.pid != os.getpgid(0)  # Ctrl-C in the terminal does not reach it
        os.killpg(group, signal.SIGINT)
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)
