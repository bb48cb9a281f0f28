"""The file that describes a run: what it may say, what is told of one that says it wrongly, and
running it."""

from __future__ import annotations

import copy
import re
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cryolike_dask as cld
from cryolike_dask.config.model import SECTIONS, RunConfig
from cryolike_dask.config.reading import config_schema, read_config
from cryolike_dask.errors import InputError, InputFileError
from cryolike_dask.geometry.displacements import DisplacementSearch

CONFIGS = Path(__file__).parents[2] / "configs"
EXAMPLE = files("cryolike_dask.config").joinpath("example.yaml").read_text()
GRID = {
    "n_pixels": 16,
    "pixel_size_angstrom": 16.0,
    "viewing_distance": 1.5,
    "atom_shape": "gaussian",
}
VALID = {
    "structures": {
        "files": ["a.pdb", "b.cif"],
        "models": "all",
        "healpix_order": 1,
        "i_template": [0, 1],
    },
    "particles": {
        "metadata": "p.star",
        "folder": "..",
        "batch_size": 64,
        "n_stacks": 2,
        "recenter": True,
    },
    "parameters": {
        **GRID,
        "atom_selection": "chain A",
        "n_inplanes": 32,
        "use_protein_residue_model": False,
        "symmetry": "D7",
    },
    "search": {"max_displacement_pixels": 1, "n_displacements_x": 3, "n_displacements_y": 2},
    "likelihood": {
        "kind": "optimal_pose",
        "conventions": "cryolike",
        "precision": "double",
        "tolerance": 1e-6,
    },
    "output": "results",
    "machine": {
        "device": "cpu",
        "workers": 0,
        "threads": 1,
        "on_error": "quarantine",
        "log_file": "run.jsonl",
    },
}


def changed(values, path, value=None):
    """The same with another value at a dotted path; None takes it out."""
    changed = copy.deepcopy(values)
    *parents, last = path.split(".")
    inner = changed
    for parent in parents:
        inner = inner.setdefault(parent, {})
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return changed


def refusal(values):
    with pytest.raises(InputError) as error:
        read_config(values)
    return str(error.value)


def written(folder, content, name="run.yaml"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_what_is_read_is_what_was_written(tmp_path):
    config = read_config(written(tmp_path, yaml.safe_dump(VALID)))
    assert config.structures.files == (tmp_path / "a.pdb", tmp_path / "b.cif")
    assert config.particles.metadata == (tmp_path / "p.star",)
    assert config.particles.folder == tmp_path / ".."
    assert config.output == tmp_path / "results"
    assert config.parameters.made() == cld.make_parameters(**VALID["parameters"])
    assert config.likelihood.tolerance == 1e-6
    assert config.structures.i_template == (0, 1)
    assert (config.machine.workers, config.machine.device, config.machine.skip_exist) == (
        0,
        "cpu",
        None,
    )
    assert config.machine.keeps
    with pytest.raises(ValueError, match="frozen"):
        config.output = tmp_path


@pytest.mark.parametrize(
    ("machine", "keeps"),
    [
        ({}, True),
        ({"skip_exist": True}, True),
        ({"skip_exist": False}, False),
        ({"recompute": True}, False),
        ({"recompute": False}, True),
    ],
)
def test_a_run_goes_on_unless_its_file_says_again(machine, keeps):
    assert read_config({**VALID, "machine": machine}).machine.keeps is keeps


@pytest.mark.parametrize("skip_exist", [True, False])
@pytest.mark.parametrize("recompute", [True, False])
def test_one_word_says_whether_it_goes_on(skip_exist, recompute):
    machine = {"skip_exist": skip_exist, "recompute": recompute}
    said = (
        f"machine.recompute={str(recompute).lower()} excludes "
        f"skip_exist={str(skip_exist).lower()}; leave one"
    )
    with pytest.raises(InputError, match=re.escape(said)):
        read_config({**VALID, "machine": machine})


def test_defaults_are_those_of_the_commands():
    least = {"structures": {"templates": "t"}, "particles": {"stacks": "p"}, "output": "o"}
    config = read_config(least)
    assert dict(config.search) == {
        "max_displacement_pixels": 8,
        "displacement_step_pixels": None,
        "n_displacements_x": None,
        "n_displacements_y": None,
        "method": None,
        "error_nat": None,
        "within_degrees": None,
        "within_pixels": None,
        "prior": None,
        "refine": False,
        "check_poses": True,
        "posteriors": False,
    }
    assert config.search.displacements == DisplacementSearch(8.0, 16, 16)
    assert config.parameters is None
    assert config.structures.i_template == "all"
    assert config.output == Path.cwd() / "o"
    assert read_config({**least, "search": None, "machine": None, "likelihood": None}) == config


@pytest.mark.parametrize("name", ["file", "home", "absolute", "named folder"])
def test_where_paths_start(tmp_path, monkeypatch, name):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    given, expected = {
        "file": ("x.pdb", tmp_path / "x.pdb"),
        "home": ("~/x.pdb", tmp_path / "home/x.pdb"),
        "absolute": ("/x.pdb", Path("/x.pdb")),
        "named folder": ("x.pdb", Path("/data/x.pdb")),
    }[name]
    values = changed(VALID, "structures.files", given)
    if name == "named folder":
        values["folder"] = "/data"
    assert read_config(written(tmp_path, yaml.safe_dump(values))).structures.files == (expected,)


MISTAKES = [
    ("output", None, "output is missing"),
    ("outptu", "x", "outptu is not known; did you mean output?"),
    ("machine.devise", "cpu", "machine.devise is not known; did you mean machine.device?"),
    (
        "machine.skip-exist",
        True,
        "machine.skip-exist is not known; did you mean machine.skip_exist?",
    ),
    ("device", "cpu", "device is not known; did you mean machine.device?"),
    (
        "search.zzz",
        1,
        "known are max_displacement_pixels, displacement_step_pixels, method",
    ),
    ("search.2", 1, "search.2 is not known"),
    ("machine.device", "gpu", "machine.device='gpu' is not one of auto, cpu, cuda"),
    ("machine.workers", True, "machine.workers=true is not a whole number from 0 to 100000"),
    ("machine.workers", -1, "machine.workers=-1 is not a whole number"),
    ("machine.workers", 2.0, "machine.workers=2.0 is not a whole number"),
    ("machine.workers", 10**5000, "machine.workers=a number of 16610 bits is not a whole number"),
    ("machine.skip_exist", 1, "machine.skip_exist=1 is neither true nor false"),
    ("machine.skip_exist", "yes", "machine.skip_exist='yes' is neither true nor false"),
    ("machine.recompute", "no", "machine.recompute='no' is neither true nor false"),
    (
        "machine.scheduler",
        "host:8786",
        "machine.scheduler='host:8786' is not an address such as tcp://host:8786",
    ),
    (
        "machine.scheduler",
        "tcp://host:8786",
        "machine.scheduler='tcp://host:8786' excludes workers=0",
    ),
    (
        "machine.tls_cert",
        "c.pem",
        "machine: TLS needs tls_ca_file, tls_cert and tls_key, all three",
    ),
    ("machine.performance_report", "r.html", "needs workers, but workers is 0"),
    (
        "likelihood.tolerance",
        "1e-6",
        "likelihood.tolerance='1e-6' is not a number from 0 to 0.999; it is text",
    ),
    ("likelihood.tolerance", "1e-6", "write 1.0e-06, without quotes"),
    ("likelihood.tolerance", float("nan"), "likelihood.tolerance=nan is not a number"),
    ("likelihood.tolerance", 1, "likelihood.tolerance=1 is not a number from 0 to 0.999"),
    ("likelihood.kind", "optimal-pose", "is not one of optimal_pose, full_cross_correlation"),
    (
        "parameters.n_pixels",
        "16",
        "parameters.n_pixels='16' is not a whole number from 1 to 32768; it is text: write",
    ),
    (
        "parameters.n_pixels",
        10**9,
        "parameters.n_pixels=1000000000 is not a whole number from 1 to 32768",
    ),
    ("parameters.n_pixels", None, "parameters.n_pixels is missing: Pixels along a side"),
    (
        "parameters.pixel_size_angstrom",
        0,
        "parameters.pixel_size_angstrom=0 is not a number above 0",
    ),
    (
        "parameters.pixel_size_angstrom",
        float("inf"),
        "parameters.pixel_size_angstrom=inf is not a number",
    ),
    (
        "parameters.viewing_distance",
        7.5,
        "parameters.viewing_distance=7.5 is not a number above 0, at most 3.15",
    ),
    (
        "parameters.viewing_distance",
        1e-5,
        "parameters.viewing_distance=1e-05 gives more than a million directions",
    ),
    ("parameters.n_inplanes", 33, "parameters.n_inplanes=33 is not a positive even number"),
    (
        "parameters.atom_selection",
        "protein",
        "parameters.atom_selection='protein': 'protein' is not understood",
    ),
    ("parameters", None, "parameters is missing, which structure files need"),
    ("parameters", 3, "parameters=3 is no path and no section; its keys are n_pixels"),
    ("structures.files", None, "structures: give templates (a folder made before) or files"),
    ("structures.files", [], "structures.files=[] names no file"),
    ("structures.files", ["a.pdb", 3], "structures.files[1]=3 is not a path"),
    ("structures.templates", "t", "excludes templates="),
    (
        "structures.i_template",
        [1, 1],
        "structures.i_template=[1, 1] is not all, or a position from 0 on",
    ),
    ("structures.i_template", -1, "structures.i_template=-1 is not all, or a position"),
    ("structures.viewing_angles", "v.txt", "excludes healpix_order=1; leave one of them out"),
    ("structures", "a.pdb", "structures='a.pdb' is no section; its keys are templates, files"),
    ("particles.stacks", "p", "excludes stacks="),
    ("particles.images", ["a.mrcs", "b.mrcs"], "has 2 file(s) for 1 file(s) of metadata"),
    ("particles.batch_size", 0, "particles.batch_size=0 is not a whole number, 1 or more"),
    ("search.n_displacements_x", 10**8, "times n_displacements_x is more than 100000000"),
    ("output", "\0", "cannot be a path"),
    ("output", " ", "output=' ' is not a path: it is empty"),
    ("output", "a" * 300, "cannot be a path: no file has such a name"),
    ("output", "\ud800", "cannot be a path"),
    ("output", "~no-such-user/x", "no one has such a home folder"),
    ("folder", "here", "folder='here' is not an absolute path"),
]


@pytest.mark.parametrize(
    ("path", "value", "told"), MISTAKES, ids=[f"{m[0]}: {m[2][:40]}" for m in MISTAKES]
)
def test_a_mistake_is_told_by_key_and_value(path, value, told):
    said = refusal(changed(VALID, path, value))
    assert told in said
    assert "pydantic" not in said


def test_templates_have_no_settings_of_what_is_made_while_it_runs():
    values = changed(changed(VALID, "structures.files"), "structures.templates", "t")
    assert "structures.models='all' excludes templates=" in refusal(values)
    values = changed(changed(VALID, "particles.metadata"), "particles.stacks", "p")
    said = refusal(values)
    assert all(f"particles.{name}" in said for name in ("folder", "batch_size", "recenter"))


def test_threads_are_of_this_process_alone():
    assert "machine.threads=1 is for workers: 0" in refusal(changed(VALID, "machine.workers", 2))


@pytest.mark.parametrize(
    ("address", "told"),
    [("tcp://h:1", "at tls://"), ("tls://h:1", None), (None, "scheduler_file"), ("h", "address")],
)
def test_certificates_belong_to_a_scheduler(address, told):
    machine = {
        **dict.fromkeys(("tls_ca_file", "tls_cert", "tls_key"), "x.pem"),
        "scheduler": address,
    }
    values = {**VALID, "machine": machine}
    if told is None:
        assert read_config(values).machine.tls_key.name == "x.pem"
    else:
        assert told in refusal(values)


def test_all_problems_are_told_at_once(tmp_path):
    values = VALID
    wrong = {
        "machine.device": "gpu",
        "search.n_displacements_x": 0,
        "parameters.n_pixels": "x",
        "particels": {},
    }
    for path, value in wrong.items():
        values = changed(values, path, value)
    source = written(tmp_path, yaml.safe_dump(values))
    with pytest.raises(InputFileError) as error:
        read_config(source)
    first, *lines = str(error.value).splitlines()
    assert first == f"{source}: 4 problems:"
    assert sorted(re.match(r"  [\w.]+", line)[0].strip() for line in lines) == sorted(wrong)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "is empty"),
        ("# nothing\n", "is empty"),
        ("[a, b]", "is a list, not keys with values"),
        ("text", "is a single value, not keys with values"),
        ("output: a\noutput: b", "line 2, column 1: output is there twice, first in line 1"),
        ("search: {a: 1, 'a': 2}", "a is there twice"),
        ("a:\n\tb: 1", "line 2, column 1: a tab where only spaces may stand"),
        (b"a: 1\nb: \xff", "line 2 is not UTF-8 text"),
        ("a: 1".encode("utf-16"), "is not UTF-8 text"),
        ("a: [1", "line 1, column 6"),
        ("a: b: c", "mapping values are not allowed here"),
        ("a: 1\n---\nb: 2", "another document"),
        (b"a: \x00", "U+0000"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("a: !!bool x", "not what its tag says"),
        ("a: !!int ''", "not what its tag says"),
        ("a: !!timestamp x", "not what its tag says"),
        ("a: " + "9" * 5000, "too many digits"),
        ("? [a]\n: 1", "unhashable key"),
        ("a: " + "[" * 2000, "nested too deeply"),
        ("a: &x [1]\nb: *x", "*x does not refer to a single value"),
        ("a: &x [*x]", "*x does not refer to a single value"),
        ("a: &x {b: 1}\nc: {<<: *x}", "*x does not refer to a single value"),
        ("a: *x", "*x does not refer to a single value"),
        (b"#" * 2**21, "bytes: it is no configuration"),
        ("1: a\nnull: b\n2001-01-01: c", "2001-01-01 is not known"),
        ('"\\ud800": 1', "'\\ud800' is not known"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path, content, told):
    source = written(tmp_path, content)
    with pytest.raises(InputFileError) as error:
        read_config(source)
    assert str(error.value).startswith(f"{source}: ")
    assert told in str(error.value)


def test_references_do_not_explode(tmp_path):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    with pytest.raises(InputFileError, match=r"line 2, .*\*a0 does not refer"):
        read_config(written(tmp_path, "\n".join(lines)))


def test_a_reference_to_a_value_is_that_value(tmp_path):
    text = yaml.safe_dump(changed(VALID, "search", {})) + "\n"
    text = text.replace("search: {}", "search: {n_displacements_x: &n 5, n_displacements_y: *n}")
    assert read_config(written(tmp_path, text)).search.n_displacements_y == 5


def test_files_that_cannot_be_read(tmp_path):
    for path, told in (
        (tmp_path / "none.yaml", "there is no such file"),
        (tmp_path, "is a folder"),
    ):
        with pytest.raises(InputFileError, match=told):
            read_config(path)
    with pytest.raises(InputError, match="a configuration is a int"):
        read_config(3)


@pytest.mark.parametrize(
    ("noise", "spectrum", "b_factor", "n_free"),
    [
        (None, None, None, None),
        ("white", "white", None, None),
        ({"spectrum": "estimate", "b_factor": "fit"}, "estimate", "fit", None),
        ({"b_factor": "auto"}, None, "auto", None),
        ({"b_factor": "none", "degrees_of_freedom": 900}, None, "none", 900),
        ({"b_factor": -20}, None, -20, None),
    ],
)
def test_what_noise_is_taken_for(noise, spectrum, b_factor, n_free):
    read = read_config({**VALID, "noise": noise}).noise
    assert (read.spectrum, read.b_factor, read.degrees_of_freedom) == (spectrum, b_factor, n_free)
    assert read.request.b_factor == ("auto" if b_factor is None else b_factor)


def test_a_noise_model_in_a_file(tmp_path):
    for noise in ("model.star", {"spectrum": "model.star"}):
        path = written(tmp_path, yaml.safe_dump({**VALID, "noise": noise}))
        assert read_config(path).noise.spectrum == tmp_path / "model.star"


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (3, "noise=3 is no section; its keys are spectrum, b_factor, degrees_of_freedom"),
        ({"spectrum": 3}, "noise.spectrum=3 is not a path"),
        ({"b_factor": "some"}, "is neither auto, fit, none, nor a number from -200 to 500"),
        ({"b_factor": 1000}, "is neither auto, fit, none, nor a number from -200 to 500"),
        ({"b_factor": True}, "is neither auto, fit, none"),
        ({"degrees_of_freedom": 4}, "is not a number above 4"),
        ({"model": "white"}, "noise.model is not known"),
    ],
)
def test_noise_that_cannot_be(noise, message):
    with pytest.raises(InputError) as refusal:
        read_config({**VALID, "noise": noise})
    assert message in str(refusal.value)


def test_every_key_is_described_and_none_is_free():
    schema = config_schema()
    objects = [schema, *schema["$defs"].values()]
    assert {o["title"] for o in objects} == {model.__name__ for model in SECTIONS.values()}
    for o in objects:
        assert o["additionalProperties"] is False
        assert [
            name for name, p in o["properties"].items() if len(p.get("description", "")) < 10
        ] == []
    alone = [{"$ref": "#/$defs/Noise"}, {"type": "string", "minLength": 1}]
    assert schema["properties"]["noise"]["anyOf"] == alone
    machine = schema["$defs"]["Machine"]["properties"]
    assert machine["device"]["enum"] == ["auto", "cpu", "cuda"]
    assert machine["workers"]["anyOf"][0] == {"type": "integer", "minimum": 0, "maximum": 100000}


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(10**299, 10**301),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        [
            "all",
            "cpu",
            "optimal_pose",
            "tcp://h:1",
            "1e-6",
            "a.pdb",
            "~",
            "\0",
            "chain A",
            "nan",
            1,
            2,
            0.5,
        ]
    ),
    st.dates(),
    st.binary(max_size=4),
)
VALUES = st.recursive(
    SCALARS,
    lambda v: st.lists(v, max_size=3) | st.dictionaries(SCALARS, v, max_size=3),
    max_leaves=6,
)
KEYS = sorted({name for model in SECTIONS.values() for name in model.model_fields})
SECTION = st.dictionaries(st.sampled_from(KEYS) | st.text(max_size=6), VALUES, max_size=6) | VALUES
LEAVES = [f"{s}.{k}" for s, keys in VALID.items() if isinstance(keys, dict) for k in keys] + [
    "output",
    *VALID,
]
FUZZ = settings(
    deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


def refused(values):
    """Why, in the one error that there may be; nothing if it was read."""
    try:
        assert isinstance(read_config(values), RunConfig)
    except InputError as error:
        return str(error)
    return ""


def reads_or_refuses(values):
    """One of two things happens, and a refusal can be shown."""
    said = refused(values)
    said.encode("utf-8", "strict")
    assert len(said) < 20_000


@settings(FUZZ, max_examples=120)
@given(st.dictionaries(st.sampled_from(KEYS) | SCALARS, SECTION, max_size=8))
def test_any_mapping_is_read_or_refused(values):
    reads_or_refuses(values)


@settings(FUZZ, max_examples=300)
@given(st.sampled_from(LEAVES), VALUES)
def test_any_value_at_any_key_is_read_or_refused(path, value):
    reads_or_refuses(changed(VALID, path, "x" if value is None else value))


@settings(FUZZ, max_examples=120)
@given(
    content=st.binary(max_size=60)
    | st.text(alphabet="ab:-[]{}&*!|>?%@#'\"\\ \n\t1.e<~", max_size=60)
)
def test_any_content_is_read_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    reads_or_refuses(path)


@pytest.mark.parametrize(
    "name", ["laptop", "one-gpu", "several-gpus", "slurm", "cryolike-compatible"]
)
def test_committed_configurations_are_valid(name):
    config = read_config(CONFIGS / f"{name}.yaml")
    assert config.output.parent == CONFIGS


def test_no_configuration_is_left_out():
    names = {path.stem for path in CONFIGS.glob("*.yaml")}
    assert names == {"laptop", "one-gpu", "several-gpus", "slurm", "cryolike-compatible"}


OLDER = {
    ("machine", "skip_exist"),
    ("parameters", "resolution_factor"),
    ("parameters", "viewing_distance"),
    ("search", "n_displacements_x"),
    ("search", "n_displacements_y"),
}
"""Words of before, which are read and not shown."""


def said_in_example():
    """Every key of the example, those that are commented out included: (section, key, value)."""
    section = ""
    for line in EXAMPLE.splitlines():
        if match := re.match(r"(\w+):", line):
            section = match[1]
        elif match := re.match(r"  (?:# )?([a-z_]+): (.*)", line):
            yield section, match[1], yaml.safe_load(match[2])
            if f"{section}.{match[1]}" in SECTIONS:
                for key, value in yaml.safe_load(match[2]).items():
                    yield f"{section}.{match[1]}", key, value


def test_the_example_names_every_key_with_a_value_that_would_do(tmp_path):
    said = list(said_in_example())
    own = {(name, key) for name, model in SECTIONS.items() if name for key in model.model_fields}
    assert {(section, key) for section, key, _ in said} == own - OLDER
    valid = {name: content or {} for name, content in yaml.safe_load(EXAMPLE).items()}
    for section, key, value in said:
        if "." in section:  # with its section
            continue
        values = changed(valid, f"{section}.{key}", value)
        said = refused(values)
        assert not said or re.search(
            "excludes|is for workers|TLS needs|certificates are for|of a search around"
            "|of an adaptive search|is of frames of a trajectory",
            said,
        ), (key, said)


@pytest.mark.parametrize(
    ("search", "asked"),
    [
        (
            {"method": "around", "within_degrees": 10, "within_pixels": 2},
            "around 10 degrees 2 pixels",
        ),
        (
            {"method": "around", "within_degrees": 9, "within_pixels": 2, "prior": "gaussian"},
            "gaussian around 9 degrees 2 pixels",
        ),
        ({"method": "recorded", "check_poses": False}, "recorded"),
        ({"method": "recorded", "refine": True}, "recorded, refined"),
        ({"method": "adaptive", "error_nat": 0.02}, "adaptive to 0.02 nat"),
        ({"method": "auto", "error_nat": 0.02}, "is of an adaptive search"),
        ({"method": "adaptive", "error_nat": 0}, "error_nat=0 is not between"),
        ({"method": "adaptive", "refine": True}, "no recorded poses are asked for"),
        ({"method": "recorded", "prior": "gaussian"}, "is of a search around recorded poses"),
        ({"method": "around", "within_degrees": 10}, r"needs an angle and a distance"),
        ({"within_pixels": 2}, "are of a search around recorded poses"),
        ({"check_poses": False}, "no recorded poses are asked for"),
        ({"method": "around", "within_degrees": 181, "within_pixels": 2}, "180"),
    ],
)
def test_a_search_that_is_told_more_exactly(search, asked):
    config = {**VALID, "search": search}
    if asked.startswith(("around", "recorded", "gaussian", "adaptive")):
        assert str(read_config(config).search.asked) == asked
        return
    with pytest.raises(InputError, match=asked):
        read_config(config)
