"""The functions that CryoLike has here too: for type checkers, and for loading on first use."""

from .interface import compute_cross_correlation_complete as compute_cross_correlation_complete
from .interface import compute_integrated_log_likelihood as compute_integrated_log_likelihood
from .interface import compute_optimal_displacement as compute_optimal_displacement
from .interface import (
    compute_optimal_displacement_and_rotation as compute_optimal_displacement_and_rotation,
)
from .interface import compute_optimal_pose as compute_optimal_pose
from .interface import compute_optimal_rotation as compute_optimal_rotation
