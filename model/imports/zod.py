"""Sequences and drives of the Zenseact Open Dataset (zod.zenseact.com)."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from model.common.errors import DataError
from model.common.files import sha256
from model.common.progress import Log
from model.imports.kinds import Drive, Importer
from model.imports.logs.raw import Found
from model.imports.pictures import Frame, half_seconds, time_in_name
from model.imports.signals import in_order
from model.imports.writing import Clock, Origin, write_recording

VEHICLE_DATA = "vehicle_data.hdf5"
CAMERAS = ("camera_front_blur", "camera_front_dnat", "camera_front_original")
"""Folders of frames, by preference: faces and plates are blurred, or replaced."""
_CONTROLS, _VEHICLE = "ego_vehicle_controls", "ego_vehicle_data"
_DATASETS = {
    "SPEED": (_VEHICLE, "lon_vel_data/velocity/meters_per_second/value", 3.6),
    "ACCELERATOR_POS_D": (_CONTROLS, "acceleration_pedal/ratio/unitless/value", 1.0),
    "BRAKE_SIGNAL": (_CONTROLS, "brake_pedal_pressed/is_brake_pedal_pressed/unitless/value", 1.0),
}
"""Group, data set and factor of each channel. The pedal's ratio is from 0 to 100."""


class Zod(Importer):
    """A sequence's or a drive's folder, or a folder that holds some, such as `sequences`."""

    kind = "zod"

    def find(self, path: Path, options: dict[str, str]) -> Sequence[Drive]:
        if path.is_file():
            return []
        folders = [path] if _is_drive(path) else sorted(filter(_is_drive, (*path.iterdir(), *path.glob("*/*"))))
        drives = []
        for folder in folders:
            start = _pictures(folder)[0][0]
            drives.append(Drive(self.kind, Clock(start, "UTC").name(start), folder, (folder,), options))
        return drives

    def write(self, drive: Drive, folder: Path, log: Log) -> None:
        place = drive.files[0]
        pictures = _pictures(place)
        found = _signals(place / VEHICLE_DATA)
        origin = Origin(
            self.kind,
            licence="CC BY-SA 4.0",
            attribution="Zenseact Open Dataset, zod.zenseact.com, Alibeigi et al., ICCV 2023",
            logs=[{"path": str(place / VEHICLE_DATA), "sha256": sha256(place / VEHICLE_DATA)}],
            videos=[{"path": str(pictures[0][1].parent), "start": pictures[0][0], "frames": len(pictures)}],
        )

        def frames() -> Iterator[Frame]:
            for t, picture in half_seconds(pictures):
                yield t, picture.read_bytes()

        write_recording(folder, frames(), lambda: found, Clock(pictures[0][0], "UTC"), origin, log)


def _is_drive(folder: Path) -> bool:
    return folder.is_dir() and (folder / VEHICLE_DATA).is_file()


def _pictures(folder: Path) -> list[tuple[float, Path]]:
    """Time and file of each frame, in order. The names hold the time in UTC."""
    camera = next((folder / name for name in CAMERAS if (folder / name).is_dir()), None)
    if camera is None:
        raise DataError(f"{folder} has no frames: expected one of {', '.join(CAMERAS)}.")
    timed = [(time_in_name(path.stem, "UTC"), path) for path in camera.glob("*.jpg")]
    pictures = sorted((t, path) for t, path in timed if t is not None)
    if not pictures:
        raise DataError(
            f"{camera} has no frame named with its time, such as 000000_romeo_2022-06-13T10:32:36.117886Z.jpg."
        )
    return pictures


def _signals(path: Path) -> dict[str, Found]:
    try:
        with h5py.File(path) as file:
            times = {group: _nanoseconds(file[group]) for group in (_CONTROLS, _VEHICLE)}
            found = {}
            for name, (group, dataset, factor) in _DATASETS.items():
                values = np.asarray(file[group][dataset], float).ravel() * factor
                signal = in_order(times[group], np.abs(values) if name == "SPEED" else values)
                found[name] = Found(signal, f"{group}/{dataset}", len(values), len(values) - len(signal.t), 0)
            return found
    except (OSError, KeyError, ValueError) as error:
        raise DataError(f"{path} is no vehicle data of ZOD ({error}): download it again.") from error


def _nanoseconds(group: h5py.Group) -> npt.NDArray[np.float64]:
    return np.asarray(group["timestamp/nanoseconds/value"], np.int64).ravel() / 1e9


IMPORTER = Zod()
