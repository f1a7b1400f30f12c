"""Clusters as compute: what all have in common, and each."""
