"""The Dagster project: which assets exist, what they depend on, where they are stored, when and where they run."""
