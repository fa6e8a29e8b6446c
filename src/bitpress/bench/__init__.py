"""Latency, memory and size, measured in fresh processes on what was written.

Modules: ``models`` (what kind of directory is this), ``worker`` (the process that runs one model), ``client`` (its
owner), ``latency``, ``memory`` and ``explain`` (the measurements), ``report`` (tables). Nothing here imports torch
except the worker process of a Hugging Face directory.
"""
