"""Decoys that a command or a configuration asks for."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

import cryolike_dask as cld
from cryolike_dask.cli import app
from cryolike_dask.config.decoys import DecoyRequest
from cryolike_dask.config.reading import read_config
from cryolike_dask.errors import InputError, InputFileError
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.io.layout import LikelihoodFiles
from cryolike_dask.io.parameters import write_parameters
from tests.structures.decoys.proteins import write_protein

PARAMETERS = ImageParameters(
    16, 3.0, viewing_distance=1.5, use_protein_residue_model=False, precision="single"
)
NAMES = ["a", "b", "a~decoy1", "b~decoy1", "a_1"]


@pytest.fixture
def inputs(tmp_path):
    """Two structures, a third of the same name as one of them, and particles."""
    for seed, name in enumerate(["structures/a", "structures/b", "others/a"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_protein(tmp_path / f"{name}.pdb", 30, seed)
    write_parameters(tmp_path / "parameters.npz", PARAMETERS)
    cld.simulate_particles(
        tmp_path / "structures", PARAMETERS, tmp_path / "relion", n_images=4, progress=False
    )
    return tmp_path


def test_a_command_compares_decoys_with_structures(inputs):
    options = {
        "templates": inputs / "structures",
        "particles": inputs / "relion/particles.star",
        "parameters": inputs / "parameters.npz",
        "output": inputs / "out",
        "decoys": 1,
        "decoy-structures": inputs / "others/a.pdb",
        "noise": "white",
        "n-displacements-x": 1,
        "n-displacements-y": 1,
        "workers": 0,
    }
    command = [f"--{name}={value}" for name, value in options.items()]
    done = CliRunner().invoke(app, ["optimal-pose", *command])
    assert done.exit_code == 0, done.output
    results = cld.open_results(inputs / "out")
    assert results.structure.values.tolist() == NAMES
    assert results.decoy_of.values.tolist() == ["", "", "a", "b", "a_1"]
    # they tell how many images show none
    shares = ["populations", str(inputs / "out"), "--no-draw", "--n-bootstrap=0"]
    done = CliRunner().invoke(app, shares)
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "none of these: " in said
    assert "of all images (" in said
    assert "by 3 decoys; shares are of the others" in said
    done = CliRunner().invoke(app, [*shares, "--no-decoys"])
    assert done.exit_code == 0, done.output
    assert "none of these" not in done.output
    # that the run made are made again: by the structures alone
    given = [f"--{name}={options[name]}" for name in ("templates", "particles", "parameters")]
    done = CliRunner().invoke(
        app, ["verify", str(inputs / "out"), "--n-samples=20", *given], terminal_width=500
    )
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert "no result of 1 structure(s) given as decoys was computed again" in said
    assert "16 results computed again: nothing is wrong" in said
    structures = cld.open_structures(inputs / "structures", PARAMETERS)
    (named,) = cld.open_structures(
        inputs / "others/a.pdb", PARAMETERS, viewing=structures[0].viewing
    )
    named = replace(named, structure="a_1")
    every = [*structures, *cld.open_decoys(structures, 1), *cld.as_decoys(named)]
    verify = partial(
        cld.verify_likelihood,
        inputs / "out",
        PARAMETERS,
        images=inputs / "relion/particles.star",
        progress=False,
        n_samples=20,
    )
    assert verify(templates=every).ok
    other = [*structures, *cld.open_decoys(structures, 1, seed=1), *every[4:]]
    assert "phases 1 of seed" in " ".join(verify(templates=other).findings)
    done = CliRunner().invoke(app, ["optimal-pose", *command, "--i-template=0"])
    assert done.exit_code == 3
    assert "decoys are compared beside all" in " ".join(done.output.split())


def test_a_configuration_says_the_same(inputs):
    values = {
        "structures": {"files": "structures", "decoys": 1, "decoy_structures": "others/a.pdb"},
        "particles": {"metadata": "relion/particles.star"},
        "parameters": "parameters.npz",
        "search": {"n_displacements_x": 1, "n_displacements_y": 1},
        "noise": "white",
        "output": "out",
    }
    file = inputs / "run.yaml"
    file.write_text(yaml.safe_dump(values))
    results = cld.run_config(read_config(file))
    assert results.structure.values.tolist() == NAMES
    assert cld.decoy_competition(cld.open_results(inputs / "out")).attrs["n_decoys"] == 3
    # the copy beside the results finds the same again
    assert cld.verify_likelihood(
        inputs / "out",
        **_of_results(inputs / "out"),
        n_samples=2,
        progress=False,
    ).ok
    for key, value in (("decoys", -1), ("decoys", 1.5), ("decoy_kind", "x")):
        file.write_text(yaml.safe_dump({**values, "structures": {"files": "a", key: value}}))
        with pytest.raises(InputFileError, match=f"structures.{key}"):
            read_config(file)
    values["structures"]["decoy_structures"] = "nowhere.pdb"
    file.write_text(yaml.safe_dump(values))
    with pytest.raises(InputFileError, match=r"nowhere\.pdb"):
        cld.run_config(read_config(file))


def _of_results(folder):
    from cryolike_dask.config.resolve import inputs_of_results

    found = inputs_of_results(folder)
    return {
        "params_input": found.parameters,
        "templates": found.templates,
        "images": found.particles,
    }


def test_structures_are_decoys_beside_templates_in_files(inputs):
    folder = inputs / "templates"
    cld.make_templates(inputs / "structures", PARAMETERS, folder, progress=False)
    files = LikelihoodFiles(folder, None, inputs / "out", i_template="all")
    asked = DecoyRequest(structures=[inputs / "others"])
    templates, left = asked.added(None, files, PARAMETERS, "standard")
    assert [stack.structure for stack in templates] == ["a", "b", "a_1"]
    assert [stack.decoy_of for stack in templates] == ["", "", "a_1"]
    assert left.folder_templates is None
    assert DecoyRequest().added(None, files, PARAMETERS, "standard") == (None, files)
    with pytest.raises(InputError, match=r"given as templates.*decoys"):
        DecoyRequest(1).added(None, files, PARAMETERS, "standard")
    with pytest.raises(InputError, match="decoys=-1"):
        DecoyRequest(-1).added(None, files, PARAMETERS, "standard")
    np.testing.assert_array_equal(templates[2].viewing.azimuth, templates[0].viewing.azimuth)
