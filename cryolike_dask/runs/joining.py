"""Images of several stacks, taken as one: what belongs to templates is then made once for all of
them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cryolike_dask.geometry.optics import transposed_defocus_angle
from cryolike_dask.io.joined import Joined
from cryolike_dask.io.stacks import filled_groups
from cryolike_dask.stacks import ImageStack


def joined(stacks: Sequence[ImageStack]) -> ImageStack:
    """Give the images of several stacks of one grid as one stack, in one chunk, still lazily.

    Where x is the MRC row of some of them, their defocus angles are brought to that, as the rows
    that tasks are told of are: the frame of all is "xy".
    """
    if len(stacks) == 1:
        return stacks[0][:]
    unknown = all(stack.groups is None for stack in stacks)
    n = sum(map(len, stacks))
    optics = np.concatenate([stack.optics for stack in stacks])
    turned = np.repeat([stack.frame == "transposed" for stack in stacks], list(map(len, stacks)))
    angles = optics["defocus_angle_radian"]
    angles[turned] = transposed_defocus_angle(angles[turned])
    return ImageStack(
        source=Joined(tuple(stack.source for stack in stacks)),
        grid=stacks[0].grid,
        optics=optics,
        frame="xy",
        stack=np.concatenate([stack.stack for stack in stacks]),
        image_in_stack=np.concatenate([stack.image_in_stack for stack in stacks]),
        chunks=(n,),
        groups=None
        if unknown
        else np.concatenate([filled_groups(stack.groups, len(stack)) for stack in stacks]),
    )
