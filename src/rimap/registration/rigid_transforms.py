"""The position of each image of a series: a rigid transform for each."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Motion:
    """A rigid transform for each image: the point x of the maps is at R (x − c) + c + t in the image.

    Coordinates are voxel indices times voxel size, mm. The position that counts as unmoved is the median over the
    images.

    Parameters
    ----------
    rotation
        R, (N, 3, 3).
    translation
        t, (N, 3), mm.
    centre
        c, (3,), mm.
    shift
        (N,) root mean square over the object of how far its points have moved, mm.
    sd
        (N,) standard deviation of `shift`, mm.
    voxel
        Edge of a voxel along the axes in which images may move, mm: their geometric mean.
    converged
        Whether the last step was short.
    """

    rotation: Floats
    translation: Floats
    centre: Floats
    shift: Floats
    sd: Floats
    voxel: float
    converged: bool = True

    @classmethod
    def none(cls, n: int, centre: Floats, voxel: float) -> Motion:
        """Return that of n images in register."""
        return cls(np.tile(np.eye(3), (n, 1, 1)), np.zeros((n, 3)), centre, np.zeros(n), np.zeros(n), voxel)

    @property
    def angle(self) -> Floats:
        """Angle of each rotation, degrees (N,)."""
        return np.asarray(np.degrees(np.linalg.norm(vectors_of(self.rotation), axis=1)))

    def where(self, n: int, x: Floats) -> Floats:
        """Return the positions (V, 3) of points of the maps in image n, mm."""
        return np.asarray((x - self.centre) @ self.rotation[n].T + self.centre + self.translation[n])

    def after(self, u: Floats, w: Floats) -> Motion:
        """Return the motion after a small step in the space of the maps: translations u, rotation vectors w (N, 3)."""
        t = self.translation + np.einsum("nij,nj->ni", self.rotation, u)
        return replace(self, rotation=self.rotation @ matrices_of(w), translation=t)

    def about_median(self) -> Motion:
        """Return the motion without what the images have in common.

        The median of an even number is the lower of the two in the middle: if half of the images moved, the others stay
        where they are, and no image is half-way between them.
        """
        w = np.quantile(vectors_of(self.rotation), 0.5, axis=0, method="lower")
        back = matrices_of(-w[None])[0]
        u = back @ -np.quantile(self.translation, 0.5, axis=0, method="lower")
        return replace(self, rotation=self.rotation @ back, translation=self.translation + self.rotation @ u)

    def displacement(self, x: Floats) -> Floats:
        """Return how far each image moves points (V, 3): root mean square over them, mm (N,)."""
        d = np.stack([self.where(n, x) - x for n in range(len(self.translation))])
        return np.asarray(np.sqrt((d**2).sum(axis=-1).mean(axis=-1)))

    def world(self, affine: Floats, voxel_size: tuple[float, ...]) -> Floats:
        """Return the transforms (N, 4, 4) between world coordinates, mm: from the maps to the image."""
        to_grid = np.diag([*voxel_size, 1.0]) @ np.linalg.inv(affine)
        T = np.tile(np.eye(4), (len(self.translation), 1, 1))
        T[:, :3, :3] = self.rotation
        T[:, :3, 3] = self.translation + self.centre - np.einsum("nij,j->ni", self.rotation, self.centre)
        return np.asarray(np.linalg.inv(to_grid) @ T @ to_grid)


def matrices_of(vectors: Floats) -> Floats:
    """Return the rotation matrices (N, 3, 3) of rotation vectors (N, 3), rad: the formula of Rodrigues."""
    angle = np.linalg.norm(vectors, axis=1)[:, None, None]
    x, y, z = vectors.T
    zero = np.zeros_like(x)
    K = np.stack([zero, -z, y, z, zero, -x, -y, x, zero], axis=1).reshape(-1, 3, 3)
    return np.asarray(np.eye(3) + np.sinc(angle / np.pi) * K + 0.5 * np.sinc(angle / (2 * np.pi)) ** 2 * (K @ K))


def vectors_of(matrices: Floats) -> Floats:
    """Return the rotation vectors (N, 3), rad, of rotation matrices (N, 3, 3), by way of unit quaternions.

    References
    ----------
    Shepperd 1978, doi:10.2514/3.55767b.
    """
    return np.array([_vector_of(R) for R in matrices]).reshape(-1, 3)


def _vector_of(R: Floats) -> Floats:
    sizes = np.array([*np.diag(R), np.trace(R)])
    largest = int(sizes.argmax())
    q = np.empty(4)  # the vector, then the scalar
    if largest == 3:
        q[:3] = R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]
        q[3] = 1 + sizes[3]
    else:
        i, j, k = largest, (largest + 1) % 3, (largest + 2) % 3
        q[i], q[j], q[k] = 1 - sizes[3] + 2 * R[i, i], R[j, i] + R[i, j], R[k, i] + R[i, k]
        q[3] = R[k, j] - R[j, k]
    q /= np.linalg.norm(q) * (-1.0 if q[3] < 0 else 1.0)
    half = np.arctan2(np.linalg.norm(q[:3]), q[3])
    return np.asarray(2 / np.sinc(half / np.pi) * q[:3])  # angle over sine of its half, 2 at no rotation
