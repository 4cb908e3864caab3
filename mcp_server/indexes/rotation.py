"""A fixed random rotation that costs little: a Kronecker product of two small ones."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SEED = 20_240_229


@dataclass(frozen=True, eq=False)
class Rotation:
    """x -> (left (x) right) (signs * x), for D = L * R: every number of the result depends on all of x.

    Orthogonal to within the rounding of float64. With L and R near the root of D it takes D (L + R) multiplications instead of D * D.

    Attributes:
        left, right: (L, L) and (R, R) float64, orthogonal.
        signs: (D,) float64, 1 or -1.
    """

    left: NDArray[np.float64] = field(repr=False)
    right: NDArray[np.float64] = field(repr=False)
    signs: NDArray[np.float64] = field(repr=False)

    @classmethod
    def random(cls, width: int) -> Rotation:
        """Return the rotation of vectors of `width` numbers, the same at each call."""
        left = max(factor for factor in range(1, math.isqrt(width) + 1) if width % factor == 0)
        random = np.random.default_rng(_SEED)
        return cls(_orthogonal(random, left), _orthogonal(random, width // left), np.where(random.random(width) < 0.5, -1.0, 1.0))

    def turn(self, vectors: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return `vectors`, (M, D), turned."""
        squares = (vectors * self.signs).reshape(-1, len(self.left), len(self.right))
        return (self.left @ (squares @ self.right.T)).reshape(vectors.shape)


def random_orthogonal(width: int) -> NDArray[np.float64]:
    """Return a random rotation as a matrix, (D, D), the same at each call."""
    return _orthogonal(np.random.default_rng(_SEED), width)


def _orthogonal(random: np.random.Generator, width: int) -> NDArray[np.float64]:
    """Return a random rotation. Source: F. Mezzadri, How to generate random matrices from the classical compact groups, 2007."""
    turned, upper = np.linalg.qr(random.standard_normal((width, width)))
    signs: NDArray[Any] = np.where(np.diag(upper) < 0, -1.0, 1.0)
    return np.ascontiguousarray(turned * signs)
