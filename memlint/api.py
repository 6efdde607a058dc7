"""The public interface of rules: what a rule of a plugin, or of a project, imports. docs/custom-rules.md explains it.

What is here and documented there changes only together with `API_VERSION`; all else in memlint may change at any time.
"""

from memlint.linting.custom import API_VERSION
from memlint.linting.edits import (
    AddArgument,
    AddDecorator,
    AddImport,
    InsertAfter,
    InsertBefore,
    KeepOnly,
    RemoveArgument,
    RemoveStatement,
    Replace,
    WrapStatements,
)
from memlint.linting.finding import Confidence, Cost, CostClass
from memlint.linting.rule import Draft, FixDraft, Rule, display_fix, safe_fix, unsafe_fix
from memlint.semantics.module import Module

__all__ = [
    "API_VERSION",
    "AddArgument",
    "AddDecorator",
    "AddImport",
    "Confidence",
    "Cost",
    "CostClass",
    "Draft",
    "FixDraft",
    "InsertAfter",
    "InsertBefore",
    "KeepOnly",
    "Module",
    "RemoveArgument",
    "RemoveStatement",
    "Replace",
    "Rule",
    "WrapStatements",
    "display_fix",
    "safe_fix",
    "unsafe_fix",
]
