"""Sequences and drives of the Zenseact Open Dataset (zod.zenseact.com).

The layout is the one that github.com/zenseact/zod reads: frames that are named with their time, and vehicle_data.hdf5.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np

from model.common.errors import DataError
from model.common.files import sha256
from model.common.progress import Log
from model.imports.kinds import Drive, Importer
from model.imports.logs.raw import Found
from model.imports.pictures import Frame, half_seconds, time_in_name
from model.imports.writing import Clock, Origin, write_recording

VEHICLE_DATA = "vehicle_data.hdf5"
CAMERAS = ("camera_front_blur", "camera_front_dnat", "camera_front_original")
"""Folders of frames, the preferred one first: faces and plates are blurred, or replaced."""
_CHANNELS = {
    "SPEED": ("ego_vehicle_data", "lon_vel_data/velocity/meters_per_second/value", 3.6),
    "ACCELERATOR_POS_D": ("ego_vehicle_controls", "acceleration_pedal/ratio/unitless/value", 1.0),
    "BRAKE_SIGNAL": ("ego_vehicle_controls", "brake_pedal_pressed/is_brake_pedal_pressed/unitless/value", 1.0),
}
"""Group, data set and factor of each channel. The pedal's ratio is from 0 to 100."""
_TIMES = "timestamp/nanoseconds/value"


class Zod(Importer):
    """A sequence's or a drive's folder, or a folder with some in it or in its folders, such as `sequences`."""

    kind = "zod"

    def find(self, path: Path, options: dict[str, str]) -> Sequence[Drive]:
        folders = [file.parent for depth in ("", "*/", "*/*/") for file in sorted(path.glob(depth + VEHICLE_DATA))]
        drives = []
        for folder in folders:
            pictures = _pictures(folder)
            if len(pictures) == 1:
                continue  # of the data set's single frames
            start = pictures[0][0] if pictures else (folder / VEHICLE_DATA).stat().st_mtime
            drives.append(Drive(self.kind, Clock(start, "UTC").name(start), folder, (folder,), options))
        return drives

    def write(self, drive: Drive, folder: Path, log: Log) -> None:
        place = drive.files[0]
        pictures = _pictures(place)
        if not pictures:
            raise DataError(
                f"{place} has no frames: expected one of the folders {', '.join(CAMERAS)} with files such as "
                "000000_romeo_2022-06-13T10:32:36.117886Z.jpg. Download the images too."
            )
        found = _signals(place / VEHICLE_DATA)
        digest = sha256(place / VEHICLE_DATA)
        origin = Origin(
            self.kind,
            drive=digest,
            licence="CC BY-SA 4.0",
            attribution="Zenseact Open Dataset, zod.zenseact.com, Alibeigi et al., ICCV 2023",
            logs=[{"path": str(place / VEHICLE_DATA), "sha256": digest}],
            videos=[{"path": str(pictures[0][1].parent), "start": pictures[0][0], "frames": len(pictures)}],
            notes=["Nothing says whether driver assistance was engaged."],
        )

        def frames() -> Iterator[Frame]:
            for t, picture in half_seconds(pictures):
                yield t, picture.read_bytes()

        write_recording(folder, frames(), lambda: found, Clock(pictures[0][0], "UTC"), origin, log)


def _pictures(folder: Path) -> list[tuple[float, Path]]:
    """Time and file of each frame, in order, by the UTC time in its name; empty without frames."""
    camera = next((folder / name for name in CAMERAS if (folder / name).is_dir()), None)
    timed = [(time_in_name(path.stem, "UTC"), path) for path in camera.glob("*.jpg")] if camera else []
    return sorted((t, path) for t, path in timed if t is not None)


def _signals(path: Path) -> dict[str, Found]:
    found = {}
    try:
        with h5py.File(path) as file:
            for name, (group, dataset, factor) in _CHANNELS.items():
                if dataset not in file[group]:
                    raise DataError(f"{path} lacks {group}/{dataset}: download it again.")
                t = np.asarray(file[group][_TIMES], np.int64).ravel() / 1e9
                values = np.asarray(file[group][dataset], float).ravel() * factor
                found[name] = Found.of(t, values, f"{group}/{dataset}")
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise DataError(f"{path} cannot be read as ZOD's vehicle data ({error}): download it again.") from error
    return found


IMPORTER = Zod()
