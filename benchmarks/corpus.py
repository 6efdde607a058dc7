"""The corpus: pinned packages with much torch code, downloaded from PyPI and never committed.

    python benchmarks/corpus.py download DIR    fetch and unpack each package of corpus.toml to DIR/<name>-<version>
    python benchmarks/corpus.py count DIR       files and lines of Python per package, as a Markdown table

Nothing is installed. pip fetches the archives (for a source distribution it also runs the package's metadata
step, in a build environment of its own).
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PACKAGE_LIST = Path(__file__).with_name("corpus.toml")
DOWNLOAD_TIMEOUT_SECONDS = 300


@dataclass(frozen=True)
class Package:
    name: str
    version: str
    kind: str
    """`sdist` or `wheel`."""

    @property
    def folder_name(self) -> str:
        return f"{self.name}-{self.version}"


class DownloadError(Exception):
    """pip gave no archive for a package; the message holds the end of what pip said."""


def packages() -> list[Package]:
    """The packages of corpus.toml, in its order."""
    with PACKAGE_LIST.open("rb") as stream:
        return [Package(**entry) for entry in tomllib.load(stream)["package"]]


def python_files(folder: Path) -> list[Path]:
    """Every .py file below the folder, sorted."""
    return sorted(path for path in folder.rglob("*.py") if path.is_file())


def present(folder: Path) -> Iterator[tuple[Package, list[Path]]]:
    """Each package that lies in the folder, with its Python files."""
    for package in packages():
        if (folder / package.folder_name).is_dir():
            yield package, python_files(folder / package.folder_name)


def download(package: Package, folder: Path) -> None:
    """Fetch the package and unpack it below the folder.

    Raises:
        DownloadError: pip could not fetch it.
    """
    target = folder / package.folder_name
    if target.is_dir():
        return
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        archive = _fetch(package, Path(scratch))
        unpacked = Path(scratch) / "unpacked"
        _unpack(archive, unpacked)
        entries = list(unpacked.iterdir())
        root = entries[0] if package.kind == "sdist" and len(entries) == 1 else unpacked
        shutil.move(root, target)


def _fetch(package: Package, folder: Path) -> Path:
    # Only the package itself from source: the requirements of its metadata step may come as wheels.
    kind_option = f"--no-binary={package.name}" if package.kind == "sdist" else "--only-binary=:all:"
    command = [
        *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--ignore-requires-python"),
        *(kind_option, "--dest", str(folder), f"{package.name}=={package.version}"),
    ]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        raise DownloadError(f"pip took more than {DOWNLOAD_TIMEOUT_SECONDS} s") from None
    archives = [path for path in folder.iterdir() if path.suffix in (".gz", ".whl", ".zip")]
    if done.returncode != 0 or len(archives) != 1:
        raise DownloadError("\n".join(done.stderr.splitlines()[-5:]))
    return archives[0]


def _unpack(archive: Path, target: Path) -> None:
    target.mkdir()
    if archive.suffix in (".whl", ".zip"):
        with zipfile.ZipFile(archive) as opened_zip:
            opened_zip.extractall(target)
        return
    with tarfile.open(archive) as opened_tar:
        opened_tar.extractall(target, filter="data")


def count_lines(paths: list[Path]) -> int:
    return sum(path.read_bytes().count(b"\n") for path in paths)


def print_table(folder: Path) -> None:
    """The packages in the folder as the Markdown table of corpus.md."""
    print("| package | version | archive | files | lines |")
    print("|---|---|---|---:|---:|")
    total_files = total_lines = 0
    for package, paths in present(folder):
        lines = count_lines(paths)
        total_files += len(paths)
        total_lines += lines
        print(f"| {package.name} | {package.version} | {package.kind} | {len(paths):,} | {lines:,} |")
    print(f"| **all** | | | {total_files:,} | {total_lines:,} |")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["download", "count"])
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--only", nargs="*", default=None, metavar="NAME", help="download just these packages")
    options = parser.parse_args()
    if options.action == "count":
        print_table(options.folder)
        return 0
    options.folder.mkdir(parents=True, exist_ok=True)
    failed = 0
    for package in packages():
        if options.only is not None and package.name not in options.only:
            continue
        try:
            download(package, options.folder)
        except DownloadError as error:
            failed += 1
            print(f"{package.folder_name}: not downloaded: {error}", file=sys.stderr, flush=True)
            continue
        print(package.folder_name, flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
