"""What the tests share: a seed that is printed, the golden files, and small random inputs."""

from __future__ import annotations

import logging
import os
import secrets
from collections import Counter
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import dask
import numpy as np
import pytest
import torch

from cryolike_dask.compute.local import local_cluster
from cryolike_dask.geometry.displacements import DisplacementSearch
from cryolike_dask.geometry.optics import optics_table
from cryolike_dask.geometry.parameters import ImageParameters
from cryolike_dask.geometry.viewing_angles import ViewingAngles
from cryolike_dask.io.archives import write_list
from cryolike_dask.io.parameters import write_parameters
from cryolike_dask.io.stacks import write_image_stack, write_template_stack
from cryolike_dask.simulation.demo import make_demo_inputs
from cryolike_dask.stacks import ImageStack, TemplateStack

torch.set_num_threads(1)  # the arrays are small: threads of torch would only wait for each other
# those of the processes that tests start let others compute while they wait: where there are more
# processes than cores, each took up to three times as long
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

ONLY_FOR_A_RELEASE = "they take minutes; .ci/release runs them"
SLOW = {"test_readme", "test_notebooks", "test_docs", "test_app", "test_faults", "test_remote"}
GOLDEN = Path(__file__).parents[1] / ".." / "shared" / "golden"


def pytest_addoption(parser):
    """Let a failure be repeated."""
    parser.addoption(
        "--seed",
        type=int,
        default=None,
        help="seed of the randomised tests; default: a new one per test",
    )


def pytest_collection_modifyitems(config, items):
    """Begin with the files that take longest, so that none is left to one process at the end; and
    leave out what only a release needs."""
    items.sort(key=lambda item: item.path.stem not in SLOW)
    if "release" not in config.option.markexpr:
        for item in items:
            if item.get_closest_marker("release"):
                item.add_marker(pytest.mark.skip(reason=ONLY_FOR_A_RELEASE))


def pytest_terminal_summary(terminalreporter):
    """Say what was left out."""
    reports = terminalreporter.stats.get("skipped", [])
    files = Counter(
        report.nodeid.partition("::")[0]
        for report in reports
        if ONLY_FOR_A_RELEASE in str(report.longrepr)
    )
    for file, n in sorted(files.items()):
        terminalreporter.write_line(f"{file}: {n} tests left out: {ONLY_FOR_A_RELEASE}")


@pytest.fixture
def rng(request):
    """A generator whose seed is printed, so that a failure shows it."""
    given = request.config.getoption("--seed")
    seed = secrets.randbits(32) if given is None else given
    print(f"repeat with --seed {seed}")
    return np.random.default_rng(seed)


@pytest.fixture(autouse=True)
def level_kept():
    """Commands that run in this process log more than functions do: not for the tests after
    them."""
    log = logging.getLogger("cryolike_dask")
    level = log.level
    yield
    log.setLevel(level)


@pytest.fixture(scope="session")
def golden():
    """The folder of golden files: inputs, and what CryoLike computed from them."""
    if not GOLDEN.is_dir():
        pytest.skip(f"the golden files are not at {GOLDEN}")
    return GOLDEN.resolve()


@contextmanager
def no_client():
    """Hide the clients that there are: whatever computes finds those alone that come after."""
    with pytest.MonkeyPatch.context() as patch, dask.config.set(scheduler=None):
        patch.setattr("distributed.client._global_clients", {})
        patch.setattr("distributed.client._current_client", ContextVar("current", default=None))
        yield


@pytest.fixture(autouse=True)
def clients_kept_apart():
    """A client that a test leaves behind is not the one that later tests compute on."""
    with no_client():
        yield


@pytest.fixture(scope="session")
def cluster():
    """Two worker processes, shared by all tests that need some; they compute for those alone that
    are given this client."""
    with local_cluster(2) as client, no_client():
        yield client


@pytest.fixture(scope="session")
def reaching_the_cluster(cluster, tmp_path_factory):
    """Options of commands that connect to the scheduler of `cluster`, with its certificate in
    files."""
    folder, security = tmp_path_factory.mktemp("certificate"), cluster.security
    texts = {
        "ca-file": security.tls_ca_file,
        "cert": security.tls_client_cert,
        "key": security.tls_client_key,
    }
    options = ["--scheduler", cluster.scheduler.address]
    for name, text in texts.items():
        (folder / name).write_text(text)
        options += [f"--tls-{name}", folder / name]
    return options


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """Inputs as the demo writes them."""
    folder = tmp_path_factory.mktemp("with space") / "démo"
    make_demo_inputs(folder)
    return folder


@pytest.fixture
def build(rng):
    """Small random inputs."""
    return Builder(rng)


class Builder:
    """Makes small random inputs from one generator."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng

    def rings(self, n, grid):
        """White noise with the symmetry of a real image's transform: complex (n, shell, angle)."""
        half = self.rng.standard_normal((2, n, grid.n_shells, grid.n_inplanes // 2))
        half = half[0] + 1j * half[1]
        return np.concatenate([half, half.conj()], axis=2)

    def particles(self, n, grid, n_atoms=8, radius=0.15, spread=0.3):
        """Transforms of a few Gaussians each, coordinates in half boxes: complex (n, shell,
        angle)."""
        kx, ky = grid.points()
        x, y = self.rng.uniform(-spread, spread, (2, n, n_atoms, 1, 1))
        mass = self.rng.uniform(0.5, 1.5, (n, n_atoms, 1, 1))
        waves = mass * np.exp(-2j * np.pi * (kx * x + ky * y))
        return waves.sum(1) * np.exp(-2 * (np.pi * radius * grid.radii[:, None]) ** 2)

    def optics(self, n, **columns):
        """Astigmatic optics of one 300 kV microscope."""
        u, v = self.rng.uniform(5000, 15000, (2, n))
        drawn = {
            "defocus_u_angstrom": u,
            "defocus_v_angstrom": v,
            "defocus_angle_radian": self.rng.uniform(-np.pi / 2, np.pi / 2, n),
            "phase_shift_radian": self.rng.uniform(0, np.pi / 2, n),
            "voltage_kilovolt": 300.0,
            "spherical_aberration_mm": 2.7,
            "amplitude_contrast": 0.1,
        }
        return optics_table(n, **{**drawn, **columns})

    def viewing(self, n):
        """Directions with uneven weights."""
        return ViewingAngles(*self.rng.uniform(0.1, 3.0, (3, n)))

    def stacks(
        self,
        n_images=5,
        n_templates=7,
        n_pixels=12,
        n_inplanes=20,
        search=(1.5, 3, 2),
        noise=1.0,
        **optics,
    ):
        """Noisy images of moved, turned, filtered templates, and the templates with the
        displacements to try.

        The filter of the simulation need not be that of the comparison, so it is a plain fall-off.
        """
        parameters = ImageParameters(n_pixels, 1.5, n_inplanes=n_inplanes)
        grid = parameters.grid
        values = self.particles(n_templates, grid)
        templates = TemplateStack.from_array(values, parameters, self.viewing(n_templates))
        chosen = self.rng.integers(n_templates, size=n_images)
        turns = self.rng.integers(n_inplanes, size=n_images)
        images = np.stack(
            [np.roll(values[s], -w, axis=-1) for s, w in zip(chosen, turns, strict=True)]
        )
        images = images * np.exp(-grid.radii[:, None] / grid.radius_max)
        images = images + noise * self.rings(n_images, grid)
        return (
            ImageStack.from_array(images, parameters, self.optics(n_images, **optics)),
            DisplacementSearch(*search)(templates),
        )

    def write_files(self, files, parameters, /, structures=("a", "b"), sizes=(4, 3), **entries):
        """Templates of some structures and image stacks of some sizes, where `files` says; more
        entries of stacks."""
        viewing = parameters.viewing_angles()
        names = [f"templates_fourier_{name}.pt" for name in structures]
        for name in names:
            values = self.particles(len(viewing), parameters.grid).astype(np.complex64)
            write_template_stack(
                files.folder_templates / name, values, viewing, parameters, "standard"
            )
        write_list(files.template_list, names)
        write_parameters(files.folder_templates / "parameters.npz", parameters)
        for k, n in enumerate(sizes):
            values = self.particles(n, parameters.grid) + self.rings(n, parameters.grid)
            more = {key: make(k, n) for key, make in entries.items()}
            write_image_stack(
                files.image_stack(k)[0],
                values.astype(np.complex64),
                self.optics(n),
                parameters,
                more or None,
            )
