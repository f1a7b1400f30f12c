"""Options of the simulated drives and of the Boxy-like frames."""

from dataclasses import dataclass

from model.common.config import option
from model.common.errors import DataError

# The recorder's nominal rate and the grid of the traffic simulation; row times lie on that grid (tenths of a second).
SAMPLE_INTERVAL_S = 0.5
STEP_S = 0.1


@dataclass(frozen=True)
class SimulationConfig:
    """What `simulate_drives` and `simulate_boxy` make. Equal configs give byte-identical telemetry and boxes."""

    recordings: int = option(8, "Number of drives")
    duration_s: float = option(300.0, "Length of a drive in seconds (two frames a second)")
    seed: int = option(0, "Seed of traffic, light, weather and faults")
    fault_rate: float = option(0.01, "Share of rows with a recorder's fault (No Frame, gaps, repeats, missing frames)")
    density_min: float = option(22.0, "Thinnest traffic, vehicles a kilometre over the three lanes")
    density_max: float = option(52.0, "Densest traffic, vehicles a kilometre over the three lanes")
    image_width: int = option(1920, "Frame width in px")
    image_height: int = option(1080, "Frame height in px")
    jpeg_quality: int = option(85, "JPEG quality of the frames, 1..100")
    workers: int = option(2, "Processes that simulate side by side; does not change what is made")
    min_box_px: float = option(14.0, "A true box is at least this wide and high (px of a 1920 px wide frame)")
    min_visible: float = option(0.25, "A true box shows at least this share of its vehicle, the rest being hidden")
    boxy_sequences: int = option(8, "Sequences of the Boxy-like set; train and validation are split by sequence")
    boxy_frames: int = option(40, "Frames in a sequence of the Boxy-like set")
    boxy_interval_s: float = option(2.0, "Seconds between two frames of a Boxy-like sequence")
    boxy_flaw_rate: float = option(0.03, "Share of Boxy-like frames that are marked as flawed (image mirrored or torn)")

    def __post_init__(self) -> None:
        limits: dict[str, tuple[float, float]] = {
            "recordings": (1, 10_000),
            "duration_s": (5, 7_200),
            "seed": (0, 2**31 - 1),
            "fault_rate": (0, 0.5),
            "density_min": (1, 120),
            "density_max": (1, 120),
            "image_width": (320, 7_680),
            "image_height": (180, 4_320),
            "jpeg_quality": (1, 100),
            "workers": (1, 256),
            "min_box_px": (1, 500),
            "min_visible": (0.01, 1),
            "boxy_sequences": (1, 1_000),
            "boxy_frames": (1, 10_000),
            "boxy_interval_s": (STEP_S, 60),
            "boxy_flaw_rate": (0, 1),
        }
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise DataError(f"simulation config: {name} must be from {low} to {high}, not {getattr(self, name)}")
        if self.density_min > self.density_max:
            raise DataError(
                f"simulation config: density_min ({self.density_min}) must not exceed density_max ({self.density_max})"
            )
