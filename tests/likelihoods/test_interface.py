"""Lazy stacks in, lazy labelled Datasets out: chunks never change a number, nothing is computed
early, errors tell."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

import dask
import dask.local
import numpy as np
import pytest
import torch

from cryolike_dask.conventions import CRYOLIKE, STANDARD
from cryolike_dask.errors import (
    DeviceError,
    GridMismatchError,
    InputError,
    NotFiniteError,
    ZeroPowerError,
)
from cryolike_dask.geometry.displacements import DisplacementSearch
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.io.archives import write_list
from cryolike_dask.io.layout import LikelihoodFiles
from cryolike_dask.io.stacks import write_image_stack, write_template_stack
from cryolike_dask.likelihoods import blocks, interface
from cryolike_dask.likelihoods.graph import ComparisonGraph, image_rows, template_rows
from cryolike_dask.likelihoods.search import adaptive
from cryolike_dask.likelihoods.settings import Settings
from cryolike_dask.stacks import ImageStack, TemplateStack, open_images, open_templates

DISPLACEMENT = {"optimal_displacement_x": "angstrom", "optimal_displacement_y": "angstrom"}
ROTATION = {"optimal_inplane_rotation": "radian"}
RESULTS = {
    "compute_optimal_pose": (
        ("image",),
        {
            "cross_correlation": "1",
            "optimal_template": "1",
            **DISPLACEMENT,
            **ROTATION,
            "log_likelihood_integrated": "nat",
            "log_likelihood_optimal": "nat",
            "correlation_error_bound": "1",
        },
    ),
    "compute_optimal_displacement_and_rotation": (
        ("image", "template"),
        {"cross_correlation": "1", **DISPLACEMENT, **ROTATION, "log_likelihood": "nat"},
    ),
    "compute_optimal_displacement": (
        ("image", "template", "rotation"),
        {"cross_correlation": "1", **DISPLACEMENT},
    ),
    "compute_optimal_rotation": (
        ("image", "template", "displacement"),
        {"cross_correlation": "1", **ROTATION},
    ),
    "compute_cross_correlation_complete": (
        ("image", "template", "displacement", "rotation"),
        {"cross_correlation": "1"},
    ),
    "compute_integrated_log_likelihood": (("image",), {"log_likelihood_integrated": "nat"}),
}
"""The dims of each result, and its variables with their units."""
COORDINATES = {
    "image": {"image": None, "stack": None, "image_in_stack": None},
    "template": {
        "template": None,
        "azimuth": "radian",
        "polar": "radian",
        "viewing_weight": "steradian",
    },
    "displacement": {
        "displacement": None,
        "displacement_x": "angstrom",
        "displacement_y": "angstrom",
    },
    "rotation": {"rotation": "radian"},
}


def lazy(name, images, templates, **settings):
    return getattr(interface, name)(images, templates, **{"device": "cpu", **settings})


def computed(name, images, templates, **settings):
    return lazy(name, images, templates, **settings).compute(scheduler="sync")


# Chunks and tiles


CHUNKS = {
    "ragged": ((1, 3, 1), (2, 4, 1)),
    "ones": (1, 1),
    "images only": (2, 7),
    "templates only": (5, 3),
}
TILES = {"ragged tiles": (2, 3), "tiles of one": (1, 1)}


def assert_same_result(found, wanted, full):
    """Numbers to rounding; poses wherever the best correlation exceeds the second best by more
    than rounding."""
    over = [dim for dim in ("template", "displacement", "rotation") if dim not in wanted.dims]
    if over:
        ordered = np.sort(full.stack(pose=over).transpose(..., "pose").values)
        decided = ordered[..., -1] - ordered[..., -2] > 1e-12
        assert decided.any()
    for name in wanted:
        if name == "cross_correlation":
            np.testing.assert_allclose(found[name], wanted[name], rtol=0, atol=1e-12)
        elif name.startswith("log_likelihood"):
            np.testing.assert_allclose(found[name], wanted[name], rtol=0, atol=1e-9)
        else:
            np.testing.assert_array_equal(found[name].values[decided], wanted[name].values[decided])


@pytest.mark.parametrize("conventions", ["standard", "cryolike"])
@pytest.mark.parametrize("name", RESULTS)
def test_chunks_and_tiles_change_nothing(build, name, conventions):
    images, templates = build.stacks()
    full = computed(
        "compute_cross_correlation_complete", images, templates, conventions=conventions
    ).cross_correlation
    wanted = computed(name, images, templates, conventions=conventions)
    others = [
        (images.chunk(of_images), templates.chunk(of_templates))
        for of_images, of_templates in CHUNKS.values()
    ]
    others += [
        (replace(images, n_per_batch=m), replace(templates, n_per_batch=s))
        for m, s in TILES.values()
    ]
    for other in others:
        assert_same_result(computed(name, *other, conventions=conventions), wanted, full)
    discovered = computed(
        name, images, templates, conventions=conventions, discover_batch_size=True
    )
    assert_same_result(discovered, wanted, full)


def test_equal_templates_tie_to_the_lowest(build):
    """Equal templates in blocks of one shape give equal numbers to the last bit."""
    images, templates = build.stacks(n_templates=6)
    templates.source.values[3:] = templates.source.values[:3]
    for of_images, of_templates in ((5, 1), (1, 1), (2, 3)):
        found = computed(
            "compute_optimal_pose", images.chunk(of_images), templates.chunk(of_templates)
        )
        assert (found.optimal_template < 3).all()


def test_complete_correlation_is_chunked_by_the_batches(build):
    images, templates = build.stacks()
    found = lazy(
        "compute_cross_correlation_complete",
        replace(images, n_per_batch=2),
        replace(templates, n_per_batch=3),
    )
    assert max(found.chunksizes["image"]) <= 2
    assert max(found.chunksizes["template"]) <= 3
    assert len(found.chunksizes["displacement"]) == len(found.chunksizes["rotation"]) == 1


# Laziness


def refuse_to_compute(graph, keys, **kwargs):
    """A scheduler that must not be called."""
    raise AssertionError(f"{keys} is computed")


@pytest.mark.parametrize("name", RESULTS)
def test_building_computes_nothing(build, name):
    with dask.config.set(scheduler=refuse_to_compute):
        result = lazy(name, *build.stacks())
        assert all(variable.chunks for variable in result.data_vars.values())
        with pytest.raises(AssertionError, match="is computed"):
            result.compute()


@pytest.fixture
def files(build, tmp_path):
    """Two image stacks and one template file, and what is in them."""
    images, templates = build.stacks(n_templates=7)
    parameters = ImageParameters(12, 1.5, n_inplanes=20)
    files = LikelihoodFiles(tmp_path / "templates", tmp_path / "particles", tmp_path / "likelihood")
    for folder in (files.folder_templates, files.folder_particles / "fft"):
        folder.mkdir(parents=True)
    for stack, part in enumerate((slice(0, 2), slice(2, 5))):
        write_image_stack(
            files.image_stack(stack)[0], images.source.values[part], images.optics[part], parameters
        )
    path = files.folder_templates / "templates_fourier_blob.pt"
    write_template_stack(path, templates.source.values, templates.viewing, parameters, "standard")
    write_list(files.template_list, [path.name])
    return files, parameters, images, templates


def test_opening_computes_nothing_and_files_are_as_arrays(files):
    files, parameters, images, templates = files
    with dask.config.set(scheduler=refuse_to_compute):
        opened = (
            open_images(files, parameters),
            DisplacementSearch(1.5, 3, 2)(open_templates(files, parameters)),
        )
        result = lazy("compute_optimal_pose", *opened)
    np.testing.assert_array_equal(result["stack"], [0, 0, 1, 1, 1])
    np.testing.assert_array_equal(result.image_in_stack, [0, 1, 0, 1, 2])
    assert result.chunksizes["image"] == (2, 3)
    assert result.structure.item() == "blob"
    for stack, other in zip(opened, (images, templates), strict=True):
        np.testing.assert_array_equal(stack.data.compute(scheduler="sync"), other.source.values)
    full = computed("compute_cross_correlation_complete", images, templates).cross_correlation
    assert_same_result(
        result.compute(scheduler="sync"), computed("compute_optimal_pose", images, templates), full
    )


@dataclass(eq=False)
class CountedSource:
    """Rows of an array, and how often each was asked for."""

    values: np.ndarray
    taken: Counter = field(default_factory=Counter)

    @property
    def shape(self):
        return self.values.shape

    @property
    def dtype(self):
        return str(self.values.dtype)

    def take(self, rows):
        self.taken.update(rows.tolist())
        return self.values[rows]

    @property
    def paths(self):
        return ("counted",)

    def rings(self, rows):
        return None

    def locate(self, row):
        return "counted", row


@pytest.mark.parametrize(
    "name", ["compute_optimal_pose", "compute_optimal_displacement_and_rotation"]
)
def test_variables_share_their_blocks(build, name):
    """All variables together read and compute no more than one of them alone."""
    images, templates = build.stacks()
    images = replace(images, source=CountedSource(images.source.values)).chunk(2)
    templates = replace(templates, source=CountedSource(templates.source.values)).chunk(3)
    result = lazy(name, images, templates)
    result[["cross_correlation"]].compute(scheduler="sync")
    alone = images.source.taken.copy(), templates.source.taken.copy()
    result.compute(scheduler="sync")
    images.source.taken.subtract(alone[0])
    templates.source.taken.subtract(alone[1])
    assert (images.source.taken, templates.source.taken) == alone


def test_blocks_run_once(build):
    """One task for each chunk of images and each chunk of templates, however many variables are
    asked for."""
    ran = Counter()

    def counting(graph, keys, **kwargs):
        with dask.callbacks.Callback(pretask=lambda key, *_: ran.update([str(key)])):
            return dask.local.get_sync(graph, keys, **kwargs)

    images, templates = build.stacks()
    with dask.config.set(scheduler=counting):
        lazy("compute_optimal_pose", images.chunk((2, 3)), templates.chunk((1, 4, 2))).compute(
            optimize_graph=False
        )
    blocks = {key: n for key, n in ran.items() if key.startswith("('optimal-pose-block-")}
    assert len(blocks) == 6
    assert set(blocks.values()) == {1}


def test_a_process_makes_one_radial_basis_for_all_images(build, monkeypatch):
    made, find_basis = [], blocks.find_basis

    def counted(comparison):
        made.append(comparison)
        return find_basis(comparison)

    monkeypatch.setattr(blocks, "find_basis", counted)
    images, templates = build.stacks()
    stacks = [(images[:2], templates), (images[2:], templates), (images, build.stacks()[1])]
    found = [computed("compute_optimal_pose", *pair, tolerance=1e-3) for pair in stacks[:2]]
    assert len(made) == 1
    blocks._LATEST.clear()
    again = computed("compute_optimal_pose", *stacks[1], tolerance=1e-3)
    assert found[1].identical(again)
    other = DisplacementSearch(1.0, 3, 3)(templates)
    for pair, tolerance in ((stacks[2], 1e-3), ((images, other), 1e-3), (stacks[0], 1e-2)):
        computed("compute_optimal_pose", *pair, tolerance=tolerance)
    assert len(made) == 5, "other templates, displacements or tolerance ask for another"
    for k in range(blocks.KEPT_BASES + 2):
        computed("compute_optimal_pose", images, templates, tolerance=1e-3 + 1e-5 * (k + 1))
    assert len(blocks._LATEST) == blocks.KEPT_BASES


def test_a_process_keeps_a_radial_basis_that_it_was_given(build, monkeypatch):
    """Another worker has made it, and this one may be asked for it with the next stack."""
    images, templates = build.stacks()
    monkeypatch.setattr(blocks, "_LATEST", type(blocks._LATEST)())
    graph = ComparisonGraph(images, templates, Settings(device="cpu", tolerance=1e-3))
    basis = blocks.find_basis(graph.comparison)
    rules = graph.comparison.conventions
    rows = image_rows(images, rules), template_rows(templates, rules)
    blocks.optimal_poses(*rows, basis, comparison=graph.comparison)
    assert blocks.radial_basis_of(graph.comparison) is basis


@pytest.mark.parametrize("search", ["exhaustive", "adaptive"])
def test_likelihoods_at_best_poses_are_computed_once(build, monkeypatch, search):
    """For each image, however templates are cut; and not at all where nobody asks for them."""
    monkeypatch.setattr(adaptive, "HALF_PIXELS", 8)
    computed_for, log_likelihood_at = [], blocks.log_likelihood_at

    def counted(image_rows, *args):
        computed_for.extend(image_rows["index"].tolist())
        return log_likelihood_at(image_rows, *args)

    monkeypatch.setattr(blocks, "log_likelihood_at", counted)
    stacks = build.stacks()[0].chunk((2, 3)), build.stacks()[1].chunk((1, 4, 2))
    computed("compute_optimal_pose", *stacks, search=search)
    assert sorted(computed_for) == [0, 1, 2, 3, 4]
    computed_for.clear()
    computed("compute_integrated_log_likelihood", *stacks, search=search)
    assert not computed_for


# Labels


@pytest.mark.parametrize("name", RESULTS)
def test_labels(build, name):
    images, templates = build.stacks()
    result = lazy(name, images, templates)
    dims, units = RESULTS[name]
    assert {variable: result[variable].attrs["units"] for variable in result} == units
    sizes = {"image": 5, "template": 7, "displacement": 7, "rotation": 20}
    for variable in result.data_vars.values():
        assert variable.dims == dims
        assert variable.attrs["long_name"]
        assert variable.shape == tuple(sizes[dim] for dim in dims)
    expected = {coordinate: unit for dim in dims for coordinate, unit in COORDINATES[dim].items()}
    expected["structure"] = None
    assert result.structure.dims == ()
    assert {
        name: coordinate.attrs.get("units") for name, coordinate in result.coords.items()
    } == expected
    for dim in dims:
        for coordinate in COORDINATES[dim]:
            assert result[coordinate].dims == (dim,)


def test_values_of_coordinates_and_attributes(build):
    images, templates = build.stacks()
    result = lazy(
        "compute_cross_correlation_complete",
        images,
        templates,
        conventions="cryolike",
        precision="single",
    )
    np.testing.assert_array_equal(result.image, np.arange(5))
    np.testing.assert_array_equal(result.template, np.arange(7))
    np.testing.assert_allclose(result.rotation, 2 * np.pi * np.arange(20) / 20)
    np.testing.assert_array_equal(result.azimuth, templates.viewing.azimuth)
    np.testing.assert_array_equal(result.polar, templates.viewing.polar)
    np.testing.assert_array_equal(result.viewing_weight, templates.viewing.weight)
    np.testing.assert_array_equal(result.displacement_x, [-2.25, 0, 2.25, -2.25, 0, 2.25, 0])
    np.testing.assert_array_equal(result.displacement_y, [-2.25, -2.25, -2.25, 2.25, 2.25, 2.25, 0])
    assert result.cross_correlation.dtype == np.float32
    expected = {
        "conventions": "cryolike",
        "precision": "single",
        "device": "cpu",
        "tolerance": 1e-7,
        "frame": "xy",
        "template_conventions": "standard",
        "n_pixels": 12,
        "pixel_size_angstrom": 1.5,
        "radius_max": 3.0,
        "n_inplanes": 20,
        "n_templates": 7,
        "n_displacements": 7,
        "max_displacement_angstrom": 2.25,
    }
    assert result.attrs.items() >= expected.items()
    assert result.attrs["version"]


def test_precision_is_that_of_the_templates(build):
    images, templates = build.stacks()
    single = replace(templates, source=type(templates.source)(templates.source.values.astype("c8")))
    assert lazy("compute_optimal_rotation", images, templates).cross_correlation.dtype == np.float64
    found = computed("compute_optimal_pose", images, single)
    assert found.cross_correlation.dtype == np.float32
    assert found.optimal_template.dtype == np.int64
    assert found.attrs["precision"] == "single"


def test_integrated_log_likelihood(build):
    images, templates = build.stacks()
    poses = computed("compute_optimal_pose", images, templates)
    pairs = computed("compute_optimal_displacement_and_rotation", images, templates)
    of_images = computed("compute_integrated_log_likelihood", images, templates)
    of_pairs = computed(
        "compute_integrated_log_likelihood", images, templates, dims=("image", "template")
    )
    assert list(of_images) == ["log_likelihood_integrated"]
    assert list(of_pairs) == ["log_likelihood"]
    np.testing.assert_array_equal(
        of_images.log_likelihood_integrated, poses.log_likelihood_integrated
    )
    np.testing.assert_array_equal(of_pairs.log_likelihood, pairs.log_likelihood)
    with pytest.raises(InputError, match=r"dims=\('template',\)"):
        lazy("compute_integrated_log_likelihood", images, templates, dims=("template",))


def test_defocus_angle_of_transposed_stacks(build):
    """`standard` reads the angle a of a stack whose x is the MRC row as 90 degrees - a;
    `cryolike` as it is."""
    images, templates = build.stacks()
    optics = images.optics.copy()
    optics["defocus_angle_radian"] = np.pi / 2 - optics["defocus_angle_radian"]
    transposed = replace(images, frame="transposed")
    for conventions, same in ((STANDARD, replace(images, optics=optics)), (CRYOLIKE, images)):
        found, wanted = (
            computed(
                "compute_optimal_rotation", stack, templates, conventions=conventions.name
            ).cross_correlation
            for stack in (transposed, same)
        )
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)


# What a user can do wrong


@pytest.mark.parametrize("name", RESULTS)
@pytest.mark.parametrize(
    ("setting", "known"),
    [("conventions", "standard, cryolike"), ("device", "auto, cpu"), ("precision", "single")],
)
def test_unknown_settings(build, name, setting, known):
    with pytest.raises(InputError, match=f"{setting}='fast' is not known.*{known}"):
        lazy(name, *build.stacks(), **{setting: "fast"})


def test_grids_that_differ(build):
    images, _ = build.stacks()
    _, templates = build.stacks(n_inplanes=24)
    with pytest.raises(GridMismatchError, match=r"n_inplanes=20.*n_inplanes=24"):
        lazy("compute_optimal_pose", images, templates)


def test_arrays_that_do_not_fit_the_parameters(build):
    parameters = ImageParameters(12, 1.5, n_inplanes=20)
    values = build.rings(3, ImageParameters(12, 1.5, n_inplanes=24).grid)
    with pytest.raises(GridMismatchError, match=r"\(3, 13, 24\).*\(n, 13, 20\)"):
        ImageStack.from_array(values, parameters, build.optics(3))
    with pytest.raises(GridMismatchError, match="3 templates, but 4 viewing directions"):
        TemplateStack.from_array(build.rings(3, parameters.grid), parameters, build.viewing(4))


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("voltage_kilovolt", [300, 200, 300, 300, 300]),
        ("spherical_aberration_mm", [2.7, 2.7, 2.7, 2.0, 2.7]),
        ("amplitude_contrast", [0.1, 0.1, 0.1, 0.1, 0.07]),
    ],
)
def test_optics_groups(build, column, values):
    """`standard` takes each image's own; `cryolike` knows one value and refuses."""
    images, templates = build.stacks(**{column: values})
    lazy("compute_optimal_pose", images, templates)
    with pytest.raises(
        InputError, match=f"{column} takes 2 values, {min(values)}.* to {max(values)}"
    ):
        lazy("compute_optimal_pose", images, templates, conventions="cryolike")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_no_gpu_is_an_error_when_computing(build):
    result = lazy("compute_optimal_pose", *build.stacks(), device="cuda")
    with pytest.raises(DeviceError, match="sees no CUDA GPU"):
        result.compute(scheduler="sync")


def test_a_chunk_or_batch_that_is_none(build):
    images, templates = build.stacks()
    with pytest.raises(InputError, match="images per chunk=0"):
        images.chunk(0)
    with pytest.raises(InputError, match=r"chunks \(3, 3\) do not add up to 7 templates"):
        templates.chunk((3, 3))
    with pytest.raises(InputError, match="n_images_per_batch=0"):
        replace(images, n_per_batch=0)


BAD_VALUES = {
    "NaN": (
        lambda rows: np.where(np.arange(rows.size).reshape(rows.shape) == 5, np.nan, rows),
        NotFiniteError,
        "NaN",
    ),
    "infinite": (
        lambda rows: np.where(np.arange(rows.size).reshape(rows.shape) == 5, np.inf, rows),
        NotFiniteError,
        "in",
    ),
    "zero": (lambda rows: 0 * rows, ZeroPowerError, "have no power"),
    "complex": (lambda rows: rows * np.exp(0.5j), InputError, "not transforms of real images"),
}


@pytest.mark.parametrize("bad", BAD_VALUES)
@pytest.mark.parametrize("which", ["image", "template"])
@pytest.mark.parametrize("name", RESULTS)
def test_bad_values_are_named(build, name, which, bad):
    """By their position in the stack, whatever the chunks."""
    spoil, error, what = BAD_VALUES[bad]
    images, templates = build.stacks()
    values = (images if which == "image" else templates).source.values
    for i in (2, 3):
        values[i] = spoil(values[i])
    result = lazy(name, images.chunk((2, 3)), templates.chunk((2, 5)))
    with pytest.raises(error, match=rf"array in memory: {which}\(s\) 2, 3 .*{what}"):
        result.compute(scheduler="sync")


def test_bad_images_in_files_are_named_by_their_file(build, files):
    files, parameters, images, templates = files
    values = images.source.values[2:].copy()
    values[1] = 0
    write_image_stack(files.image_stack(1)[0], values, images.optics[2:], parameters)
    opened = open_images(files, parameters)
    with pytest.raises(
        ZeroPowerError, match=r"particles_fourier_stack_000001\.pt: image\(s\) 1 have no power"
    ):
        computed("compute_optimal_pose", opened, templates)


def test_contrast_of_zero(build):
    present = np.array([1, 1, 0, 1, 1])
    optics = {
        "defocus_u_angstrom": 9000 * present,
        "defocus_v_angstrom": 8000 * present,
        "spherical_aberration_mm": 2.7 * present,
        "phase_shift_radian": 0.3 * present,
        "amplitude_contrast": 0.1 * present,
    }
    images, templates = build.stacks(**optics)
    with pytest.raises(
        ZeroPowerError, match=r"image\(s\) 2 have a contrast transfer of 0 everywhere"
    ):
        computed("compute_optimal_pose", images, templates)


@pytest.mark.parametrize("precision", ["single", "double"])
@pytest.mark.parametrize("conventions", ["standard", "cryolike"])
@pytest.mark.parametrize(("which", "i"), [("image", 2), ("template", 4)])
def test_nothing_but_a_constant_offset(build, which, i, conventions, precision):
    """The transform of the box has a power, but none once a constant is projected out."""
    flat = {
        "defocus_u_angstrom": 0,
        "defocus_v_angstrom": 0,
        "spherical_aberration_mm": 0,
        "phase_shift_radian": 0,
        "amplitude_contrast": 1,
    }
    images, templates = build.stacks(search=(0, 1, 1), **flat)
    values = (images if which == "image" else templates).source.values
    values[i] = 3.3 * templates.grid.mask(exact=conventions == "standard")
    settings = {"conventions": conventions, "precision": precision}
    for name in RESULTS:
        with pytest.raises(ZeroPowerError, match=rf"{which}\(s\) {i} "):
            computed(name, images, templates, **settings)


# Some of the images


@pytest.mark.parametrize(
    ("rows", "positions"),
    [
        (slice(1, 4), [1, 2, 3]),
        ([4, 0], [4, 0]),
        (np.array([True, False, False, True, False]), [0, 3]),
    ],
)
def test_some_of_the_images(files, rows, positions):
    files, parameters, _, templates = files
    opened = open_images(files, parameters)
    some = opened[rows]
    assert len(some) == len(positions)
    assert [some.source.locate(i) for i in range(len(some))] == [
        opened.source.locate(i) for i in positions
    ]
    everything = lazy("compute_optimal_pose", opened, templates).compute()
    chosen = lazy("compute_optimal_pose", some.chunk(2), templates).compute()
    np.testing.assert_array_equal(chosen["stack"], everything["stack"][positions])
    np.testing.assert_array_equal(chosen.optimal_template, everything.optimal_template[positions])
    np.testing.assert_allclose(
        chosen.log_likelihood_integrated,
        everything.log_likelihood_integrated[positions],
        rtol=1e-12,
    )


@pytest.mark.parametrize("rows", [3, 9.5, "abc", [99], None])
def test_images_that_are_not_there(build, rows):
    images, _ = build.stacks()
    with pytest.raises(InputError, match="images"):
        images[rows]


def test_a_stack_shows_itself_in_a_line(build):
    images, templates = build.stacks()
    assert repr(images).startswith("<ImageStack: 5 images of 13 shells x 20 angles, complex128")
    assert repr(templates).startswith(
        "<TemplateStack 'structure': 7 templates of 13 shells x 20 angles"
    )
    assert "\n" not in repr(images) + repr(templates)
