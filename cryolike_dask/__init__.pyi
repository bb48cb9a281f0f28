"""The public names and their modules: for type checkers, and for loading a name on first use."""

from .analysis.compare.compare import compare_runs as compare_runs
from .analysis.dataset import open_results as open_results
from .analysis.decoys.of_results import decoy_competition as decoy_competition
from .analysis.export.cryosparc_export import export_cryosparc as export_cryosparc
from .analysis.export.star_export import export_star as export_star
from .analysis.export.star_export import export_star_subsets as export_star_subsets
from .analysis.export.tables import export_classes as export_classes
from .analysis.export.tables import export_csv as export_csv
from .analysis.landscape import expectation as expectation
from .analysis.landscape import frame_weight as frame_weight
from .analysis.landscape import free_energy as free_energy
from .analysis.matrix import log_likelihood_ratio as log_likelihood_ratio
from .analysis.matrix import structure_probability as structure_probability
from .analysis.matrix_files import write_likelihood_matrix as write_likelihood_matrix
from .analysis.matrix_files import write_reweighting_inputs as write_reweighting_inputs
from .analysis.plots.comparison_plots import plot_changes as plot_changes
from .analysis.plots.comparison_plots import plot_ratios as plot_ratios
from .analysis.plots.design_plots import plot_design as plot_design
from .analysis.plots.landscape_plots import plot_free_energy as plot_free_energy
from .analysis.plots.noise_plots import plot_noise as plot_noise
from .analysis.plots.particle_plots import plot_matches as plot_matches
from .analysis.plots.population_plots import plot_populations as plot_populations
from .analysis.plots.pose_plots import plot_block_times as plot_block_times
from .analysis.plots.pose_plots import plot_cross_correlation as plot_cross_correlation
from .analysis.plots.pose_plots import plot_direction_errors as plot_direction_errors
from .analysis.plots.pose_plots import plot_displacements as plot_displacements
from .analysis.plots.pose_plots import plot_inplane_rotations as plot_inplane_rotations
from .analysis.plots.pose_plots import plot_viewing_directions as plot_viewing_directions
from .analysis.plots.stack_plots import plot_images as plot_images
from .analysis.plots.stack_plots import plot_templates as plot_templates
from .analysis.plots.stack_plots import save_figure as save_figure
from .analysis.plots.structure_plots import plot_assignment as plot_assignment
from .analysis.plots.structure_plots import plot_calibration as plot_calibration
from .analysis.plots.structure_plots import plot_confusion as plot_confusion
from .analysis.plots.structure_plots import plot_log_likelihood_ratio as plot_log_likelihood_ratio
from .analysis.populations.estimate import populations as populations
from .analysis.populations.written import write_populations as write_populations
from .analysis.report.comparison_page import write_comparison as write_comparison
from .analysis.report.report import write_report as write_report
from .compute.local import local_cluster as local_cluster
from .compute.remote import connect as connect
from .config.model import RunConfig as RunConfig
from .config.reading import config_schema as config_schema
from .config.reading import read_config as read_config
from .config.run_config import run_config as run_config
from .geometry.displacements import DisplacementGrid as DisplacementGrid
from .geometry.known_poses import Around as Around
from .geometry.noise import NoiseModel as NoiseModel
from .geometry.optics import optics_table as optics_table
from .geometry.parameters import ImageParameters as ImageParameters
from .geometry.search_method import Adaptive as Adaptive
from .geometry.symmetry import asymmetric_unit as asymmetric_unit
from .geometry.viewing_angles import ViewingAngles as ViewingAngles
from .geometry.viewing_angles import healpix_grid as healpix_grid
from .io.noise import read_noise as read_noise
from .io.noise import write_noise as write_noise
from .io.parameters import make_parameters as make_parameters
from .io.results import open_full_cross_correlation as open_full_cross_correlation
from .io.results import open_optimal_pose as open_optimal_pose
from .io.viewing import read_viewing_angles as read_viewing_angles
from .likelihoods.interface import (
    compute_cross_correlation_complete as compute_cross_correlation_complete,
)
from .likelihoods.interface import (
    compute_integrated_log_likelihood as compute_integrated_log_likelihood,
)
from .likelihoods.interface import compute_optimal_displacement as compute_optimal_displacement
from .likelihoods.interface import (
    compute_optimal_displacement_and_rotation as compute_optimal_displacement_and_rotation,
)
from .likelihoods.interface import compute_optimal_pose as compute_optimal_pose
from .likelihoods.interface import compute_optimal_rotation as compute_optimal_rotation
from .particles.converting import convert_particles as convert_particles
from .particles.opening import open_particles as open_particles
from .run_likelihood import configure_displacement as configure_displacement
from .run_likelihood import configure_likelihood_files as configure_likelihood_files
from .run_likelihood import (
    run_likelihood_full_cross_correlation as run_likelihood_full_cross_correlation,
)
from .run_likelihood import run_likelihood_optimal_pose as run_likelihood_optimal_pose
from .runs.cost import LikelihoodPlan as LikelihoodPlan
from .runs.noise_estimation import estimate_noise as estimate_noise
from .runs.plan import plan_likelihood as plan_likelihood
from .runs.verification import verify_likelihood as verify_likelihood
from .simulation.calibrate import calibrate as calibrate
from .simulation.design import design as design
from .simulation.design import write_design as write_design
from .simulation.rendering import Poses as Poses
from .simulation.residual_fit import fit_residuals as fit_residuals
from .simulation.simulate import simulate_particles as simulate_particles
from .stacks import ImageStack as ImageStack
from .stacks import TemplateStack as TemplateStack
from .stacks import open_images as open_images
from .stacks import open_templates as open_templates
from .structures.atoms import Atoms as Atoms
from .structures.decoys.files import make_decoys as make_decoys
from .structures.decoys.opening import as_decoys as as_decoys
from .structures.decoys.opening import open_decoys as open_decoys
from .structures.making import make_templates as make_templates
from .structures.opening import open_structure as open_structure
from .structures.opening import open_structures as open_structures
from .structures.trajectories.subset import choose_subset as choose_subset
from .structures.trajectories.subset import read_assignment as read_assignment
from .structures.trajectories.subset import write_subset as write_subset
from .structures.trajectories.trajectory import Trajectory as Trajectory
from .structures.volumes import Volume as Volume
from .version import __version__ as __version__
