"""Failures of runs whose work does not end with them."""

import dagster as dg


class JobsContinue(dg.Failure):
    """The run ends but its cluster jobs do not; the next run of the same work adopts them."""
