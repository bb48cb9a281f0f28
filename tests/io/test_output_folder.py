"""An output folder is claimed, refused, or left alone where nothing can be written."""

from __future__ import annotations

import pytest

from cryolike_dask.errors import OutputError
from cryolike_dask.io import output_folder
from cryolike_dask.io.output_folder import OutputFolder


def refuse():
    raise OutputError("holds what is of others")


def folder(path, refuse_others=lambda: None, remove_others=lambda: None, identity=None):
    return OutputFolder(path, "results", identity or {"of": "us"}, refuse_others, remove_others)


def test_others_are_refused_or_removed(tmp_path):
    removed = []
    others = folder(tmp_path / "out", refuse, lambda: removed.append("others"))
    claimed = others.claimed(list, skip_exist=True, overwrite=False)
    with pytest.raises(OutputError, match="holds what is of others"), claimed:
        pass
    with pytest.raises(OutputError, match="holds what is of others"):
        others.refuse()
    assert not removed
    with others.claimed(list, skip_exist=True, overwrite=True) as claim:
        assert removed == ["others"]
        claim.need()


def test_a_run_that_writes_there_is_refused_before_anything_is_written(tmp_path):
    ours = folder(tmp_path / "out")
    with ours.claimed(list, skip_exist=False, overwrite=False):
        ours.refuse()
        with pytest.raises(
            OutputError, match=r"another run is writing here .*of: us there, them here"
        ):
            folder(tmp_path / "out", identity={"of": "them"}).refuse()


def test_a_file_is_no_output_folder(tmp_path):
    (tmp_path / "out").write_text("")
    claimed = folder(tmp_path / "out").claimed(list, skip_exist=False, overwrite=False)
    with pytest.raises(OutputError, match="is not a folder"), claimed:
        pass


def test_where_nothing_can_be_written_all_must_be_done(tmp_path, monkeypatch):
    monkeypatch.setattr(output_folder, "takes_nothing", lambda _: True)
    with folder(tmp_path).claimed(list, skip_exist=True, overwrite=False) as claim:
        assert claim is None
    claimed = folder(tmp_path).claimed(lambda: ["one"], skip_exist=True, overwrite=False)
    with pytest.raises(OutputError, match="cannot be written, and 1 of the results"), claimed:
        pass
    with folder(tmp_path).claimed(list, skip_exist=False, overwrite=False) as claim:
        assert claim is not None
    assert not any(tmp_path.glob(".run-*"))
