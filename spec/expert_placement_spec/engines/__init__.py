"""The engines' own functions as implementations to be checked: adapters a few lines long, and what came of them.

What an engine answers is passed on as it is, right or wrong; what it does not answer is not offered. The sources are
the engines', and no part of this distribution: `sources.py` says where they are looked for.
"""
