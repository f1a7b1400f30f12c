"""The science: telemetry, labels, windows, networks, losses, training, detection and measures. No orchestration."""
