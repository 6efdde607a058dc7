"""What earlier runs found, and for how long it holds.

The store lies in the project, where anybody who writes to the project can write: it is read as data (JSON), never as
objects that could run code.
"""
