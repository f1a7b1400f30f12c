"""Light and weather of a drive, and their effect on colours."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Colour = NDArray[np.float64]
LIGHTS = ("day", "dusk", "night")
WEATHERS = ("clear", "overcast", "fog", "rain")

_AMBIENT = {"day": (1.0, 1.0, 1.0), "dusk": (0.5, 0.46, 0.5), "night": (0.12, 0.10, 0.10)}
_SKY = {
    "clear": ((215, 150, 95), (238, 220, 200)),
    "overcast": ((185, 178, 172), (214, 209, 204)),
    "fog": ((196, 194, 192), (204, 203, 202)),
    "rain": ((150, 145, 140), (178, 174, 170)),
}
"""By day, above and at the horizon."""
_SUNSET = ((120, 80, 60), (115, 150, 215))
_VISIBILITY_M = {"clear": 1400.0, "overcast": 900.0, "rain": 380.0, "fog": 150.0}


@dataclass(frozen=True)
class Look:
    """Light, weather and camera noise of one drive. Colours are BGR, 0..255; `faces` scales a vehicle's sides."""

    light: str
    weather: str
    ambient: Colour
    sky_top: Colour
    sky_low: Colour
    visibility_m: float
    noise: float
    blur: bool
    faces: dict[str, float]

    @classmethod
    def of_seed(cls, seed: int) -> "Look":
        """The look of the scene with this seed: mostly day, sometimes dusk or night; mostly dry, or fog or rain."""
        rng = np.random.default_rng([seed, 5])
        light = LIGHTS[rng.choice(3, p=(0.64, 0.18, 0.18))]
        weather = WEATHERS[rng.choice(4, p=(0.42, 0.28, 0.12, 0.18))]
        ambient = np.array(_AMBIENT[light])
        sky = _SUNSET if (light, weather) == ("dusk", "clear") else np.array(_SKY[weather]) * ambient
        dim = rng.uniform(0.82, 1.08) * (0.85 if weather in ("rain", "overcast") else 1.0)
        sun = rng.uniform(-0.2, 0.2) if weather == "clear" else 0.0
        return cls(
            light=light,
            weather=weather,
            ambient=ambient * dim,
            sky_top=np.array(sky[0]) * dim,
            sky_low=np.array(sky[1]) * dim,
            visibility_m=_VISIBILITY_M[weather] * rng.uniform(0.75, 1.3),
            noise={"day": 1.8, "dusk": 3.0, "night": 4.5}[light] * rng.uniform(0.8, 1.3),
            blur=bool(rng.random() < 0.4),
            faces={"rear": rng.uniform(0.78, 1.05), "left": 0.8 + sun, "right": 0.8 - sun, "ground": 1.0},
        )

    @property
    def lamps_on(self) -> bool:
        """Whether tail lamps are switched on."""
        return self.light != "day" or self.weather in ("fog", "rain")

    def lit(self, colour: Colour, depth: Colour | float) -> Colour:
        """Colour (..., 3) of a surface `depth` metres ahead: ambient light, headlamps in the dark, haze."""
        light: Colour = self.ambient * np.ones_like(colour)
        if self.light != "day":
            beam = 0.75 / (1 + (np.asarray(depth)[..., None] / 32.0) ** 2)
            light = light + beam * (1.0 - self.ambient)
        return self.glowing(colour * light, depth)

    def glowing(self, colour: Colour, depth: Colour | float) -> Colour:
        """Colour (..., 3) of a light source `depth` metres ahead: haze only."""
        haze = 1 - np.exp(-np.asarray(depth)[..., None] / self.visibility_m)
        return colour * (1 - haze) + self.sky_low * haze
