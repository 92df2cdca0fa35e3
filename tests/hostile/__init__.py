"""Hostile input: everything public is fed what nobody should pass, and has to answer rightly or refuse clearly.

`surface` says what there is, `subjects` how each is called, `values` and `files` what is fed, `judging` what must hold
of one call, `running` has the calls made in child processes with limits of memory and time, and `record` writes what
came of it. `python -m tests.hostile` makes all calls.
"""
