"""Benchmarks: each file is a program; see README.md beside it."""
