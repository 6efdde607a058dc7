"""The project around a file, read as text: which files, which names, who calls whom.

Everything here rests on Python's own parser, which is some fifteen times as fast as LibCST's: what other files are
asked for is little, and it is asked of many files.
"""
