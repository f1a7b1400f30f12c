"""Errors of the runtime."""


class BundleError(Exception):
    """Something is wrong with a bundle, a drive or an option: the command ends with its message."""


class FrameError(Exception):
    """A frame cannot be used: it is counted, and the window begins anew after it."""
