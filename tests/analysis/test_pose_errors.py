"""Best directions against recorded ones."""

from __future__ import annotations

import numpy as np
import pytest

from cryolike_dask.analysis.pose_errors import direction_errors_degree, why_no_pose_errors
from cryolike_dask.analysis.summaries import summarise_results
from tests.analysis.making import make_results, with_truth


def test_angles_between_directions(rng):
    results = with_truth(make_results(rng, ("a",)), rng, pose_error_radian=0.05)
    summary = summarise_results(results)
    np.testing.assert_allclose(direction_errors_degree(summary), np.degrees(0.05))
    opposite = summary.assign_coords(
        recorded_rot=summary.optimal_azimuth + np.pi, recorded_tilt=np.pi - summary.optimal_polar
    )
    np.testing.assert_allclose(direction_errors_degree(opposite), 180, atol=1e-5)
    same = summary.assign_coords(
        recorded_rot=summary.optimal_azimuth - 4 * np.pi, recorded_tilt=summary.optimal_polar
    )
    np.testing.assert_allclose(direction_errors_degree(same), 0, atol=1e-6)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda r: r.drop_vars("recorded_rot"), "no poses are recorded"),
        (lambda r: r.drop_vars("optimal_polar"), "directions of the templates are not known"),
        (lambda r: r.assign_attrs(frame="transposed"), "standard conventions"),
        (lambda r: r.assign_attrs(conventions="cryolike"), "standard conventions"),
        (lambda r: r.assign_attrs(template_conventions="unknown"), "standard conventions"),
        (
            lambda r: r.assign_coords(recorded_rot=r.recorded_rot * np.nan),
            "no image with a result has",
        ),
    ],
)
def test_poses_in_other_frames_are_not_compared(rng, spoil, reason):
    results = with_truth(make_results(rng), rng)
    assert why_no_pose_errors(summarise_results(results)) is None
    assert reason in why_no_pose_errors(summarise_results(spoil(results)))
