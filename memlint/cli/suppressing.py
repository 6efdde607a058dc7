"""`memlint check --add-noqa`: writes the comments."""

from __future__ import annotations

from dataclasses import replace

from memlint.adoption.suppressing import with_suppressions
from memlint.cli.run import Job
from memlint.linting.finding import FileResult
from memlint.linting.lint import lint, read_source
from memlint.source.file import write_atomically


def suppress(job: Job, result: FileResult, reason: str) -> FileResult:
    """Suppress a file's findings, and return those that are left.

    Nothing is written where a comment would bring up something new.
    """
    if not result.findings or job.content is not None:
        return result
    raw = job.path.read_bytes()
    source = read_source(job.shown, raw)
    if not source.editable:
        return result
    content = source.encode(with_suppressions(source, result.findings, reason))
    after = lint(job.shown, content, job.policy)
    if content == raw or len(after.findings) >= len(result.findings):
        return result
    try:
        write_atomically(job.path, content)
    except OSError as error:
        return replace(result, findings=(), trouble=f"cannot be written: {error.strerror or error}")
    return after
