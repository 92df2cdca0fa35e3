"""The partition behind the functions of inference engines, with each engine's own signature and return values.

One module an engine. None is imported before it is asked for, and none needs its engine.
"""
