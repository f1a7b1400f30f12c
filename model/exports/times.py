"""Times of recordings, which know no zone, as moments."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt

from model.common.errors import DataError


def nanoseconds(clock_ms: npt.NDArray[np.int64], zone: str) -> npt.NDArray[np.int64]:
    """(F,) ns since 1970 of times of a recorder's clock in ms, in the zone's offset at the first one.

    Raises:
        DataError: there is no such zone.
    """
    try:
        start = datetime.fromtimestamp(int(clock_ms[0]) / 1000, UTC).replace(tzinfo=ZoneInfo(zone))
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"Time zone {zone!r}: expected a name such as Europe/Berlin or UTC.") from error
    offset = start.utcoffset()
    assert offset is not None
    return (clock_ms - round(offset.total_seconds() * 1000)) * 1_000_000
