"""Reading the tables and JSON files of a recording."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from model.common.errors import DataError
from model.recording.schema import TIME
from model.recording.times import plain_time


def read_table(path: Path, columns: Sequence[str], verb: str, dtype: Any) -> pd.DataFrame:
    """Read a CSV file; empty cells of text columns stay empty texts.

    Args:
        verb: what makes the file, such as "annotate", for the advice.

    Raises:
        DataError: missing, no table, a column missing, or a cell of another type than `dtype`.
    """
    try:
        table = pd.read_csv(path, dtype=dtype, keep_default_na=dtype is not str)
    except FileNotFoundError:
        raise DataError(f"{path} is missing: {verb} the recording first.") from None
    except (OSError, ValueError, TypeError) as error:
        raise DataError(f"{path} cannot be read as a table ({error}): {verb} the recording again.") from error
    if missing := [name for name in columns if name not in table.columns]:
        raise DataError(
            f"{path} lacks {', '.join(missing)}: expected the columns {', '.join(columns)}; {verb} the recording again."
        )
    if TIME in table:
        table[TIME] = [plain_time(str(time)) for time in table[TIME]]
    return table


def read_object(path: Path, expected: str) -> dict[str, Any]:
    """A JSON object; empty if the file is missing. DataError if it holds something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not a JSON object ({error}): expected {expected}.") from error
    if not isinstance(content, dict):
        raise DataError(f"{path} is not a JSON object: expected {expected}.")
    return content
