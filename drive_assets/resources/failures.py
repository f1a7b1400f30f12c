"""How runs end whose work does not end with them."""

import dagster as dg


class JobsGoOn(dg.Failure):
    """The run ends, but its jobs, on a cluster, do not: whoever runs it again takes them over."""
