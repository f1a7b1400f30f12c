"""The Dagster project: which assets exist, what they depend on, where they are stored, when and where they run."""

import warnings

# Dagster says of each backfill policy, and of each check of a partition, that this is new. The versions that we allow
# have it.
warnings.filterwarnings("ignore", message=r".* is currently in (beta|preview)")
