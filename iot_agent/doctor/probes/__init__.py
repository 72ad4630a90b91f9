"""Gather facts and judge nothing: a probe reports what it cannot see as a fact, and does not raise."""
