"""Poses of templates as RELION and cryoSPARC write them. Arrays only."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cryolike_dask.geometry.viewing_angles import viewing_rotation
from cryolike_dask.particles.cryosparc import relion_angles

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class RelionPoses:
    """Poses of particles whose images are [row = y, column = x].

    Attributes
    ----------
    axes : (image, 3, 3) float64
        Columns: x and y of the image and the beam, in the frame of the structure. Its transpose is
        RELION's A = Rz(-psi) Ry(-tilt) Rz(-rot), which turns the structure before it is projected
        along z.
    origin_angstrom : (image, 2) float64
        x and y by which the content is to be shifted to be centred: rlnOriginXAngst and
        rlnOriginYAngst.
    """

    axes: FloatArray
    origin_angstrom: FloatArray

    def __len__(self) -> int:
        return len(self.axes)

    def take(self, rows: NDArray[np.int64]) -> RelionPoses:
        """Some of the poses."""
        return RelionPoses(self.axes[rows], self.origin_angstrom[rows])

    def rotation_vectors(self) -> FloatArray:
        """Axis times angle, radian, (image, 3): the pose of cryoSPARC."""
        from scipy.spatial.transform import Rotation

        vectors: FloatArray = Rotation.from_matrix(self.axes).as_rotvec()
        return vectors

    def angles_degrees(self) -> FloatArray:
        """rot, tilt and psi, (image, 3). Where tilt is 0 or 180, rot is 0 and psi the whole
        turn."""
        return np.degrees(relion_angles(self.rotation_vectors()))


def relion_poses(
    azimuth: ArrayLike,
    polar: ArrayLike,
    gamma: ArrayLike,
    displacement_x_angstrom: ArrayLike,
    displacement_y_angstrom: ArrayLike,
    *,
    transposed: ArrayLike = False,
    map_axes_exchanged: ArrayLike = False,
) -> RelionPoses:
    """Give the poses of RELION for templates that are displaced, then turned by -gamma.

    Parameters
    ----------
    azimuth, polar : (image,) radian
        Viewing direction of the template.
    gamma : (image,) radian
        In-plane rotation.
    displacement_x_angstrom, displacement_y_angstrom : (image,)
        Displacement of the template before it is turned.
    transposed : bool, or (image,)
        x of the image is the row of its MRC file, as in stacks that CryoLike made.
    map_axes_exchanged : bool, or (image,)
        The template was made from a map whose x and z were exchanged, as CryoLike does.

    Returns
    -------
    RelionPoses

    Notes
    -----
    An image whose axes are exchanged shows the structure from behind: the beam is always the vector
    product of x and y. In the same way a map with two axes exchanged, which is its mirror image, is
    seen as the map itself from behind.
    """
    columns = np.broadcast_arrays(
        azimuth, polar, gamma, displacement_x_angstrom, displacement_y_angstrom
    )
    azimuth, polar, gamma, x, y = (np.atleast_1d(values).astype(np.float64) for values in columns)
    axes = viewing_rotation(azimuth, polar, gamma)[:, :, :2]
    exchanged, turned = (
        np.broadcast_to(flag, len(axes))[:, None] for flag in (map_axes_exchanged, transposed)
    )
    axes = np.where(exchanged[..., None], axes[:, ::-1], axes)
    axes = np.where(turned[..., None], axes[:, :, ::-1], axes)
    cosine, sine = np.cos(gamma), np.sin(gamma)
    shift = np.stack([cosine * x + sine * y, -sine * x + cosine * y], axis=1)
    beam = np.cross(axes[..., 0], axes[..., 1])
    return RelionPoses(
        np.concatenate([axes, beam[..., None]], axis=2), -np.where(turned, shift[:, ::-1], shift)
    )
