"""A map of the world without a map service: Equal Earth, which shows areas as large as they are.

`python -m console.web.pages.maps countries-110m.json codes.json` writes `static/world.svg` and
`countries.json` from the packages that `static/vendor/NOTICE.md` names; the console itself needs only these two files.
"""

import json
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from math import asin, cos, radians, sin, sqrt
from pathlib import Path
from typing import Any, Final, NamedTuple

WIDTH: Final = 960
HEIGHT: Final = 420
"""Height of the map without most of Antarctica, where no payments are made."""
_A1, _A2, _A3, _A4 = 1.340264, -0.081106, 0.000893, 0.003796
_M: Final = sqrt(3) / 2
_SCALE: Final = WIDTH / (2 * 2.7066299836960748)
_TOP: Final = 1.3
"""Northern edge of the map, in units of the projection."""
_SOUTH: Final = -58.0
_HERE: Final = Path(__file__).parent


class MapPoint(NamedTuple):
    """A point on the map, in units of its view box."""

    x: float
    y: float


class Country(NamedTuple):
    """A country and its centre on the map."""

    name: str
    x: float
    y: float


def equal_earth(latitude: float, longitude: float) -> MapPoint:
    """Project degrees to the map with Equal Earth (Šavrič, Patterson, Jenny 2018)."""
    theta = asin(_M * sin(radians(latitude)))
    square = theta * theta
    sixth = square**3
    x = radians(longitude) * cos(theta) / (_M * (_A1 + 3 * _A2 * square + sixth * (7 * _A3 + 9 * _A4 * square)))
    y = theta * (_A1 + _A2 * square + sixth * (_A3 + _A4 * square))
    return MapPoint(round(WIDTH / 2 + x * _SCALE, 1), round((_TOP - y) * _SCALE, 1))


def map_point(latitude_micro: int, longitude_micro: int) -> MapPoint:
    """Project microdegrees to the map."""
    return equal_earth(latitude_micro / 1e6, longitude_micro / 1e6)


@cache
def countries() -> dict[str, Country]:
    """Return the countries by their two-letter ISO 3166 code."""
    found = json.loads((_HERE / "countries.json").read_text(encoding="utf-8"))
    return {code: Country(*country) for code, country in found.items()}


def country_name(code: str) -> str:
    """Return the name of a country, or its code if it is unknown."""
    found = countries().get(code)
    return found.name if found else code


# -- making the drawing ---------------------------------------------------------------------------------

Ring = list[tuple[float, float]]


def _arcs(topology: dict[str, Any]) -> list[Ring]:
    (scale_x, scale_y), (move_x, move_y) = topology["transform"]["scale"], topology["transform"]["translate"]
    arcs = []
    for deltas in topology["arcs"]:
        x = y = 0
        arc = []
        for dx, dy in deltas:
            x, y = x + dx, y + dy
            arc.append((x * scale_x + move_x, y * scale_y + move_y))
        arcs.append(arc)
    return arcs


def _rings(geometry: dict[str, Any], arcs: list[Ring]) -> Iterator[Ring]:
    """Yield the outlines of a country by longitude and latitude; holes are left out, since countries fill them."""
    polygons = [geometry["arcs"]] if geometry["type"] == "Polygon" else geometry["arcs"]
    for polygon in polygons:
        ring: Ring = []
        for number in polygon[0]:
            arc = arcs[number] if number >= 0 else arcs[~number][::-1]
            ring += arc[1:] if ring else arc
        yield ring


def _unbroken(ring: Ring) -> Ring:
    """Continue an outline that crosses the 180th meridian beyond the edge of the map."""
    found: Ring = []
    for longitude, latitude in ring:
        turns = round((found[-1][0] - longitude) / 360) if found else 0
        found.append((longitude + 360 * turns, latitude))
    return found


def _path(ring: Ring) -> str:
    points = [equal_earth(max(latitude, _SOUTH), longitude) for longitude, latitude in _unbroken(ring)]
    return "M" + "L".join(f"{point.x:g} {point.y:g}" for point in points) + "Z"


def _area(ring: Ring) -> float:
    return abs(sum(x1 * y2 - x2 * y1 for (x1, y1), (x2, y2) in zip(ring, [*ring[1:], ring[0]], strict=True))) / 2


def _middle(ring: Ring) -> MapPoint:
    longitudes, latitudes = zip(*ring, strict=True)
    return equal_earth((min(latitudes) + max(latitudes)) / 2, (min(longitudes) + max(longitudes)) / 2)


def draw(topology: dict[str, Any], codes: Iterable[list[str]]) -> tuple[str, dict[str, Country]]:
    """Draw the world as SVG. Return it, and the countries with their centres."""
    arcs, letters = _arcs(topology), {number: two for two, _, number, *_ in codes}
    paths, found = [], {}
    for geometry in topology["objects"]["countries"]["geometries"]:
        if geometry.get("id") == "010":
            continue  # Antarctica
        rings = list(_rings(geometry, arcs))
        paths.append("".join(map(_path, rings)))
        code = letters.get(geometry.get("id", ""))
        if code:
            found[code] = Country(geometry["properties"]["name"], *_middle(max(rings, key=_area)))
    body = "".join(f'<path d="{path}"/>' for path in paths)
    svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" fill="#000">'
    return f"{svg}{body}</svg>\n", found


def main(topology_file: str, codes_file: str) -> None:
    """Write the two files."""
    topology, codes = (json.loads(Path(name).read_text(encoding="utf-8")) for name in (topology_file, codes_file))
    svg, found = draw(topology, codes)
    (_HERE.parent / "static" / "world.svg").write_text(svg, encoding="utf-8")
    lines = ",\n".join(f"{json.dumps(code)}: {json.dumps(found[code], ensure_ascii=False)}" for code in sorted(found))
    (_HERE / "countries.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
