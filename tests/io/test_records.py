"""Completion records that were edited, damaged or replaced: one error that names the record and
what it says."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest

from cryolike_dask.errors import InputFileError, OutputError
from cryolike_dask.io.claims import holding
from cryolike_dask.io.jobs import (
    Job,
    job_states,
    make_room,
    why_not_done,
    withdraw_record,
    write_record,
)
from cryolike_dask.io.records import read_record

SETTINGS = {
    "search": {"n_displacements": 9, "max_displacement_angstrom": 2.0, "sha256": "ab"},
    "parameters": {"n_pixels": 16, "pixel_size_angstrom": 8.0, "n_inplanes": 20},
    "conventions": "standard",
    "tolerance": None,
}


@pytest.fixture
def job(tmp_path):
    """A job that is done."""
    job = Job(
        kind="optimal_pose",
        name="template0-stack_000000",
        about={"i_template": 0, "i_stack": 0, "structure": "a"},
        outputs={"x": tmp_path / "out/template0/x/x_stack_000000.pt"},
        shape=(3,),
        record=tmp_path / "out/template0/done/stack_000000.json",
        settings=SETTINGS,
        precision="single",
        inputs=[{"name": "a.pt", "size": 1, "mtime_ns": 2}],
    )
    job.outputs["x"].parent.mkdir(parents=True)
    job.outputs["x"].write_bytes(b"values")
    write_record(job, {"version": "0", "device": "cpu"})
    assert why_not_done(job) is None
    return job


def edited(path, key, value):
    record = json.loads(path.read_text())
    where = record
    *folders, last = key.split("/")
    for name in folders:
        where = where[name]
    where[last] = value
    path.write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("settings", []),
        ("settings", "standard"),
        ("settings/search", None),
        ("settings/search", [1]),
        ("settings/search/n_displacements", "9"),
        ("settings/search/n_displacements", 9.5),
        ("settings/search/sha256", 3),
        ("settings/parameters", None),
        ("settings/parameters/n_inplanes", 0),
        ("settings/parameters/n_inplanes", 10**12),
        ("settings/parameters/pixel_size_angstrom", "8"),
        ("settings/parameters/pixel_size_angstrom", float("nan")),
        ("settings/parameters/pixel_size_angstrom", -8.0),
        ("settings/parameters/frame", {}),
        ("settings/conventions", ["standard"]),
        ("settings/tolerance", "0"),
        ("shape", 3),
        ("shape", ["3"]),
        ("shape", [True]),
        ("shape", []),
        ("precision", ["single"]),
        ("precision", None),
        ("inputs", {}),
        ("inputs", ["a.pt"]),
        ("inputs", [{"name": 3}]),
        ("outputs", []),
        ("outputs", {"x": None}),
        ("outputs/x/file", 3),
        ("outputs/x/sha256", None),
        ("i_stack", "0"),
        ("i_template", -1),
        ("structure", 5),
        ("version", {}),
        ("kind", None),
        ("format", "1"),
    ],
    ids=str,
)
def test_an_entry_of_another_type_is_named(job, key, value):
    edited(job.record, key, value)
    name = key.split("/")[0]
    with pytest.raises(
        InputFileError,
        match=rf"stack_000000\.json: says {name}=.*, which no run writes\. Run again",
    ):
        read_record(job.record)
    assert why_not_done(job) == "there is no readable completion record stack_000000.json"


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("kind", "templates", "kind of the results is another: templates there, optimal_pose here"),
        ("precision", "double", "precision of the results is another: double there, single here"),
        ("shape", [3, 4], "shape of the results is another: 3 x 4 there, 3 here"),
        (
            "settings/search/n_displacements",
            7,
            "settings of the results are others: search: n_displacements: 7 there, 9 here",
        ),
        (
            "settings/search/sha256",
            "cd",
            "settings of the results are others: search: others there",
        ),
        (
            "inputs",
            [{"name": "b.pt", "size": 1, "mtime_ns": 2}],
            "inputs of the results are others: made from b.pt there, a.pt here",
        ),
        (
            "inputs",
            [{"name": "a.pt", "size": 3, "mtime_ns": 2}],
            "inputs of the results are others: a.pt: size: 3 there, 1 here",
        ),
        (
            "inputs",
            [{"name": "a.pt", "size": 1, "mtime_ns": 2}] * 2,
            "inputs of the results are others: 2 there, 1 here",
        ),
    ],
)
def test_what_differs_from_a_record_is_named_with_both_values(job, key, value, reason):
    edited(job.record, key, value)
    assert why_not_done(job) == f"the {reason}"


def test_each_job_is_given_with_whether_it_is_done(job, caplog):
    caplog.set_level("INFO", logger="cryolike_dask")
    record = job.record.with_name("stack_000001.json")
    outputs = {"x": job.outputs["x"].with_name("x_stack_000001.pt")}
    jobs = [("a", job), ("b", replace(job, record=record, outputs=outputs))]
    words = {"becomes": "computed", "done": "stacks are complete"}
    assert list(job_states(jobs, skip_exist=True, **words)) == [("a", job, True), (*jobs[1], False)]
    assert caplog.messages == [
        "1 of 2 stacks are complete and kept; skip_exist=False computes them again"
    ]
    caplog.clear()
    states = job_states(jobs, skip_exist=False, **words)
    assert [is_done for _, _, is_done in states] == [False, False]
    assert caplog.messages == ["what is there is replaced; skip_exist=True keeps what is complete"]
    caplog.clear()
    job.outputs["x"].write_bytes(b"other values")
    list(job_states(jobs, skip_exist=True, **words))
    reason = "x_stack_000000.pt is not the file that the record describes"
    assert caplog.messages == [f"{job.name} is computed: {reason}"]


def link(path):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def folder(path):
    path.unlink()
    path.mkdir()


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def larger(path):
    os.truncate(path, 10**8)


@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (link, "is a link"),
        (folder, "Is a directory"),
        (pipe, "is not a file"),
        (larger, "has 100000000 bytes"),
        (lambda path: path.write_text("[" * 10**6), "is not a readable completion record"),
        (
            lambda path: path.write_text('{"format": 1, "shape": ' + "1" * 10**5 + "}"),
            "is not a readable",
        ),
        (lambda path: path.write_text("[]"), "is not a completion record"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "is not a readable"),
        (lambda path: path.write_bytes(b""), "is not a readable"),
    ],
)
def test_what_is_no_record_is_said_to_be_none(job, spoil, what):
    spoil(job.record)
    with pytest.raises(InputFileError, match=rf"^{re.escape(str(job.record))}: .*{what}"):
        read_record(job.record)
    assert "there is no readable completion record" in why_not_done(job)


def test_links_and_folders_in_place_of_a_record_are_not_written_through(job):
    link(job.record)
    elsewhere = job.record.with_name("elsewhere")
    before = elsewhere.read_bytes()
    withdraw_record(job)
    write_record(job, {"version": "1"})
    assert not job.record.is_symlink()
    assert elsewhere.read_bytes() == before
    folder(job.record)
    with pytest.raises(OutputError, match=r"stack_000000\.json: cannot be written: Is a directory"):
        withdraw_record(job)


def test_a_record_is_written_under_its_claim_only(job, tmp_path):
    def hold(identity):
        return holding(
            tmp_path / "out", "results", identity, overwrite=False, refuse_others=lambda: None
        )

    with hold({"n": 1}) as claim:
        pass
    under = Job(**{**vars(job), "claim": claim})
    write_record(under, {})
    with hold({"n": 2}):
        before = job.record.read_bytes()
        for write in (make_room, withdraw_record, lambda job: write_record(job, {})):
            with pytest.raises(OutputError, match="out: is claimed by another run by now"):
                write(under)
        assert job.record.read_bytes() == before


def test_a_folder_that_was_taken_away_is_not_made_anew(job, tmp_path):
    with holding(
        tmp_path / "out", "results", {}, overwrite=False, refuse_others=lambda: None
    ) as claim:
        pass
    under = Job(**{**vars(job), "claim": claim})
    Path(tmp_path / "out/template0").rename(tmp_path / "template0")
    make_room(under)
    assert job.record.parent.is_dir()
    (tmp_path / "out").rename(tmp_path / "moved")
    with pytest.raises(OutputError, match="out: is gone"):
        withdraw_record(under)
    assert not (tmp_path / "out").exists()
