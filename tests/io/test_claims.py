"""Who may write into an output folder: of those that start at one time, one; beneath those that
live, nobody else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import ExitStack

import pytest

from cryolike_dask.errors import OutputError
from cryolike_dask.io import holders
from cryolike_dask.io.claims import holding
from cryolike_dask.io.holders import living

A, B, C = (
    {"settings": {"search": {"n": n, "sha256": str(n)}}, "conventions": "standard"}
    for n in (1, 2, 3)
)
CLAIM = ".claim-results.json"


def hold(folder, identity=A, kind="results", *, overwrite=False, refuse_others=lambda: None):
    return holding(folder, kind, identity, overwrite=overwrite, refuse_others=refuse_others)


def claimed(folder):
    return json.loads((folder / CLAIM).read_text())


def dead_process():
    process = subprocess.Popen([shutil.which("true")])
    process.wait()
    return process.pid


def write_holder(folder, claim, *, age=0.0, **said):
    """A holder of this machine unless `said` says otherwise."""
    path = folder / ".run-elsewhere-1-00000000.json"
    path.write_text(
        json.dumps(
            {**holders._place(), "pid": dead_process(), "started": 1.0, "claim": claim} | said
        )
    )
    os.utime(path, (time.time() - age,) * 2)
    return path


def test_of_different_runs_that_start_at_one_moment_one_goes_on(tmp_path, rng):
    for n in range(40):
        folder, start, end = tmp_path / str(n), threading.Barrier(3), threading.Barrier(3)
        outcomes = {}

        def begin(name, identity, wait, folder=folder, start=start, end=end, outcomes=outcomes):
            with ExitStack() as stack:
                start.wait()
                time.sleep(wait)
                try:
                    stack.enter_context(hold(folder, identity))
                    outcomes[name] = "holds"
                except OutputError as error:
                    outcomes[name] = str(error)
                end.wait()

        waits = rng.uniform(0, 0.003, 3)
        runs = [
            threading.Thread(target=begin, args=(i, one, waits[i]))
            for i, one in enumerate((A, B, C))
        ]
        for run in runs:
            run.start()
        for run in runs:
            run.join()
        refused = [said for said in outcomes.values() if said != "holds"]
        assert len(refused) == 2, outcomes
        assert all("another run is writing here (process" in said for said in refused)
        (winner,) = (i for i, said in outcomes.items() if said == "holds")
        assert claimed(folder) == {"kind": "results", **(A, B, C)[winner]}
        assert not [*folder.glob(".run-*")]
        assert not [*folder.glob("*.part")]


def test_runs_of_one_claim_share_a_folder_and_another_is_told_what_differs(tmp_path):
    with hold(tmp_path), hold(tmp_path):
        assert len(living(tmp_path)) == 2
        with pytest.raises(
            OutputError,
            match=r"process \d+ on .*: settings: search: n: 1 there, 2 here. Wait until it ends",
        ):
            hold(tmp_path, B).__enter__()
        with hold(tmp_path, B, "templates"):  # another kind of folder in the same place
            pass
    assert not living(tmp_path)
    with hold(tmp_path, B):
        assert claimed(tmp_path) == {"kind": "results", **B}


def test_what_a_run_left_stays_its_own(tmp_path):
    with hold(tmp_path):
        pass

    def refuse():
        raise OutputError("holds results of others")

    with pytest.raises(OutputError, match="holds results of others"):
        hold(tmp_path, B, refuse_others=refuse).__enter__()
    assert claimed(tmp_path) == {"kind": "results", **A}
    with hold(tmp_path, B, overwrite=True, refuse_others=refuse):
        assert claimed(tmp_path) == {"kind": "results", **B}


@pytest.mark.parametrize("identity", [A, B])
def test_nothing_is_overwritten_beneath_a_run_that_lives(tmp_path, identity):
    with hold(tmp_path):
        before = (tmp_path / CLAIM).read_bytes()
        with pytest.raises(OutputError, match=r"another run is writing here \(process"):
            hold(tmp_path, identity, overwrite=True).__enter__()
        assert (tmp_path / CLAIM).read_bytes() == before


@pytest.mark.parametrize(
    ("age", "said", "lives"),
    [
        (0, {}, False),
        # which started at another time, by a clock that was set since
        (0, {"pid": os.getpid()}, True),
        (400, {"pid": os.getpid()}, False),  # the number of a process that ended, used again
        (0, {"user": "another"}, True),  # whose processes may be hidden
        (0, {"pid": "x"}, False),
        (0, {"host": "elsewhere"}, True),
        (200, {"host": "elsewhere"}, True),
        (400, {"host": "elsewhere"}, False),
        (0, {"namespace": "pid:[1]"}, True),
        (400, {"boot": "before"}, False),
    ],
)
def test_which_runs_live(tmp_path, age, said, lives):
    with hold(tmp_path) as claim:
        pass
    holder = write_holder(tmp_path, claim.digest, age=age, **said)
    assert bool(living(tmp_path)) == lives
    if lives:
        with pytest.raises(OutputError, match="another run is writing here"):
            hold(tmp_path, B).__enter__()
    else:
        with hold(tmp_path, B):
            assert not holder.exists()


def test_what_killed_runs_left_is_removed_by_a_run_that_is_alone(tmp_path):
    left = [
        tmp_path / f"{place}.x.pt.{'0' * 32}.part"
        for place in ("images/", "template0/done/", "fft/")
    ]
    left += [
        tmp_path / f".{name}.{'1' * 32}.part"
        for name in ("displacements_set.pt", "templates-a", "parameters.npz")
    ]
    left.append(tmp_path / "template3/cross_correlation/.x.zarr.part")
    for path in left[:-1]:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"half")
    (left[-1] / "c").mkdir(parents=True)
    kept = [tmp_path / "images/notes.part", tmp_path / "mine/.x.pt.part"]
    kept.append(tmp_path / f".report.html.{'2' * 32}.part")  # of a command that is at work
    old = tmp_path / f".report.html.{'3' * 32}.part"
    for path in (*kept, old):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"mine")
    os.utime(old, (1, 1))
    with hold(tmp_path) as claim:
        assert not [path for path in left if path.exists()]
        assert all(path.exists() for path in kept)
        assert not old.exists()
        left[0].write_bytes(b"half")
        with hold(tmp_path):
            assert left[0].exists()
    write_holder(tmp_path, claim.digest, host="elsewhere")
    with hold(tmp_path):
        assert left[0].exists()


def test_links_are_neither_followed_nor_trusted(tmp_path):
    folder, target = tmp_path / "out", tmp_path / "target"
    with hold(folder) as claim:
        pass
    target.write_bytes((folder / CLAIM).read_bytes())
    holder = write_holder(folder, claim.digest, host="elsewhere")
    holder.rename(tmp_path / "holder")
    holder.symlink_to(tmp_path / "holder")
    assert not living(folder)
    (folder / CLAIM).unlink()
    (folder / CLAIM).symlink_to(target)
    for overwrite in (False, True):
        with pytest.raises(
            OutputError, match=rf"{CLAIM}: is a link, where a run says what it makes. Remove it"
        ):
            hold(folder, B, overwrite=overwrite).__enter__()
    with pytest.raises(OutputError, match="is a link"):
        claim.need()
    assert json.loads(target.read_bytes()) == {"kind": "results", **A}


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (shutil.rmtree, "is gone: it was moved or removed while a run wrote into it"),
        (lambda folder: folder.rename(folder.with_name("moved")), "is gone"),
        (lambda folder: (folder / CLAIM).unlink(), f"{CLAIM} was removed while a run wrote here"),
        (lambda folder: (folder / CLAIM).write_text("{}"), "is claimed by another run by now"),
    ],
)
def test_a_folder_that_is_taken_away_is_an_error_at_the_end(tmp_path, spoil, what):
    folder = tmp_path / "out"
    with pytest.raises(OutputError, match=rf"out: {what}"), hold(folder):
        spoil(folder)
    assert not (folder / ".run").exists()


def test_a_run_that_fails_before_anything_is_written_leaves_no_folder(tmp_path):
    for there in (tmp_path / "new", tmp_path / "old"):
        if there.name == "old":
            there.mkdir()
        with pytest.raises(RuntimeError), hold(there):
            raise RuntimeError
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old"]


def test_a_disk_without_links_takes_claims_too(tmp_path, monkeypatch):
    def no_links(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    with (
        hold(tmp_path),
        hold(tmp_path),
        pytest.raises(OutputError, match="another run is writing here"),
    ):
        hold(tmp_path, B).__enter__()
    with hold(tmp_path, B):
        assert claimed(tmp_path) == {"kind": "results", **B}


@pytest.mark.skipif(
    sys.platform != "linux", reason="processes are told apart by what Linux says of them"
)
def test_a_process_that_was_killed_and_not_yet_waited_for_is_dead(tmp_path):
    import psutil

    process = subprocess.Popen([shutil.which("sleep"), "60"])
    started = psutil.Process(process.pid).create_time()
    with hold(tmp_path) as claim:
        write_holder(tmp_path, claim.digest, pid=process.pid, started=started)
        assert len(living(tmp_path)) == 2
        process.kill()
        while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
            time.sleep(0.001)
        assert len(living(tmp_path)) == 1
        process.wait()
