"""Test vectors: what the reference model answers, as JSON files for implementations in any language.

A module for each chapter writes its file; `folder` compares files with what is written anew, and `schema` with what
their schemas allow. `spec/vectors/README.md` says how the files are read.
"""
