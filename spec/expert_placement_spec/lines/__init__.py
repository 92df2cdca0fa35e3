"""Implementations that are not Python, asked over the line protocol of PROTOCOL.md."""
