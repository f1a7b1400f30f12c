"""Kills and malformed inputs by the hundred, seeded. They take too long for the tests: see docs/reliability.md."""
