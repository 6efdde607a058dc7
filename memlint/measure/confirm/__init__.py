"""Prices findings: run the target as it is and with each fix, compare memory and results."""
