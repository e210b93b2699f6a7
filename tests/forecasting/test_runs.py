"""Runs over many series, with a plain random walk as the method: what it forecasts is not the question here."""

import fcntl
import hashlib
import itertools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from forecasting import runs
from forecasting.errors import ForecastError
from forecasting.runs import Result, forecast_many

ROOT = Path(__file__).resolve().parents[2]
NODES = (0.025, 0.1, 0.5, 0.9, 0.975)
Z = np.array([-1.96, -1.28, 0, 1.28, 1.96])


def walk(y, horizon, levels, *, kind, model):
    """A random walk; a series named for it fails, unless the random walk itself is asked for."""
    if y.name == "slow":
        time.sleep(0.02)
    if y.name == "hopeless" or (y.name == "failing" and model is None):
        raise ForecastError("the likelihood has no maximum")
    if y.name == "infinite" and model is None:
        y = y * np.inf
    if y.name == "mistaken" and model is None:
        raise ZeroDivisionError("division by zero")
    if y.name == "fatal":
        os.kill(os.getpid(), signal.SIGKILL)
    v = y.to_numpy(float)
    steps = pd.RangeIndex(1, horizon + 1)
    spread = np.sqrt((np.diff(v) ** 2).mean() * np.arange(1, horizon + 1))
    frame = pd.DataFrame(v[-1] + spread[:, None] * Z, steps, NODES)
    bounds = frame[[0.1, 0.9]].set_axis(["lo-80", "hi-80"], axis=1)
    return SimpleNamespace(
        origin=str(y.index[-1]), mean=frame[0.5], median=frame[0.5], bounds=bounds, quantiles=frame,
        model=model or "walk", why="a test", benchmark="random-walk",
    )  # fmt: skip


def made(count, length=30, name=None):
    periods = pd.period_range("2020-01", periods=length, freq="M").strftime("%Y-%m")
    for i in range(count):
        yield f"series {i}", pd.Series(100 + np.random.default_rng(i).normal(size=length).cumsum(), periods, name=name)


def run(series, **more):
    return list(forecast_many(series, 3, **{"backend": "serial", "method": walk, **more}))


# ------------------------------------------------------------------------------------- results


def test_results_are_the_forecasts_as_plain_data_in_the_order_of_the_series():
    found = run(made(20))
    assert [r.key for r in found] == [f"series {i}" for i in range(20)]
    direct = walk(dict(made(20))["series 7"], 3, (80, 95), kind="close", model=None)
    got = found[7].forecast
    assert got["quantiles"] == {f"{p:g}": direct.quantiles[p].tolist() for p in NODES}
    assert got["bounds"]["hi-80"] == direct.bounds["hi-80"].tolist() and got["mean"] == direct.mean.tolist()
    assert (got["origin"], got["model"], got["benchmark"]) == ("2022-06", "walk", "random-walk")
    assert not found[7].reused and found[7].finding is None


@pytest.mark.parametrize(
    ("name", "finding"),
    [
        ("failing", "the likelihood has no maximum"),
        ("mistaken", "ZeroDivisionError: division by zero"),
        ("infinite", "walk gave a forecast that is not finite"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_fit_that_fails_gives_the_random_walk_and_a_finding(name, finding):
    series = [*made(1), ("bad", next(made(1))[1].rename(name)), *itertools.islice(made(3), 1, 3)]
    found = run(series)
    assert [r.finding for r in found] == [None, finding, None, None]
    assert found[1].forecast == {**found[0].forecast, "model": "random-walk"}


def test_where_the_random_walk_fails_too_there_is_no_forecast():
    found = run([("bad", next(made(1))[1].rename("hopeless")), ("text", pd.Series(["a", "b"])), *made(1)])
    assert found[0] == Result("bad", None, "the likelihood has no maximum", False)
    assert found[1].forecast is None and "could not convert" in found[1].finding
    assert found[2].forecast is not None


def test_what_is_no_run_is_refused():
    y = next(made(1))[1]
    for series, more, message in [
        ([("a", y), ("a", y)], {}, "'a' comes twice"),
        ([("a", y.to_numpy())], {}, "'a' is a ndarray; a pandas Series"),
        ([], {"backend": "threads"}, "one of loky, dask, serial"),
        ([], {"backend": "dask"}, "has an address"),
        ([], {"address": "tcp://127.0.0.1:1"}, "no other backend"),
        ([], {"workers": 0}, "at least one"),
    ]:
        with pytest.raises(ForecastError, match=message):
            run(series, **more)


def test_only_some_series_are_in_memory_however_slowly_results_are_taken():
    read = itertools.count()
    series = (pair for pair in made(10_000) if next(read) >= 0)
    results = forecast_many(series, 3, backend="serial", method=walk)
    for _ in range(100):
        next(results)
    results.close()
    assert next(read) <= 100 + (runs.AHEAD + 1) * runs.MOST


# ------------------------------------------------------------------------------------- journal


def changed(y):
    return y.where(y.index != y.index[3], np.nextafter(y.iloc[3], np.inf))


def test_what_has_not_changed_is_not_computed_again(tmp_path, monkeypatch):
    done = tmp_path / "journal"
    first = run(made(20), done=done)
    again = run(made(20), done=done)
    assert not any(r.reused for r in first) and all(r.reused for r in again)
    assert [r.forecast for r in again] == [r.forecast for r in first]
    series = dict(made(20))
    series["series 5"] = changed(series["series 5"])  # by one bit
    series["series 6"] = series["series 6"].set_axis([*series["series 6"].index[:-1], "2022-07"])
    assert [r.key for r in run(series.items(), done=done) if not r.reused] == ["series 5", "series 6"]
    for more in ({"kind": "average"}, {"levels": (80,)}, {"model": "random-walk"}):
        assert not any(r.reused for r in run(made(3), done=done, **more))
    runs.code_version.cache_clear()
    monkeypatch.setattr(runs.importlib.metadata, "version", lambda name: "next")
    assert not any(r.reused for r in run(made(3), done=done))
    runs.code_version.cache_clear()


def test_the_same_values_at_other_periods_are_another_series():
    values = np.arange(5.0)
    indices = [
        pd.Index(list("abcde")), pd.period_range("2020-01", periods=5, freq="M"),
        pd.period_range("2020-01", periods=5, freq="Q"), pd.date_range("2020-01-01", periods=5), pd.RangeIndex(5),
    ]  # fmt: skip
    assert len({runs._content(pd.Series(values, index), "") for index in indices}) == len(indices)
    assert runs._content(pd.Series(values), "") == runs._content(pd.Series(values, name="other"), "")


def test_a_finding_is_kept_like_a_forecast(tmp_path):
    series = [("bad", next(made(1))[1].rename("failing"))]
    first, again = run(series, done=tmp_path / "j")[0], run(series, done=tmp_path / "j")[0]
    assert again.reused and (again.finding, again.forecast) == (first.finding, first.forecast)


@pytest.mark.parametrize("keep", [0, 1, 0.3, 0.5, 0.99, 1.0])
def test_a_torn_journal_goes_on_and_ends_with_the_same_bytes(tmp_path, keep):
    done, whole = tmp_path / "torn", tmp_path / "whole"
    expected = run(made(20), done=whole)
    size = int(whole.stat().st_size * keep) if isinstance(keep, float) else keep
    done.write_bytes(whole.read_bytes()[:size])
    found = run(made(20), done=done)
    assert done.read_bytes() == whole.read_bytes()
    assert [r.forecast for r in found] == [r.forecast for r in expected]
    assert sum(r.reused for r in found) == whole.read_bytes()[:size].count(b"\n")


def test_a_journal_forgets_what_no_longer_holds(tmp_path):
    done = tmp_path / "journal"
    run(made(20), done=done)
    size = done.stat().st_size
    for length in range(31, 36):
        run(made(20, length), done=done)
        assert done.stat().st_size < 2.1 * size
    assert all(r.reused for r in run(made(20, 35), done=done))


def test_two_runs_do_not_share_a_journal(tmp_path):
    with open(tmp_path / "journal", "wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(ForecastError, match="in use by another run"):
            run(made(1), done=tmp_path / "journal")


SCRIPT = """
import sys
from test_runs import made, walk
from forecasting.runs import forecast_many
if __name__ == "__main__":
    for _ in forecast_many(made(400, name="slow"), 3, backend=sys.argv[2], workers=2, done=sys.argv[1], method=walk):
        pass
"""


def environment():
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)])}


def test_a_run_that_is_killed_is_resumed(tmp_path):
    done, whole = tmp_path / "journal", tmp_path / "whole"
    (tmp_path / "script.py").write_text(SCRIPT)
    command = [sys.executable, tmp_path / "script.py", done, "loky"]
    process = subprocess.Popen(command, env=environment(), start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        while not done.exists() or done.read_bytes().count(b"\n") < 20:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.kill()
        process.wait()
    before = done.read_bytes().count(b"\n")
    assert 20 <= before < 400
    found = run(made(400), done=done)  # though workers of the killed run are still there
    os.killpg(process.pid, signal.SIGKILL)
    assert sum(r.reused for r in found) == before
    run(made(400), done=whole)
    assert done.read_bytes() == whole.read_bytes()


# ------------------------------------------------------------------------------------- workers


def test_processes_give_the_same_bytes_as_one(tmp_path):
    run(made(100), done=tmp_path / "serial")
    run(made(100), done=tmp_path / "loky", backend="loky", workers=2)
    assert (tmp_path / "loky").read_bytes() == (tmp_path / "serial").read_bytes()


def test_a_worker_that_dies_ends_the_run_and_says_where(tmp_path):
    series = [*made(20), ("bad", next(made(1))[1].rename("fatal"))]
    with pytest.raises(ForecastError, match="workers were lost at series .* run again to go on"):
        run(series, done=tmp_path / "journal", backend="loky", workers=1)


def test_a_dask_cluster_gives_the_same_bytes_as_one_process(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster:
        found = run(made(100), done=tmp_path / "dask", backend="dask", address=cluster.scheduler_address)
        taken = cluster.scheduler_info["workers"]
        assert len(taken) == 2
        again = run(made(100), done=tmp_path / "dask", backend="dask", address=cluster.scheduler_address)
    assert len(found) == 100 and all(r.reused for r in again)
    run(made(100), done=tmp_path / "serial")
    assert (tmp_path / "dask").read_bytes() == (tmp_path / "serial").read_bytes()


def test_a_cluster_that_is_not_there_is_an_error(monkeypatch):
    distributed = pytest.importorskip("distributed")
    patient = distributed.Client
    monkeypatch.setattr(distributed, "Client", lambda address, **more: patient(address, **{**more, "timeout": 0.5}))
    for address in ("tcp://127.0.0.1:9", "nowhere://x"):
        with pytest.raises(ForecastError, match="no Dask scheduler answers at"):
            run(made(1), backend="dask", address=address)
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(ForecastError, match="lodemark"):
        run(made(1), backend="dask", address="tcp://127.0.0.1:9")


def test_importing_the_package_is_cheap():
    heavy = "{'statsmodels', 'joblib', 'distributed', 'dask', 'matplotlib'}"
    code = f"import sys, forecasting.evaluation, forecasting.runs; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_content_hashes_do_not_depend_on_the_process():
    y = next(made(1))[1]
    values = y.to_numpy().tobytes() + "\n".join(y.index).encode()
    assert runs._content(y, "settings") == hashlib.blake2b(b"settings" + values, digest_size=16).hexdigest()
