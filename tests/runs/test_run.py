"""Bad input to opening and running: one clear error that names file, value and remedy, before
anything is written."""

from __future__ import annotations

import logging
import os
import pickle
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from cryolike_dask.errors import (
    CannotFitError,
    CryolikeError,
    DeviceError,
    InputError,
    InputFileError,
    NotFiniteError,
    ZeroPowerError,
)
from cryolike_dask.geometry.displacements import DisplacementGrid, DisplacementSearch
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.io.archives import write_list
from cryolike_dask.io.layout import LikelihoodFiles
from cryolike_dask.io.parameters import write_parameters
from cryolike_dask.io.stacks import write_image_stack, write_template_stack
from cryolike_dask.likelihoods.interface import (
    compute_cross_correlation_complete,
    compute_optimal_pose,
)
from cryolike_dask.run_likelihood import (
    run_likelihood_full_cross_correlation,
    run_likelihood_optimal_pose,
)
from cryolike_dask.stacks import open_images, open_templates

PARAMETERS = ImageParameters(12, 1.5, n_inplanes=20, viewing_distance=2.5)
N_TEMPLATES = 28
SEARCH = DisplacementSearch(1.5, 3, 2)


@dataclass
class Project:
    """Input files on disk: two stacks and two structures."""

    folder: Path
    build: object

    @property
    def files(self) -> LikelihoodFiles:
        return LikelihoodFiles(
            self.folder / "templates", self.folder / "particles", self.folder / "out"
        )

    @property
    def parameters(self) -> Path:
        return self.folder / "templates" / "parameters.npz"

    def template(self, name: str = "a") -> Path:
        return self.folder / "templates" / f"templates_fourier_{name}.pt"

    def images(self, i_stack: int = 0) -> Path:
        return self.files.image_stack(i_stack)[0]

    def metadata(self, i_stack: int = 0) -> Path:
        return self.files.image_stack(i_stack)[1]

    def write(self, dtype: str = "complex64") -> None:
        """Write everything."""
        grid = PARAMETERS.grid
        write_parameters(self.parameters, PARAMETERS)
        for name in "ab":
            values = self.build.particles(N_TEMPLATES, grid).astype(dtype)
            write_template_stack(
                self.template(name), values, PARAMETERS.viewing_angles(), PARAMETERS, "standard"
            )
        write_list(self.files.template_list, [self.template(name).name for name in "ab"])
        for i, n in enumerate((3, 5)):
            values = (self.build.particles(n, grid) + self.build.rings(n, grid)).astype(dtype)
            write_image_stack(self.images(i), values, self.build.optics(n), PARAMETERS)

    def change(self, path: Path, **entries: object) -> None:
        """Change entries of an `.npz` file; None takes one out."""
        with np.load(path) as there:
            kept = {key: there[key] for key in there if key not in entries}
        np.savez(
            path, **kept, **{key: value for key, value in entries.items() if value is not None}
        )

    def edit(self, path: Path, change: object) -> None:
        """Change the tensor in a file."""
        torch.save(change(torch.load(path, weights_only=True)), path)

    def run(self, **settings: object) -> object:
        """Run over everything."""
        given = {
            "displacer": SEARCH,
            "params_input": self.parameters,
            "file_config": self.files,
            **settings,
        }
        return run_likelihood_optimal_pose(progress=False, **given, noise="white")


@pytest.fixture
def project(tmp_path, build):
    """Good input files."""
    project = Project(tmp_path / "my project ä", build)
    project.write()
    return project


def changed(tensor: torch.Tensor, index: object, value: complex) -> torch.Tensor:
    """The tensor with some values replaced."""
    tensor[index] = value
    return tensor


def test_good_input_runs(project):
    poses = project.run().load()
    assert dict(poses.sizes) == {"image": 8}
    assert poses.structure == "a"
    assert np.isfinite(poses.log_likelihood_integrated).all()


STACK = r"particles_fourier_stack_000001"
HEADERS = {
    "all missing files at once": (
        lambda p: [p.metadata(0).unlink(), p.metadata(1).unlink()],
        r"2 missing input file\(s\):\n.*stack_000000\.npz\n.*stack_000001\.npz\n.*Convert the "
        r"particles",
    ),
    "a gap between stacks": (
        lambda p: [f.rename(str(f).replace("000001", "000002")) for f in p.files.image_stack(1)],
        r"2 missing input file\(s\):\n.*stack_000001\.pt\n.*stack_000001\.npz\n",
    ),
    "metadata without its images": (
        lambda p: p.images(1).unlink(),
        rf"1 missing input file.*{STACK}\.pt",
    ),
    "no particles": (
        lambda p: [f.unlink() for f in p.images().parent.iterdir()],
        r"stack_000000\.pt",
    ),
    "no parameters": (lambda p: p.parameters.unlink(), r"parameters\.npz: there is no such file"),
    "no list": (
        lambda p: p.files.template_list.unlink(),
        r"template_file_list\.npy: there is no such file",
    ),
    "empty list": (
        lambda p: write_list(p.files.template_list, []),
        r"template_file_list\.npy.* 0 template file",
    ),
    "pickled list": (
        lambda p: np.save(p.files.template_list, np.array(["a"], dtype=object)),
        r"template_file_list\.npy: is a pickled object",
    ),
    "missing templates": (
        lambda p: write_list(p.files.template_list, ["x.pt", "y.pt", p.template().name]),
        r"2 missing input file\(s\):\n.*x\.pt\n.*y\.pt\n.*Make the templates again",
    ),
    "templates missing a direction": (
        lambda p: [
            p.edit(p.template(), lambda t: t[1:].clone()),
            p.template().with_suffix(".npz").unlink(),
        ],
        r"templates_fourier_a\.pt: 27 templates, but view_step_degrees=143\.24 gives 28 viewing "
        r"directions",
    ),
    "templates without their sidecar's direction": (
        lambda p: p.edit(p.template(), lambda t: t[1:].clone()),
        r"27 templates, but .*templates_fourier_a\.npz lists 28 viewing directions",
    ),
    "sidecar without conventions": (
        lambda p: p.change(p.template().with_suffix(".npz"), conventions=None),
        r"templates_fourier_a\.npz: lacks conventions",
    ),
    "sidecar with a zero weight": (
        lambda p: p.change(p.template().with_suffix(".npz"), viewing_weight=np.zeros(N_TEMPLATES)),
        r"templates_fourier_a\.npz: .*weight",
    ),
    "templates of another pixel size": (
        lambda p: p.change(p.template().with_suffix(".npz"), pixel_size=np.array([1.6, 1.6])),
        r"templates_fourier_a\.npz: pixel_size=1\.6, but the parameters say 1\.5\. Make the "
        r"templates again",
    ),
    "sidecar of unknown conventions": (
        lambda p: p.change(p.template().with_suffix(".npz"), conventions="mine"),
        r"templates_fourier_a\.npz: .*mine",
    ),
    "images with another number of shells": (
        lambda p: p.edit(p.images(1), lambda t: t[:, 1:].clone()),
        rf"{STACK}\.pt: 12 shells, but the parameters describe 13\. Convert the stack again",
    ),
    "images with another number of angles": (
        lambda p: p.edit(p.images(1), lambda t: t[:, :, 2:].clone()),
        rf"{STACK}\.pt: 18 in-plane angles, but the parameters describe 20",
    ),
    "templates with another number of angles": (
        lambda p: p.edit(p.template(), lambda t: t[:, :, 2:].clone()),
        r"templates_fourier_a\.pt: 18 in-plane angles, but the parameters describe 20\. Make the "
        r"templates again",
    ),
    "another pixel size": (
        lambda p: p.change(p.metadata(1), pixel_size=np.array([1.6, 1.6])),
        rf"{STACK}\.npz: pixel_size=1\.6, but the parameters say 1\.5\. Convert",
    ),
    "another box": (
        lambda p: p.change(p.metadata(1), n_pixels=np.array([14, 14])),
        rf"{STACK}\.npz: n_pixels=14, but the parameters say 12",
    ),
    "not square": (
        lambda p: p.change(p.metadata(1), n_pixels=np.array([12, 14])),
        rf"{STACK}\.npz: n_pixels=\[12, 14\] is not square",
    ),
    "odd in-plane angles": (
        lambda p: p.change(p.parameters, n_inplanes=21),
        r"parameters\.npz: n_inplanes=21 is not a positive even number",
    ),
    "no images": (
        lambda p: p.edit(p.images(1), lambda t: t[:0].clone()),
        rf"{STACK}\.pt: is empty",
    ),
    "another number of images": (
        lambda p: p.edit(p.images(1), lambda t: t[1:].clone()),
        rf"{STACK}\.npz: n_images=5, but .*{STACK}\.pt holds 4 images.*convert the stack again",
    ),
    "real images": (
        lambda p: p.edit(p.images(1), lambda t: t.real.clone()),
        rf"{STACK}\.pt: holds float32 values, but complex64 or complex128 are needed",
    ),
    "images of four dimensions": (
        lambda p: p.edit(p.images(1), lambda t: t[None].clone()),
        rf"{STACK}\.pt: has shape \(1, 5, 13, 20\), but 3 dimensions are needed",
    ),
    "images larger than their storage": (
        lambda p: torch.save(torch.ones(1, dtype=torch.complex64).expand(5, 13, 20), p.images(1)),
        rf"{STACK}\.pt: claims 1300 values of shape \(5, 13, 20\), but stores 1\.",
    ),
    "a missing key": (
        lambda p: p.change(p.metadata(1), defocusU=None),
        rf"{STACK}\.npz: lacks defocusU\. Convert",
    ),
    "optics of another length": (
        lambda p: p.change(p.metadata(1), defocusU=np.ones(4)),
        rf"{STACK}\.npz: defocusU has shape \(4,\), but there are 5 images",
    ),
    "an infinite defocus": (
        lambda p: p.change(p.metadata(1), defocusV=np.array([1, 2, np.inf, 4, np.nan])),
        rf"{STACK}\.npz: defocusV is not finite for image\(s\) 2, 4",
    ),
    "text for a voltage": (
        lambda p: p.change(p.metadata(1), voltage="300 kV"),
        rf"{STACK}\.npz: .*voltage.*300 kV",
    ),
    "a pickled value": (
        lambda p: p.change(p.metadata(1), voltage=np.array([300.0, None])),
        rf"{STACK}\.npz, entry 'voltage': is a pickled object",
    ),
    "several numbers of images": (
        lambda p: p.change(p.metadata(1), n_images=np.array([5, 5])),
        rf"{STACK}\.npz: .*n_images",
    ),
    "an unknown frame": (
        lambda p: p.change(p.metadata(1), frame="yx"),
        rf"{STACK}\.npz: frame='yx' is not known",
    ),
    "a pickle for images": (
        lambda p: p.images(1).write_bytes(pickle.dumps([1])),
        rf"{STACK}\.pt: cannot be read as a plain tensor and is not unpickled",
    ),
    "a truncated metadata file": (
        lambda p: p.metadata(1).write_bytes(p.metadata(1).read_bytes()[:500]),
        rf"{STACK}\.npz: is not a readable \.npz file",
    ),
}


@pytest.mark.parametrize(("spoil", "complaint"), HEADERS.values(), ids=HEADERS.keys())
def test_bad_headers(project, spoil, complaint):
    spoil(project)
    for run in (run_likelihood_optimal_pose, run_likelihood_full_cross_correlation):
        with pytest.raises(InputError, match=r"(?s)" + complaint):
            run(project.files, project.parameters, SEARCH, progress=False)
    assert not project.files.folder_output.exists()


def test_pickle_is_not_executed(project, tmp_path):
    class Trap:
        def __reduce__(self):
            return open, (str(tmp_path / "executed"), "w")

    for path in (project.images(0), project.template()):
        torch.save(Trap(), path)
        with pytest.raises(InputFileError, match=f"{path.name}.*is not unpickled"):
            project.run()
        project.write()
    assert not (tmp_path / "executed").exists()


SEEN = {
    "defocusU": 1e4,
    "defocusV": 1e4,
    "phaseShift": 0.5,
    "sphericalAberration": 2.7,
    "amplitudeContrast": 0.1,
}
"""What makes an image visible."""
DATA = {
    "NaN": (
        lambda p: p.edit(p.images(1), lambda t: changed(t, ([1, 3], 2, 5), complex(np.nan, 0))),
        NotFiniteError,
        rf"{STACK}\.pt: image\(s\) 1, 3 hold NaN or infinite values.*Leave",
    ),
    "infinite": (
        lambda p: p.edit(p.images(1), lambda t: changed(t, (4, 0, 0), complex(0, np.inf))),
        NotFiniteError,
        rf"{STACK}\.pt: image\(s\) 4 hold NaN or infinite values",
    ),
    "zero image": (
        lambda p: p.edit(p.images(1), lambda t: changed(t, 2, 0)),
        ZeroPowerError,
        rf"{STACK}\.pt: image\(s\) 2 have no power",
    ),
    "zero template": (
        lambda p: p.edit(p.template(), lambda t: changed(t, 27, 0)),
        ZeroPowerError,
        r"templates_fourier_a\.pt: template\(s\) 27 have no power",
    ),
    "NaN template": (
        lambda p: p.edit(p.template(), lambda t: changed(t, (5, 0, 0), complex(np.nan))),
        NotFiniteError,
        r"templates_fourier_a\.pt: template\(s\) 5 hold NaN",
    ),
    "not transforms of real images": (
        lambda p: p.edit(p.images(1), lambda t: t * 1j),
        InputError,
        rf"{STACK}\.pt: image\(s\) 0, 1, 2, 3, 4 are not transforms of real images",
    ),
    "no contrast": (
        lambda p: p.change(
            p.metadata(1), **{key: one * np.array([1, 0, 1, 1, 1]) for key, one in SEEN.items()}
        ),
        ZeroPowerError,
        rf"{STACK}\.pt: image\(s\) 1 have a contrast transfer of 0 everywhere",
    ),
}


@pytest.mark.parametrize(("spoil", "error", "complaint"), DATA.values(), ids=DATA.keys())
def test_bad_data(project, spoil, error, complaint):
    spoil(project)
    with pytest.raises(error, match=complaint):
        project.run()
    left = {p.name for p in project.files.folder_output.glob("template*/**/*") if p.is_file()} - {
        "structure.npz"
    }
    assert all("stack_000000" in name for name in left)  # the bad stack has left nothing


@pytest.mark.parametrize("factor", [1e-15, 1e6, 1e18])
@pytest.mark.parametrize("kind", ["images", "template"])
def test_brightness_does_not_matter(project, kind, factor):
    expected = correlation(project)
    path = project.images(1) if kind == "images" else project.template()
    project.edit(path, lambda t: t * factor)
    np.testing.assert_allclose(correlation(project), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(
    "entries",
    [{"defocusU": 1e308, "defocusV": 1e308}, {"ctfBfactor": -1e6}, {"ctfScalefactor": 1e25}],
)
def test_contrast_that_would_overflow_is_said_of_the_images(project, entries):
    project.change(
        project.metadata(1), **{key: np.full(5, value) for key, value in entries.items()}
    )
    key = next(iter(entries))
    with pytest.raises(
        InputFileError,
        match=rf"{STACK}\.npz: {key}=.* of image\(s\) 0, 1, 2, 3, 4 is not a value in",
    ):
        project.run()


@pytest.mark.parametrize(
    "columns",
    [
        {"defocus_u_angstrom": 1e308, "defocus_v_angstrom": 1e308},
        {"b_factor_angstrom2": -1e6},
        {"scale": 1e200},
    ],
)
def test_contrast_that_overflows_in_memory_is_said_of_the_images(build, columns):
    images, templates = build.stacks(n_images=5)
    for name, value in columns.items():
        images.optics[name] = value
    with pytest.raises(
        NotFiniteError, match=r"image\(s\) 0, 1, 2, 3, 4 have a contrast transfer that overflows"
    ):
        compute_optimal_pose(images, templates).compute(scheduler="synchronous")


SETTINGS = {
    "template beyond the list": (
        {"i_template": 2},
        r"i_template=2 is not in .*list\.npy, which lists 2 .* Give 0 to 1",
    ),
    "negative template": ({"i_template": -1}, r"i_template=-1 is not in"),
    "boolean template": ({"i_template": True}, r"i_template=True"),
    "one template beyond the list": ({"i_template": [0, 5]}, r"i_template=5"),
    "fraction of a template": ({"i_template": 0.5}, r"i_template=0\.5"),
    "a template twice": ({"i_template": [1, 1]}, r"i_template=\[1, 1\] names a structure twice"),
    "displacements beyond the box": (
        {"displacer": DisplacementSearch(6.1, 3, 3)},
        r"displacements of up to 9\.15 angstrom leave the box, whose half is 9 angstrom",
    ),
    "too many displacements": (
        {"displacer": DisplacementSearch(1, 10**6, 10**6)},
        r"1000000 x 1000000 displacements",
    ),
    "an address for a client": (
        {"client": "tcp://127.0.0.1:8786"},
        r"client='tcp://127\.0\.0\.1:8786' is not a Client",
    ),
    "no template": ({"i_template": []}, r"i_template names no structure"),
    "template by another word": ({"i_template": "every"}, r"i_template='every'.*all"),
    "number of a template as text": ({"i_template": ["0"]}, r"i_template='?0"),
    "no stacks": ({"n_stacks": 0}, r"n_stacks=0 is not a positive number"),
    "negative stacks": ({"n_stacks": -3}, r"n_stacks=-3"),
    "fraction of a stack": ({"n_stacks": 1.5}, r"n_stacks=1\.5"),
    "number of stacks as text": ({"n_stacks": "2"}, r"n_stacks='?2"),
    "more stacks than there are": (
        {"n_stacks": 3},
        r"n_stacks=3, but .*has 2 image stack\(s\)\. Give at most 2",
    ),
    "no images per batch": ({"n_images_per_batch": 0}, r"n_images_per_batch=0"),
    "fraction of an image per batch": ({"n_images_per_batch": 1.5}, r"n_images_per_batch=1\.5"),
    "templates per batch as text": ({"n_templates_per_batch": "4"}, r"n_templates_per_batch='?4"),
    "unknown conventions": ({"conventions": "relion"}, r"conventions='relion' is not known"),
    "unknown device": ({"device": "gpu"}, r"device='gpu' is not known"),
    "unknown precision": ({"precision": "half"}, r"precision='half' is not known"),
    "no displacer": ({"displacer": None}, r"displacer"),
    "displacer that gives nothing": ({"displacer": lambda templates: None}, r"displacer.*NoneType"),
    "displacer that gives a grid": (
        {"displacer": lambda templates: SEARCH.grid(1.5)},
        r"displacer.*DisplacementGrid",
    ),
    "displacer that draws": (
        {
            "displacer": lambda t: DisplacementSearch(np.random.default_rng().random(), 3, 3)(t),
            "i_template": "all",
        },
        r"the displacer gives different displacements for different structures",
    ),
    "no parameters": ({"params_input": None}, r"params_input is a NoneType"),
    "no files": ({"file_config": None}, r"file_config"),
    "swapped files and parameters": (
        {"file_config": "parameters.npz", "params_input": SEARCH},
        r"file_config|params_input",
    ),
}


@pytest.mark.parametrize(("settings", "complaint"), SETTINGS.values(), ids=SETTINGS.keys())
def test_bad_settings(project, settings, complaint):
    with pytest.raises(InputError, match=r"(?s)" + complaint):
        project.run(**settings)
    assert not project.files.folder_output.exists()


def test_integers_of_numpy_are_numbers(project):
    one = np.int64(1)
    poses = project.run(
        i_template=one, n_stacks=one, n_images_per_batch=one, n_templates_per_batch=one
    )
    assert dict(poses.sizes) == {"image": 3}
    assert poses.structure == "b"
    assert project.run(i_template=np.arange(2)).structure.values.tolist() == ["a", "b"]
    assert open_images(project.files, project.parameters).chunk(np.int64(4)).chunks == (4, 4)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_gpu_that_is_not_there(project):
    with pytest.raises(
        DeviceError, match=r'device="cuda", but this process sees no CUDA GPU.* Use device="auto"'
    ):
        project.run(device="cuda")
    assert not project.files.folder_output.exists()


def test_full_correlation_that_cannot_fit(project):
    n = int(psutil.virtual_memory().total / (5 * N_TEMPLATES * 20 * 4))
    zeros = np.zeros(n)
    with pytest.raises(
        CannotFitError,
        match=rf"correlation, 5 x 28 x {n} x 20 .* takes [\d.e+]+ GB.* Ask for fewer",
    ):
        run_likelihood_full_cross_correlation(
            *(project.files, project.parameters),
            lambda templates: replace(templates, displacements=DisplacementGrid(zeros, zeros)),
            n_images_per_batch=5,
            n_templates_per_batch=28,
            progress=False,
            noise="white",
        )
    assert not project.files.folder_output.exists()


def test_stack_beyond_those_configured(project):
    with pytest.raises(InputError, match=r"i_stack=2, but .* is configured with stacks 0 to 1"):
        open_images(project.files, project.parameters, 2)


def test_several_structures_cannot_be_opened_as_one(project):
    with pytest.raises(InputError, match=r"2 structures are configured.* Choose one"):
        open_templates(replace(project.files, i_template="all"), project.parameters)


@pytest.mark.parametrize("absolute", [False, True])
def test_paths_in_the_list(project, monkeypatch, tmp_path, absolute):
    monkeypatch.chdir(tmp_path)
    path = project.template("b") if absolute else project.template("b").relative_to(tmp_path)
    write_list(project.files.template_list, [str(path)])
    assert open_templates(project.files, project.parameters).structure == "b"


def test_name_that_fits_two_files(project, monkeypatch, tmp_path):
    name = project.template().name
    (tmp_path / name).write_bytes(project.template("b").read_bytes())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputFileError, match=rf"is both {tmp_path}/{name} and {project.template()}.* Remove one"
    ):
        project.run()
    (tmp_path / name).unlink()
    os.link(project.template(), tmp_path / name)
    assert len(project.files.template_files()) == 2
    (tmp_path / name).unlink()
    shutil.copy(project.template(), tmp_path / name)
    assert project.files.template_files()[0] == project.template()


def test_unequal_stacks_are_one_after_the_other(project):
    images = open_images(project.files, project.parameters)
    assert images.chunks == (3, 5)
    assert images.stack.tolist() == [0] * 3 + [1] * 5
    assert images.image_in_stack.tolist() == [0, 1, 2, 0, 1, 2, 3, 4]
    assert images.source.locate(4) == (str(project.images(1)), 1)


def test_stack_of_another_precision_is_converted_and_logged(project, caplog):
    expected = project.run().load()
    for i in range(2):
        project.edit(project.images(i), lambda t: t.to(torch.complex128))
    with caplog.at_level(logging.WARNING, "cryolike_dask"):
        poses = project.run(overwrite=True).load()
    assert "images are complex128 and are converted to single precision" in caplog.text
    assert poses.cross_correlation.dtype == np.float32
    np.testing.assert_array_equal(poses.cross_correlation, expected.cross_correlation)


@pytest.mark.parametrize(
    ("key", "field", "values"),
    [
        ("amplitudeContrast", "amplitude_contrast", [0.07, 0.1, 0.07, 0.2, 0.1]),
        ("voltage", "voltage_kilovolt", [300.0, 300.0, 200.0, 200.0, 300.0]),
        ("sphericalAberration", "spherical_aberration_mm", [2.7, 2.7, 2.7, 0.01, 2.7]),
    ],
)
def test_optics_per_image(project, key, field, values):
    project.change(project.metadata(1), **{key: np.array(values)})
    assert open_images(project.files, project.parameters, 1).optics[field].tolist() == values
    complaint = rf'{field} takes \d values, .*conventions="cryolike".*Use conventions="standard"'
    with pytest.raises(InputError, match=complaint):
        project.run(conventions="cryolike")
    assert not project.files.folder_output.exists()


def correlation(project: Project, conventions: str = "standard", i_stack: int = 1) -> np.ndarray:
    """Every correlation of one stack."""
    templates = SEARCH(open_templates(project.files, project.parameters))
    images = open_images(project.files, project.parameters, i_stack)
    return compute_cross_correlation_complete(
        images, templates, conventions=conventions
    ).cross_correlation.values


@pytest.mark.parametrize(
    ("key", "field", "value", "cancels"),
    [("ctfBfactor", "b_factor_angstrom2", 200.0, False), ("ctfScalefactor", "scale", 0.5, True)],
)
def test_envelope_is_used_under_standard_and_ignored_under_cryolike(
    project, key, field, value, cancels
):
    before = {name: correlation(project, name) for name in ("standard", "cryolike")}
    project.change(project.metadata(1), **{key: value})
    assert open_images(project.files, project.parameters, 1).optics[field].tolist() == [value] * 5
    np.testing.assert_array_equal(correlation(project, "cryolike"), before["cryolike"])
    assert (np.abs(correlation(project) - before["standard"]).max() < 1e-6) == cancels


def transposed(values: np.ndarray) -> np.ndarray:
    """Rings with x and y exchanged: the angle t becomes 90 degrees - t."""
    n = values.shape[-1]
    return values[..., (n // 4 - np.arange(n)) % n]


def test_transposed_copy_of_a_stack_gives_the_same_correlations(project):
    """The two frames of a stack: images and templates transposed, defocus angles 90 degrees - a.

    A transposed template at rotation w and displacement (x, y) is the template at -w and (y, x).
    """
    expected = correlation(project)
    project.edit(project.images(1), lambda t: torch.from_numpy(transposed(t.numpy())))
    project.edit(project.template(), lambda t: torch.from_numpy(transposed(t.numpy())))
    with np.load(project.metadata(1)) as metadata:
        angle = metadata["defocusAngle"]
    search = DisplacementSearch(
        SEARCH.max_displacement_pixels, SEARCH.n_displacements_y, SEARCH.n_displacements_x
    )
    order = matching(SEARCH.grid(1.5).table(), search.grid(1.5).table()[::-1])
    for changes in (
        {"frame": "xy", "defocusAngle": np.pi / 2 - angle},
        {"frame": None, "defocusAngle": angle},
    ):
        project.change(project.metadata(1), **changes)
        templates = search(open_templates(project.files, project.parameters))
        images = open_images(project.files, project.parameters, 1)
        found = compute_cross_correlation_complete(images, templates).cross_correlation.values
        found = found[:, :, order][..., -np.arange(20) % 20]
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)


def matching(wanted: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Where each wanted displacement stands in the given ones."""
    distance = np.abs(wanted[:, :, None] - given[:, None, :]).max(0)
    assert (distance.min(1) < 1e-12).all()
    return distance.argmin(1)


@pytest.mark.parametrize(("conventions", "logged"), [("standard", True), ("cryolike", False)])
def test_missing_frame_is_logged(project, caplog, conventions, logged):
    for i in range(2):
        project.change(project.metadata(i), frame=None)
    with caplog.at_level(logging.WARNING, "cryolike_dask"):
        project.run(conventions=conventions)
    lines = [
        m
        for m in caplog.messages
        if 'read as 90 degrees - a; conventions="cryolike" takes it as it is' in m
    ]
    assert len(lines) == logged


def test_cryolike_takes_the_defocus_angle_as_it_is(project):
    expected = correlation(project, "cryolike")
    project.change(project.metadata(1), frame=None)
    np.testing.assert_array_equal(correlation(project, "cryolike"), expected)
    assert np.abs(correlation(project) - expected).max() > 1e-3


def test_mixed_frames(project):
    project.change(project.metadata(1), frame=None)
    with pytest.raises(
        InputError, match=r"stacks in different frames: .*\.npz and .*\.npz.* Open them one by one"
    ):
        open_images(project.files, project.parameters)
    assert dict(project.run().sizes) == {"image": 8}


def test_templates_of_cryolike_are_logged(project, caplog):
    project.template().with_suffix(".npz").unlink()
    with caplog.at_level(logging.WARNING, "cryolike_dask"):
        project.run()
    assert sum("these templates were made by CryoLike" in m for m in caplog.messages) == 1


def outputs_refused(project: Project, complaint: str, **settings: object) -> None:
    """A run ends in one error of this package that says what is in the way."""
    with pytest.raises(CryolikeError, match=complaint):
        project.run(**settings)


def test_output_that_is_a_file(project):
    project.files.folder_output.write_text("notes")
    outputs_refused(project, r"out.*(not a folder|is a file)")
    assert project.files.folder_output.read_text() == "notes"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_output_that_cannot_be_written(project):
    project.files.folder_output.mkdir(mode=0o500)
    outputs_refused(project, r"out.*(cannot be written|[Pp]ermission)")


def test_output_inside_the_input(project):
    files = replace(project.files, folder_output=project.files.folder_particles)
    before = {p: p.read_bytes() for p in project.folder.rglob("*") if p.is_file()}
    assert dict(project.run(file_config=files).sizes) == {"image": 8}
    assert {p: p.read_bytes() for p in before} == before
