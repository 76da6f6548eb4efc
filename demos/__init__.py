"""Runnable examples: the quick start behind ``make demo``."""
