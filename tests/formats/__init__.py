"""Tests of the files that engines read and write."""
