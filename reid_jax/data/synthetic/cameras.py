"""Cameras: their direction, light, colours and sharpness.

Cameras of one dataset differ as surveillance cameras do. Each watches one place, where people
mostly walk one way, so one camera shows faces, another shows backs, a third left sides.
"""

import functools
from dataclasses import dataclass

import numpy as np

from reid_jax.choices import MAX_CAMERAS
from reid_jax.data.synthetic.streams import stream

# Four consecutive cameras look from four sides, for any first one: the splits of a dataset share
# no camera, and each needs its own faces, backs and sides to match.
_YAWS = (0.0, np.pi, 0.5 * np.pi, -0.5 * np.pi)
_GROUNDS = ("slabs", "asphalt", "tiles", "bricks", "grass", "slabs")
_WALLS = ("shop", "hedge", "panels", "bricks", "trees", "glass")
_OBSTACLES = ("pole", "box", "bench", "planter", "railing", "pole")


@dataclass(frozen=True)
class Camera:
    """One camera, the same for every picture it takes.

    Attributes:
        yaw: radians, the way most people walk: 0 towards the camera (see `solids.View`).
        height: metres above the ground.
        focal: focal length, pixels of the drawn scene.
        ground: texture of the ground.
        wall: what is in the background.
        wall_distance: metres to it.
        wall_turn: radians it is turned.
        light: (right, up, towards the camera), the direction of the key light, unit length.
        ambient: share of the light without direction, in [0, 1]; sunny places have little.
        gains: of red, green and blue.
        exposure: factor on all three.
        gamma: exponent; above 1 darkens the middle tones.
        saturation: 1 keeps colours, 0 is grey.
        haze: share of grey veil, in [0, 1].
        blur: deviation of the lens blur, pixels of the sensor.
        noise: deviation of the sensor noise, in [0, 1].
        resolution: rows of the sensor that a person covers, (least, most).
        obstacle: what stands in this place.
        obstacle_rate: share of walks that pass behind it.
        crowd_rate: share of walks with another person near.
        sloppiness: deviation of the detector's boxes, as a share of their size.
    """

    yaw: float
    height: float
    focal: float
    ground: str
    wall: str
    wall_distance: float
    wall_turn: float
    light: tuple[float, float, float]
    ambient: float
    gains: tuple[float, float, float]
    exposure: float
    gamma: float
    saturation: float
    haze: float
    blur: float
    noise: float
    resolution: tuple[int, int]
    obstacle: str
    obstacle_rate: float
    crowd_rate: float
    sloppiness: float


@functools.lru_cache(maxsize=32)
def camera(seed: int, camid: int) -> Camera:
    """The camera with an id, 1 to MAX_CAMERAS.

    Raises:
        ValueError: there is no such camera.
    """
    if not 1 <= camid <= MAX_CAMERAS:
        raise ValueError(f"camid is {camid}; synthetic cameras are numbered 1 to {MAX_CAMERAS}")

    def mine(options, shift=0):
        """Give each camera another option: the list is rotated by an amount that the seed selects.

        After each pass through the list, the rotation changes by `shift`.
        """
        start = stream(seed, "cameras", len(options)).integers(len(options))
        return options[(camid - 1 + shift * ((camid - 1) // len(options)) + start) % len(options)]

    rng = stream(seed, "camera", camid)
    light = np.array([rng.choice([-1, 1]) * rng.uniform(0.2, 0.8), 0.7, rng.uniform(0.3, 0.8)])
    light = light / np.linalg.norm(light)
    warm = rng.normal(0, 0.05)
    least = int(rng.integers(56, 84))
    return Camera(
        yaw=_YAWS[(camid - 1) % len(_YAWS)],
        height=float(rng.uniform(2.0, 3.4)),
        focal=1000.0,
        ground=mine(_GROUNDS),
        wall=mine(_WALLS, shift=1),  # other walls behind the same grounds
        wall_distance=float(rng.uniform(13, 18)),
        wall_turn=float(rng.uniform(-0.35, 0.35)),
        light=(float(light[0]), float(light[1]), float(light[2])),
        ambient=float(rng.uniform(0.35, 0.68)),
        gains=(float(1 + warm), float(1 + rng.normal(0, 0.02)), float(1 - warm)),
        exposure=float(rng.uniform(1.0, 1.28)),
        gamma=float(rng.uniform(0.88, 1.14)),
        saturation=float(rng.uniform(0.75, 1.1)),
        haze=float(rng.uniform(0.0, 0.1)),
        blur=float(rng.uniform(0.25, 0.75)),
        noise=float(rng.uniform(0.008, 0.025)),
        resolution=(least, int(least + rng.integers(24, 44))),
        obstacle=mine(_OBSTACLES),
        obstacle_rate=float(rng.uniform(0.1, 0.25)),
        crowd_rate=float(rng.uniform(0.12, 0.25)),
        sloppiness=float(rng.uniform(0.02, 0.05)),
    )


def exposed(cam: Camera, rgb: np.ndarray, rng: np.random.Generator, flicker: float) -> np.ndarray:
    """The sensor's response to the light: colour cast, veil, tone curve, noise.

    Args:
        cam: the camera.
        rgb: (H, W, 3) float32, light in [0, 1].
        rng: for the noise.
        flicker: factor on the exposure of this picture.

    Returns:
        (H, W, 3) uint8.
    """
    rgb = rgb * (np.array(cam.gains, np.float32) * np.float32(cam.exposure * flicker))
    grey = rgb.mean(axis=2, keepdims=True)
    rgb = grey + np.float32(cam.saturation) * (rgb - grey)
    rgb = rgb * np.float32(1 - cam.haze) + np.float32(0.55 * cam.haze)
    rgb = rgb.clip(0, 1) ** np.float32(cam.gamma)
    rgb += np.float32(cam.noise) * rng.standard_normal(rgb.shape, np.float32)
    return (rgb * 255 + 0.5).clip(0, 255).astype(np.uint8)
