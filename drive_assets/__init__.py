"""The Dagster project: which assets exist, what they depend on, where they are stored, when and where they run."""

import warnings

# Dagster warns that backfill policies and checks of partitions are new, which the versions that we allow support, and
# that a job uses the smallest batch of its assets, which is intended.
warnings.filterwarnings("ignore", message=r".* is currently in (beta|preview)|.* with varying BackfillPolicies")
