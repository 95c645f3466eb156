"""Distances on the earth in whole metres, from coordinates in integer microdegrees."""

from math import asin, cos, radians, sin, sqrt
from typing import Final

EARTH_RADIUS_M: Final = 6_371_000
"""Mean radius of the earth (IUGG R1, rounded to kilometres)."""

METRES_PER_MICRODEGREE: Final = 0.1112
"""Upper bound of the distance of two points in metres, per microdegree of the sum of their differences in latitude and
longitude."""


def microdegrees(degrees: float) -> int:
    """Return a WGS 84 angle in whole microdegrees: decisions on integers do not depend on how floats are added."""
    return round(degrees * 1_000_000)


def round_angle(degrees: float, decimals: int | None) -> float:
    """Round an angle in degrees to this number of decimals, or return it unchanged for None.

    Rounding the result again changes nothing.
    """
    return degrees if decimals is None else round(degrees, decimals)


def least_microdegrees(metres: int) -> int:
    """Return the smallest sum of the differences in latitude and longitude of two points this many metres apart.

    The sum is in microdegrees, rounded down.
    """
    return int(metres / METRES_PER_MICRODEGREE)


def distance_m(latitude_a: int, longitude_a: int, latitude_b: int, longitude_b: int) -> int:
    """Return the great-circle distance between two points in microdegrees, rounded to metres.

    The haversine formula (R. W. Sinnott, "Virtues of the Haversine", Sky and Telescope 68, 1984). Decide only by the
    rounded result: the last bits of a sine differ between mathematical libraries.
    """
    phi_a, phi_b = radians(latitude_a / 1_000_000), radians(latitude_b / 1_000_000)
    half_phi = (phi_b - phi_a) / 2
    half_lambda = radians((longitude_b - longitude_a) / 1_000_000) / 2
    h = sin(half_phi) ** 2 + cos(phi_a) * cos(phi_b) * sin(half_lambda) ** 2
    return round(2 * EARTH_RADIUS_M * asin(sqrt(min(1.0, h))))
