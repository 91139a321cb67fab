"""What the kernels of the cone search are given: the table of a model, the voxels of a chunk, and where the maps go.

J is the number of nodes of T, N that of the images, M that of the voxels of a chunk.
"""

from __future__ import annotations

from typing import Any, NamedTuple

Array = Any

#: Columns of `Chunk.best`: squared length of the projection, node, θ, x and y of the maximum, where it is (inside the
#: cone or on which edge), whether T is at a bound, and the number of flips.
FIT, NODE, BEST_THETA, BEST_X, BEST_Y, PLACE, T_BOUND, BEST_FLIPS = range(8)
BEST_COLUMNS = 8


class Nodes(NamedTuple):
    """The cone of all signals at each node of T, for the scan; rows of images end in zeros, those of `order` in N.

    Parameters
    ----------
    plane, edge, upper, last
        (J, 3, N + 1), (J, 2), (J, N + 1) and (J): the plane of the cone, the end of the part of it that the box of the
        field leaves, that end seen by each image, and how many images change sign up to there.
    order
        (J, N + 4) the images in the order in which they change sign along the cone.
    """

    plane: Array
    edge: Array
    upper: Array
    last: Array
    order: Array


class Around(NamedTuple):
    """The cone around each node of T.

    Parameters
    ----------
    basis
        (J, N, 16) polynomials in θ of the two axes of its plane.
    scalars
        (J, 9, 8) polynomials of its edge, and of what κ and its standard deviations follow from.
    limits
        (J, 2) the range of θ that belongs to the node.
    order
        As of `Nodes`.
    """

    basis: Array
    scalars: Array
    limits: Array
    order: Array


class Scale(NamedTuple):
    """From a maximum to κ: the `scalars` of `Around`, and log T of each node and of a step of θ there (J)."""

    scalars: Array
    t: Array
    width: Array


class Cone(NamedTuple):
    """The table of a model (`tables.ConeTable`), in parts: a kernel that is called for a voxel is given no more than it
    needs.

    Parameters
    ----------
    nodes, around, scale
        For the scan, for climbs, and for the maps.
    reach, drift
        (J) how much longer, relative to a node's, a projection may be between nodes, and that on the lower edge.
    rank
        (J, N) the place of each image in `order`.
    lean
        (J, N) by how much, squared, an image can pull the model towards itself.
    padded
        (J, ·, 16) the `basis` with a multiple of four rows.
    """

    nodes: Nodes
    around: Around
    scale: Scale
    reach: Array
    drift: Array
    rank: Array
    lean: Array
    padded: Array


class Plan(NamedTuple):
    """How to search: how many images can change sign, how many flips further is looked, whether there is a field, and
    its box.
    """

    flips: int
    span: int
    has_field: int
    low_F: float
    high_F: float
    free: float


class Chunk(NamedTuple):
    """The voxels of a chunk, as `scan.load` loads them, and what has been found.

    Parameters
    ----------
    voxels
        (M) where they are in the images.
    rows, scale, total, kind
        (M, N) images over their largest modulus `scale` (M), their sum of squares (M), and a status (M): 0, -1 where a
        value is negative, or that of a voxel without an estimate.
    goal, low
        (M) what a node must come up to, and what the lower edge of the cone may come to.
    best
        (M, 8) the best maximum so far: its columns are FIT to BEST_FLIPS.
    left
        (M) whether a voxel is left to the careful search.
    """

    voxels: Array
    rows: Array
    scale: Array
    total: Array
    kind: Array
    goal: Array
    low: Array
    best: Array
    left: Array


class Maps(NamedTuple):
    """Where the results go, for all voxels of the images: κ and standard deviations for σ = 1 (Q, ·), residual, status,
    rms (·).
    """

    kappa: Array
    sd: Array
    residual: Array
    status: Array
    rms: Array


class Line(NamedTuple):
    """The table of a model without a field (`tables.LineTable`), N padded to a multiple of three."""

    slopes: Array
    basis: Array
    maps: Array
    exact: Array


class Queues(NamedTuple):
    """Tasks (·, 8): those to be done, room for their order, those of the next round, and those that fit no pattern."""

    tasks: Array
    index: Array
    then: Array
    odd: Array


class Task(NamedTuple):
    """2 × node (+ 1 on the upper edge of the cone), voxel, flips, whether it is the first of its voxel, and flips tried
    around it.
    """

    key: int
    voxel: int
    flips: int
    first: int
    seen: Any


class Found(NamedTuple):
    """Of the lanes of a block: the longest projection, its flips and node, and how many others could surpass it."""

    top: Array
    flipped: Array
    where: Array
    rivals: Array


class Groups(NamedTuple):
    """Voxels whose maximum is in the same interval of T, until a group is full, and those that are to be searched
    again.
    """

    images: Array
    who: Array
    full: Array
    climbed: Array
    again: Array


class Profile(NamedTuple):
    """What `careful.profile` writes to: the order of the images (N + 2), and the two columns of the basis (N)."""

    perm: Array
    first: Array
    second: Array
