"""What `--help` shows beside the texts of commands: commands in the order of work, an example of
each, the panel of each option, and what is typed for it."""

from __future__ import annotations

COMMANDS: dict[str, dict[str, str]] = {
    "Start here": {
        "demo": "cryolike-dask demo",
        "config": "cryolike-dask config init run.yaml",
        "run": "cryolike-dask run run.yaml --plan",
    },
    "Prepare, step by step": {
        "parameters": "cryolike-dask parameters --n-pixels 128 --pixel-size-angstrom 2",
        "templates": "cryolike-dask templates open.pdb closed.pdb --parameters parameters.npz "
        "--output my-templates",
        "particles": "cryolike-dask particles particles.star --parameters parameters.npz "
        "--output my-particles",
        "noise": "cryolike-dask noise --particles particles.star --templates my-templates "
        "--output results",
        "subset": "cryolike-dask subset run.xtc --topology run.pdb --n 50 --output frames",
        "decoys": "cryolike-dask decoys open.pdb --parameters parameters.npz --output decoys",
        "simulate": "cryolike-dask simulate open.pdb closed.pdb --parameters parameters.npz "
        "--output simulated --n-images 500",
    },
    "Compare images with structures": {
        "plan": "cryolike-dask plan --templates my-templates --particles my-particles "
        "--output results",
        "optimal-pose": "cryolike-dask optimal-pose --templates my-templates "
        "--particles my-particles --output results",
        "full-cross-correlation": "cryolike-dask full-cross-correlation --templates my-templates "
        "--particles my-particles --output correlations --n-stacks 1",
    },
    "Look at results": {
        "report": "cryolike-dask report results",
        "compare": "cryolike-dask compare results results-2",
        "populations": "cryolike-dask populations results",
        "export": "cryolike-dask export results --star with-classes.star",
        "matrix": "cryolike-dask matrix results --csv",
    },
    "Check results": {
        "verify": "cryolike-dask verify results",
        "calibrate": "cryolike-dask calibrate results",
        "residuals": "cryolike-dask residuals results",
        "design": "cryolike-dask design results --error 0.02",
    },
    "Files that describe a run": {
        "init": "cryolike-dask config init --structures models --particles particles.star",
        "check": "cryolike-dask config check run.yaml",
        "schema": "cryolike-dask config schema",
    },
}
"""By group, the commands in the order of work, each with an example."""

FILE, FOLDER, EITHER, NUMBER, TEXT = "FILE", "FOLDER", "FILE|FOLDER", "NUMBER", "TEXT"

ARGUMENTS = {
    "check.config": FILE,
    "export.output": FOLDER,
    "init.path": EITHER,
    "matrix.output": FOLDER,
    "metadata": "FILES",
    "results": FOLDER,
    "run1": "FOLDER1",
    "run2": "FOLDER2",
    "run.config": FILE,
    "run": "FOLDER|FILE",
    "structures": "FILES",
    "trajectory": FILE,
    "verify.output": FOLDER,
}
"""What is typed for arguments, by parameter, or by command and parameter."""

OPTIONS: dict[str, dict[str, str]] = {
    "Input": {
        "init.structures": EITHER,
        "demo.structures": EITHER,
        "init.particles": EITHER,
        "data": "",
        "templates": EITHER,
        "particles": EITHER,
        "parameters": FILE,
        "metadata": FILE,
        "passthrough": FILE,
        "images": FILE,
        "folder": FOLDER,
        "particles.pixel_size_angstrom": NUMBER,
        "invert_contrast": "",
        "recenter": "",
        "background_radius_pixels": NUMBER,
        "downsample": "",
        "n_stacks": NUMBER,
        "n_stacks_max": NUMBER,
        "i_template": "NUMBERS|all",
        "models": "",
        "topology": FILE,
        "frames": "NUMBERS|FILE",
        "every": NUMBER,
        "voxel_size_angstrom": NUMBER,
        "template_source": "",
        "decoys": NUMBER,
        "decoy_kind": "",
        "decoy_structures": EITHER,
        "optics": FILE,
        "populations.counts": FILE,
        "populations.decoys": "",
        "design.shares": FILE,
        "report.compare_with": FOLDER,
    },
    "Search": {
        "max_displacement_pixels": NUMBER,
        "displacement_step_pixels": NUMBER,
        "view_step_degrees": NUMBER,
        "n_inplanes": NUMBER,
        "symmetry": TEXT,
        "healpix_order": NUMBER,
        "viewing_angles": FILE,
        "search": "",
        "error_nat": NUMBER,
        "around": "",
        "within_degrees": NUMBER,
        "within_pixels": NUMBER,
        "prior": "",
        "poses": "",
        "refine": "",
        "check_poses": "",
        "pose_posteriors": "",
    },
    "Model": {
        "n_pixels": NUMBER,
        "pixel_size_angstrom": NUMBER,
        "resolution_angstrom": NUMBER,
        "noise": "TEXT|FILE",
        "simulate.noise": "",
        "b_factor": "TEXT|NUMBER",
        "degrees_of_freedom": NUMBER,
        "atom_shape": "",
        "atomic_b": "none|file|NUMBER",
        "bulk_solvent": TEXT,
        "atom_radii": NUMBER,
        "use_protein_residue_model": "",
        "atom_selection": TEXT,
        "frame": FILE,
        "superpose": TEXT,
        "conventions": "",
        "precision": "",
        "tolerance": NUMBER,
        "kind": "",
        "n": NUMBER,
        "method": "",
        "by": "rmsd|FILE",
        "selection": TEXT,
        "n_images": NUMBER,
        "signal_to_noise": NUMBER,
        "simulate.populations": NUMBER,
        "simulate.max_displacement_pixels": NUMBER,
        "design.error": NUMBER,
        "n_particles": NUMBER,
        "n_samples": NUMBER,
        "populations.prior": NUMBER,
        "draw": "",
        "n_bootstrap": NUMBER,
        "seed": NUMBER,
    },
    "Output": {
        "output": FOLDER,
        "noise.output": EITHER,
        "parameters.output": FILE,
        "report.output": FILE,
        "report.figures": FOLDER,
        "compare.output": FILE,
        "matrix.folder": FOLDER,
        "populations.folder": FOLDER,
        "star": FILE,
        "cs": FILE,
        "subsets": FOLDER,
        "structure": "NAME",
        "structures": "NAMES",
        "min_probability": NUMBER,
        "max_q": NUMBER,
        "text": "",
        "npy": "",
        "csv": "",
        "export.csv": FILE,
        "classes": FILE,
        "reweighting": "",
        "n_examples": NUMBER,
        "batch_size": NUMBER,
        "write_pixels": "",
        "plots": "",
        "show": "",
        "plan": "",
        "recompute": "",
        "overwrite": "",
        "force": "",
        "note": TEXT,
        "log_file": FILE,
        "performance_report": FILE,
    },
    "Machine": {
        "device": "",
        "workers": NUMBER,
        "scheduler": "ADDRESS",
        "scheduler_file": FILE,
        "tls_ca_file": FILE,
        "tls_cert": FILE,
        "tls_key": FILE,
        "on_error": "",
        "measure": "",
        "gpu": "NAME",
        "n_templates_per_batch": NUMBER,
        "n_images_per_batch": NUMBER,
        "discover_batch_size": "",
    },
    "Help": {
        "help": "",
        "install_completion": "",
        "show_completion": "",
        "version": "",
    },
}
"""By panel, the options: a parameter, or a command and a parameter, with what is typed for it;
empty: nothing, or one of the words that are listed. In the order in which help shows them."""
OTHERS = "Others"
"""Panel of options that stand in no other."""


def group_of(command: str) -> str:
    """The group that a command stands in."""
    return next((group for group, commands in COMMANDS.items() if command in commands), OTHERS)


def example_of(command: str) -> str:
    """An example of a command; empty if there is none."""
    return COMMANDS.get(group_of(command), {}).get(command, "")


def panel_of(command: str, parameter: str) -> str:
    """The panel that an option stands in."""
    names = f"{command}.{parameter}", parameter
    found = (panel for name in names for panel, options in OPTIONS.items() if name in options)
    return next(found, OTHERS)


def typed_for(command: str, parameter: str, *, argument: bool) -> str:
    """What is typed for an option, or an argument; empty if that is not said here."""
    known = ARGUMENTS if argument else OPTIONS.get(panel_of(command, parameter), {})
    return known.get(f"{command}.{parameter}", known.get(parameter, ""))
