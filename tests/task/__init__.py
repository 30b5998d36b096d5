"""Tests of tasks: descriptions, the files that they are read from, and what is made of them."""
