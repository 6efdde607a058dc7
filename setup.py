"""`rules/` lies at the top of the repository and is installed as `memlint.rules`. All else is in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["memlint", "memlint.*"]),
        "memlint.rules",
        *(f"memlint.rules.{family}" for family in find_packages("rules")),
    ],
    package_dir={"memlint.rules": "rules"},
)
