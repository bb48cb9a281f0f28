"""Every dimension, coordinate, variable and unit name, and the words that a user chooses among,
once. Variables are named as the stems of their files."""

from __future__ import annotations

from typing import Final, Literal

AtomShape = Literal["default", "gaussian", "hard-sphere", "scattering"]
AtomicB = float | Literal["none", "file"]
BulkSolvent = tuple[float, float] | Literal["none", "babinet"]
DecoyKind = Literal["phases", "residues"]
Device = Literal["auto", "cpu", "cuda"]
Downsampling = Literal["fourier", "mean", "max"]
BFactorWord = Literal["auto", "fit", "none"]
KindName = Literal["optimal_pose", "full_cross_correlation"]
Models = Literal["first", "all"]
SubsetMethod = Literal["farthest", "clusters"]
Noise = Literal["white", "coloured"]
NoiseWord = Literal["estimate", "white"]
OnError = Literal["stop", "quarantine"]
Precision = Literal["default", "single", "double"]
Prior = Literal["flat", "gaussian"]
SearchMethod = Literal["exhaustive", "adaptive", "recorded"]
SearchAsked = Literal[SearchMethod, "auto"]
SearchWord = Literal[SearchAsked, "around"]
TemplateSource = Literal["atoms", "map"]

AUTO: Final = "auto"

IMAGE = "image"
TEMPLATE = "template"
DISPLACEMENT = "displacement"
ROTATION = "rotation"
STRUCTURE = "structure"

STACK = "stack"
IMAGE_IN_STACK = "image_in_stack"
DISPLACEMENT_X = "displacement_x"
DISPLACEMENT_Y = "displacement_y"
AZIMUTH = "azimuth"
POLAR = "polar"
VIEWING_WEIGHT = "viewing_weight"

IMAGE_FILE = "image_file"
IMAGE_INDEX = "image_index"
METADATA_FILE = "metadata_file"
METADATA_ROW = "metadata_row"
MICROGRAPH = "micrograph"
OPTICS_GROUP = "optics_group"
RANDOM_SUBSET = "random_subset"
RECORDED_ROT = "recorded_rot"
RECORDED_TILT = "recorded_tilt"
RECORDED_PSI = "recorded_psi"
RECORDED_ORIGIN_X = "recorded_origin_x"
RECORDED_ORIGIN_Y = "recorded_origin_y"
TRUE_STRUCTURE = "true_structure"
RECENTERED = "recentered"
NOISE_MODEL = "noise_model"
SEARCH_METHOD = "search_method"
TEMPLATE_SOURCE = "template_source"
TEMPLATE_CONVENTIONS = "template_conventions"
DECOY_OF = "decoy_of"
RESIDUAL_P_VALUE = "residual_p_value"

CROSS_CORRELATION = "cross_correlation"
OPTIMAL_TEMPLATE = "optimal_template"
OPTIMAL_DISPLACEMENT_X = "optimal_displacement_x"
OPTIMAL_DISPLACEMENT_Y = "optimal_displacement_y"
OPTIMAL_INPLANE_ROTATION = "optimal_inplane_rotation"
OPTIMAL_AZIMUTH = "optimal_azimuth"
OPTIMAL_POLAR = "optimal_polar"
LOG_LIKELIHOOD = "log_likelihood"
LOG_LIKELIHOOD_INTEGRATED = "log_likelihood_integrated"
LOG_LIKELIHOOD_OPTIMAL = "log_likelihood_optimal"
CORRELATION_ERROR_BOUND = "correlation_error_bound"
LOG_LIKELIHOOD_ERROR, N_POSES_COMPARED = "log_likelihood_error", "n_poses_compared"
BEST_POSE_PROBABILITY, VIEW_ENTROPY = "best_pose_probability", "view_entropy"
N_SIGNIFICANT_POSES, N_EFFECTIVE_POSES = "n_significant_poses", "n_effective_poses"
ORIENTATION_RADIUS, DISPLACEMENT_RADIUS = "orientation_radius_95", "displacement_radius_95"
MEAN_DISPLACEMENT_X = "posterior_mean_displacement_x"
MEAN_DISPLACEMENT_Y = "posterior_mean_displacement_y"
TOP_POSE = "top_pose"
TOP_TEMPLATE, TOP_PROBABILITY = "top_template", "top_probability"
TOP_DISPLACEMENT_X, TOP_DISPLACEMENT_Y = "top_displacement_x", "top_displacement_y"
TOP_INPLANE_ROTATION = "top_inplane_rotation"
REFINED_AZIMUTH, REFINED_POLAR = "refined_azimuth", "refined_polar"
REFINED_INPLANE_ROTATION = "refined_inplane_rotation"
REFINED_DISPLACEMENT_X = "refined_displacement_x"
REFINED_DISPLACEMENT_Y = "refined_displacement_y"
REFINED_LOG_LIKELIHOOD = "refined_log_likelihood"

OF_SEARCH = (LOG_LIKELIHOOD_ERROR, N_POSES_COMPARED)
"""What a search that leaves out poses says of itself."""
OF_POSTERIOR = (
    BEST_POSE_PROBABILITY,
    N_SIGNIFICANT_POSES,
    N_EFFECTIVE_POSES,
    VIEW_ENTROPY,
    ORIENTATION_RADIUS,
    DISPLACEMENT_RADIUS,
    MEAN_DISPLACEMENT_X,
    MEAN_DISPLACEMENT_Y,
)
"""How the posterior of an image is spread over poses, a number each."""
REFINED_POSE = (
    REFINED_AZIMUTH,
    REFINED_POLAR,
    REFINED_INPLANE_ROTATION,
    REFINED_DISPLACEMENT_X,
    REFINED_DISPLACEMENT_Y,
)
REFINED = (*REFINED_POSE, REFINED_LOG_LIKELIHOOD)
"""The best poses, refined between those of the search, and the likelihood there."""
STRUCTURE_OTHER = "structure_other"
POPULATION = "population"
POPULATION_SD = "population_sd"
POPULATION_INTERVAL = "population_interval"
POPULATION_MAXIMUM_LIKELIHOOD = "population_maximum_likelihood"
POPULATION_FISHER_SD = "population_fisher_sd"
GROUP = "group"
GROUP_POPULATION = "group_population"
GROUP_POPULATION_SD = "group_population_sd"
POPULATION_OF_NONE = "population_of_none"
POPULATION_OF_NONE_SD = "population_of_none_sd"
POPULATION_OF_NONE_INTERVAL = "population_of_none_interval"
"""Shares of structures among the images, and what is known of them."""
INTEGERS = (OPTIMAL_TEMPLATE, N_POSES_COMPARED, N_SIGNIFICANT_POSES)
"""Variables that are whole numbers: -1 where there is no result."""

ATTRIBUTES: dict[str, dict[str, str]] = {
    NOISE_MODEL: {"long_name": "what noise is taken for: white, or the sha256 of a noise model"},
    SEARCH_METHOD: {"long_name": "how poses were searched: exhaustive, adaptive, or around which"},
    STACK: {"long_name": "number of the image stack file"},
    IMAGE_IN_STACK: {"long_name": "position in the image stack file"},
    IMAGE_FILE: {"long_name": "file of the image as it was taken"},
    IMAGE_INDEX: {"long_name": "position in the image file, from 0; -1: not known"},
    METADATA_FILE: {"long_name": "STAR or .cs file that describes the image"},
    METADATA_ROW: {"long_name": "row of the metadata file, from 0; -1: not known"},
    MICROGRAPH: {"long_name": "micrograph"},
    OPTICS_GROUP: {"long_name": "optics group of the metadata file"},
    RANDOM_SUBSET: {"long_name": "half-set"},
    RECORDED_ROT: {"long_name": "recorded rot, as RELION defines it", "units": "radian"},
    RECORDED_TILT: {"long_name": "recorded tilt, as RELION defines it", "units": "radian"},
    RECORDED_PSI: {"long_name": "recorded psi, as RELION defines it", "units": "radian"},
    RECORDED_ORIGIN_X: {
        "long_name": "recorded origin along x, as RELION defines it",
        "units": "angstrom",
    },
    RECORDED_ORIGIN_Y: {
        "long_name": "recorded origin along y, as RELION defines it",
        "units": "angstrom",
    },
    RECENTERED: {"long_name": "was moved by its recorded origin before it was compared"},
    TEMPLATE_SOURCE: {"long_name": "what templates were made from: atoms, a map, or unknown"},
    TEMPLATE_CONVENTIONS: {"long_name": "conventions that templates were made under"},
    DECOY_OF: {
        "long_name": 'structure that this is a decoy of; its own name: of none; "": no decoy'
    },
    RESIDUAL_P_VALUE: {
        "long_name": "probability that noise leaves a residual so unlike it over shells"
    },
    TRUE_STRUCTURE: {"long_name": "structure that the particle was simulated from"},
    DISPLACEMENT_X: {"long_name": "displacement of the template along x", "units": "angstrom"},
    DISPLACEMENT_Y: {"long_name": "displacement of the template along y", "units": "angstrom"},
    ROTATION: {"long_name": "in-plane rotation of the template", "units": "radian"},
    AZIMUTH: {"long_name": "azimuth of the viewing direction", "units": "radian"},
    POLAR: {"long_name": "polar angle of the viewing direction", "units": "radian"},
    VIEWING_WEIGHT: {
        "long_name": "quadrature weight of the viewing direction",
        "units": "steradian",
    },
    CROSS_CORRELATION: {"long_name": "cross-correlation", "units": "1"},
    OPTIMAL_TEMPLATE: {"long_name": "index of the best template", "units": "1"},
    OPTIMAL_DISPLACEMENT_X: {"long_name": "best displacement along x", "units": "angstrom"},
    OPTIMAL_DISPLACEMENT_Y: {"long_name": "best displacement along y", "units": "angstrom"},
    OPTIMAL_INPLANE_ROTATION: {"long_name": "best in-plane rotation", "units": "radian"},
    OPTIMAL_AZIMUTH: {"long_name": "azimuth of the best viewing direction", "units": "radian"},
    OPTIMAL_POLAR: {"long_name": "polar angle of the best viewing direction", "units": "radian"},
    LOG_LIKELIHOOD: {
        "long_name": "log-likelihood summed over displacements and rotations, no prior",
        "units": "nat",
    },
    LOG_LIKELIHOOD_INTEGRATED: {
        "long_name": "log-likelihood integrated over all poses",
        "units": "nat",
    },
    LOG_LIKELIHOOD_OPTIMAL: {"long_name": "log-likelihood of the best pose", "units": "nat"},
    CORRELATION_ERROR_BOUND: {
        "long_name": "bound on what compression changes of any cross-correlation",
        "units": "1",
    },
    LOG_LIKELIHOOD_ERROR: {
        "long_name": "estimate of what the log-likelihood lacks, of poses that were not compared",
        "units": "nat",
    },
    N_POSES_COMPARED: {"long_name": "poses that were compared in the whole band"},
    BEST_POSE_PROBABILITY: {"long_name": "part of the posterior in the best pose of the search"},
    N_SIGNIFICANT_POSES: {
        "long_name": "fewest poses of the search that hold 99.9% of the posterior"
    },
    N_EFFECTIVE_POSES: {"long_name": "1 / sum of squared probabilities of poses of the search"},
    VIEW_ENTROPY: {"long_name": "entropy of the posterior over views", "units": "nat"},
    ORIENTATION_RADIUS: {
        "long_name": "angle about the best orientation within which 95% of the posterior lies",
        "units": "degree",
    },
    DISPLACEMENT_RADIUS: {
        "long_name": "distance from the mean displacement within which 95% of the posterior lies",
        "units": "angstrom",
    },
    MEAN_DISPLACEMENT_X: {
        "long_name": "posterior mean of the displacement along x, under the best rotation",
        "units": "angstrom",
    },
    MEAN_DISPLACEMENT_Y: {
        "long_name": "posterior mean of the displacement along y, under the best rotation",
        "units": "angstrom",
    },
    TOP_TEMPLATE: {"long_name": "template of a pose far from all better ones; -1: there is none"},
    TOP_DISPLACEMENT_X: {"long_name": "its displacement along x", "units": "angstrom"},
    TOP_DISPLACEMENT_Y: {"long_name": "its displacement along y", "units": "angstrom"},
    TOP_INPLANE_ROTATION: {"long_name": "its in-plane rotation", "units": "radian"},
    TOP_PROBABILITY: {"long_name": "posterior of a pose of the search there"},
    REFINED_AZIMUTH: {"long_name": "azimuth of the refined viewing direction", "units": "radian"},
    REFINED_POLAR: {
        "long_name": "polar angle of the refined viewing direction",
        "units": "radian",
    },
    REFINED_INPLANE_ROTATION: {"long_name": "refined in-plane rotation", "units": "radian"},
    REFINED_DISPLACEMENT_X: {"long_name": "refined displacement along x", "units": "angstrom"},
    REFINED_DISPLACEMENT_Y: {"long_name": "refined displacement along y", "units": "angstrom"},
    REFINED_LOG_LIKELIHOOD: {"long_name": "log-likelihood of the refined pose", "units": "nat"},
}
