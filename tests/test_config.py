"""Configuration files: where they are found, what they may say, and which rules are on in the end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from memlint.config.errors import ConfigError
from memlint.config.load import SettingsResolver
from memlint.config.options import Options, OutputFormat
from memlint.config.selectors import RuleSelector
from memlint.config.settings import DEFAULT_EXCLUDE, Settings
from memlint.config.target import lowest_torch
from memlint.linting.finding import Confidence


@dataclass(frozen=True)
class FakeRule:
    code: str
    name: str
    family: str
    on_by_default: bool = True


RULES = (
    FakeRule("MEM001", "syntax-error", "memlint"),
    FakeRule("MEM003", "unused-suppression", "memlint"),
    FakeRule("MEM101", "loss-accumulates-graph", "graph_retention"),
    FakeRule("MEM102", "container-keeps-graph", "graph_retention"),
    FakeRule("MEM201", "eval-without-no-grad", "grad_mode"),
    FakeRule("MEM901", "only-a-hint", "hints", on_by_default=False),
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, which is also the current one, with a mark that keeps searches from going further up."""
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(file: Path, text: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, "utf-8")
    return file


def settings(folder: Path, overrides: Options | None = None) -> Settings:
    return SettingsResolver(overrides or Options("the command line")).for_folder(folder)


def rules_on(folder: Path, *, file: str = "train.py", overrides: Options | None = None) -> set[str]:
    """The codes that are on for a file, but for the ones that always are."""
    return set(RuleSelector(RULES).codes_for(settings(folder, overrides), folder / file)) - {"MEM001"}


def error(folder: Path, overrides: Options | None = None) -> str:
    """The message that using the folder's configuration ends with."""
    with pytest.raises(ConfigError) as caught:
        rules_on(folder, overrides=overrides)
    return str(caught.value)


# --- finding the file ---


def test_without_a_file_the_defaults_hold(project: Path) -> None:
    found = settings(project)
    assert found.confidence is Confidence.MEDIUM
    assert found.output_format is OutputFormat.TEXT
    assert found.exclude.globs == DEFAULT_EXCLUDE
    assert found.timeout_per_file == 10.0
    assert found.target_torch is None
    assert found.root == project
    assert found.files == ()


def test_every_option_can_be_set_in_pyproject(project: Path) -> None:
    write(
        project / "pyproject.toml",
        """
        [tool.memlint]
        select = ["MEM1"]
        ignore = ["MEM102"]
        extend-select = ["grad-mode"]
        per-file-ignores = { "tests/**" = ["MEM201"] }
        exclude = ["old"]
        extend-exclude = ["gen/*.py"]
        force-exclude = true
        confidence = "high"
        output-format = "github"
        target-torch = "1.13"
        timeout-per-file = 2.5
        """,
    )
    found = settings(project)
    assert found.exclude.globs == ("old",)
    assert [patterns.globs for patterns in found.extend_exclude] == [("gen/*.py",)]
    assert found.force_exclude
    assert found.confidence is Confidence.HIGH
    assert found.output_format is OutputFormat.GITHUB
    assert found.target_torch == (1, 13)
    assert found.timeout_per_file == 2.5
    assert rules_on(project) == {"MEM101", "MEM201"}
    assert rules_on(project, file="tests/test_a.py") == {"MEM101"}


def test_memlint_toml_has_the_same_keys_at_its_top(project: Path) -> None:
    write(project / "memlint.toml", 'confidence = "low"\n')
    assert settings(project).confidence is Confidence.LOW


def test_the_nearest_file_wins_and_nothing_of_the_others_is_left(project: Path) -> None:
    write(project / "memlint.toml", 'confidence = "low"\nforce-exclude = true\n')
    write(project / "sub" / "pyproject.toml", '[tool.memlint]\nconfidence = "high"\n')
    resolver = SettingsResolver(Options("the command line"))
    assert resolver.for_folder(project / "other").confidence is Confidence.LOW
    inner = resolver.for_folder(project / "sub" / "deeper")
    assert inner.confidence is Confidence.HIGH
    assert not inner.force_exclude
    assert inner.root == project / "sub"


def test_a_pyproject_without_the_table_does_not_count(project: Path) -> None:
    write(project / "memlint.toml", 'confidence = "low"\n')
    write(project / "sub" / "pyproject.toml", '[project]\nname = "memlint-user"\n')
    assert settings(project / "sub").confidence is Confidence.LOW


def test_a_broken_pyproject_that_never_mentions_memlint_is_not_our_business(project: Path) -> None:
    write(project / "pyproject.toml", "this is = = not TOML")
    assert settings(project).files == ()


def test_memlint_toml_goes_before_pyproject_in_the_same_folder(project: Path) -> None:
    write(project / "memlint.toml", 'confidence = "low"\n')
    write(project / "pyproject.toml", '[tool.memlint]\nconfidence = "high"\n')
    assert settings(project).confidence is Confidence.LOW


def test_the_command_line_overrides_the_file(project: Path) -> None:
    write(project / "memlint.toml", 'confidence = "low"\nexclude = ["a"]\nextend-exclude = ["b"]\n')
    found = settings(project, Options("the command line", confidence=Confidence.HIGH, extend_exclude=("c",)))
    assert found.confidence is Confidence.HIGH
    assert found.origins["confidence"] == "the command line"
    assert found.exclude.globs == ("a",)
    assert [patterns.globs for patterns in found.extend_exclude] == [("b",), ("c",)]


# --- extend ---


def test_extend_builds_on_another_file(project: Path) -> None:
    write(project / "base.toml", 'confidence = "low"\nselect = ["MEM1"]\nper-file-ignores = {"a.py" = ["MEM101"]}\n')
    write(project / "sub" / "memlint.toml", 'extend = "../base.toml"\nextend-select = ["MEM201"]\n')
    found = settings(project / "sub")
    assert found.confidence is Confidence.LOW
    assert found.files == (project / "sub" / "memlint.toml", project / "base.toml")
    assert rules_on(project / "sub") == {"MEM101", "MEM102", "MEM201"}
    # Patterns are relative to the folder of the file that extends.
    assert rules_on(project / "sub", file="a.py") == {"MEM102", "MEM201"}


def test_extend_in_a_circle_is_an_error_that_shows_the_circle(project: Path) -> None:
    write(project / "memlint.toml", 'extend = "b.toml"\n')
    write(project / "b.toml", 'extend = "memlint.toml"\n')
    assert error(project) == 'b.toml: "extend" goes round in a circle: memlint.toml -> b.toml -> memlint.toml'


def test_extending_a_file_that_is_not_there(project: Path) -> None:
    write(project / "memlint.toml", 'extend = "../base.toml"\n')
    message = error(project)
    assert message.startswith('memlint.toml: "extend" names ')
    assert message.endswith("base.toml, which is not a file")


def test_extending_a_pyproject_without_the_table(project: Path) -> None:
    write(project / "pyproject.toml", "[project]\n")
    write(project / "sub" / "memlint.toml", 'extend = "../pyproject.toml"\n')
    assert error(project / "sub") == "sub/memlint.toml: pyproject.toml has no [tool.memlint] table"


# --- errors ---


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('selct = ["MEM1"]', 'there is no option "selct"; did you mean "select"?'),
        ("extend_select = []", 'there is no option "extend_select"; did you mean "extend-select"?'),
        ('select = "MEM1"', '"select" must be a list of strings, not the string "MEM1"'),
        ("ignore = [1]", '"ignore" must be a list of strings; it holds the number 1'),
        ('force-exclude = "yes"', '"force-exclude" must be true or false, not the string "yes"'),
        (
            'confidence = "hi"',
            '"confidence" must be "high" or "medium" or "low", not the string "hi"',
        ),
        (
            'output-format = "jsn"',
            (
                '"output-format" must be "text" or "concise" or "json" or "json-lines" or "github" or "gitlab" or '
                '"azure" or "junit" or "rdjson" or "sarif", not the string "jsn"; '
                'did you mean "json"?'
            ),
        ),
        ("target-torch = 2.1", '"target-torch" must be a version in quotes such as "2.1", not the number 2.1'),
        ('target-torch = "two"', '"target-torch" must be a version such as "2.1", not "two"'),
        ("timeout-per-file = true", '"timeout-per-file" must be a number of seconds, not true'),
        ("timeout-per-file = 0", '"timeout-per-file" must be more than 0 seconds, not 0'),
        (
            "per-file-ignores = []",
            '"per-file-ignores" must be a table such as {"tests/**" = ["MEM101"]}, not a list',
        ),
        (
            'per-file-ignores = {"a.py" = "MEM1"}',
            '"per-file-ignores."a.py"" must be a list of strings, not the string "MEM1"',
        ),
        ("extend = 3", '"extend" must be a path such as "../base.toml", not the number 3'),
    ],
)
def test_an_unusable_option_is_named_with_its_file_and_what_is_wanted(project: Path, line: str, message: str) -> None:
    write(project / "pyproject.toml", f"[tool.memlint]\n{line}\n")
    assert error(project) == f"pyproject.toml [tool.memlint]: {message}"


def test_an_unknown_key_that_resembles_none_gets_the_list(project: Path) -> None:
    write(project / "memlint.toml", "zzz = 1\n")
    assert error(project).startswith('memlint.toml: there is no option "zzz"; there are: select, ignore,')


def test_toml_that_does_not_parse_is_named_with_its_line(project: Path) -> None:
    write(project / "memlint.toml", "confidence = \n")
    message = error(project)
    assert message.startswith("memlint.toml: not valid TOML: ")
    assert "line 1" in message


def test_toml_in_another_encoding(project: Path) -> None:
    (project / "memlint.toml").write_bytes(b'# caf\xe9\nconfidence = "low"\n')
    assert error(project) == "memlint.toml: not valid TOML: it is not UTF-8 (byte 5)"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('select = ["MEM111"]', '"MEM111" in `select` names no rule; did you mean "MEM101"?'),
        (
            'ignore = ["loss-accumulate-graph"]',
            '"loss-accumulate-graph" in `ignore` names no rule; did you mean "loss-accumulates-graph"?',
        ),
        (
            'per-file-ignores = {"a.py" = ["grad-modes"]}',
            '"grad-modes" in `per-file-ignores."a.py"` names no rule; did you mean "grad-mode"?',
        ),
        (
            'ignore = ["syntax-error"]',
            (
                '"syntax-error" in `ignore` cannot be turned off: it says that a file could not be checked. '
                "To leave the file out, name it in `exclude`"
            ),
        ),
    ],
)
def test_a_selector_that_names_no_rule(project: Path, line: str, message: str) -> None:
    write(project / "memlint.toml", f"{line}\n")
    assert error(project) == f"memlint.toml: {message}"


# --- which rules are on ---


DEFAULT_ON = {"MEM003", "MEM101", "MEM102", "MEM201"}


def chosen(
    project: Path,
    *,
    select: tuple[str, ...] | None = None,
    ignore: tuple[str, ...] = (),
    extend_select: tuple[str, ...] = (),
) -> set[str]:
    overrides = Options("the command line", select=select, ignore=ignore, extend_select=extend_select)
    return rules_on(project, overrides=overrides)


def test_by_default_the_rules_that_are_on_by_default(project: Path) -> None:
    assert chosen(project) == DEFAULT_ON


@pytest.mark.parametrize(
    ("selector", "codes"),
    [
        ("MEM101", {"MEM101"}),
        ("MEM1", {"MEM101", "MEM102"}),
        ("MEM10", {"MEM101", "MEM102"}),
        ("loss-accumulates-graph", {"MEM101"}),
        ("graph-retention", {"MEM101", "MEM102"}),
        ("MEM", DEFAULT_ON | {"MEM901"}),
        ("ALL", DEFAULT_ON | {"MEM901"}),
    ],
)
def test_a_selector_is_a_code_its_beginning_a_name_a_family_or_all(
    project: Path, selector: str, codes: set[str]
) -> None:
    assert chosen(project, select=(selector,)) == codes


def test_of_select_and_ignore_the_more_specific_selector_wins(project: Path) -> None:
    assert chosen(project, select=("MEM101",), ignore=("MEM1",)) == {"MEM101"}
    assert chosen(project, select=("MEM1",), ignore=("container-keeps-graph",)) == {"MEM101"}
    assert chosen(project, select=("ALL",), ignore=("graph-retention",)) == {"MEM003", "MEM201", "MEM901"}


def test_of_equally_specific_ones_ignore_wins(project: Path) -> None:
    assert chosen(project, select=("MEM101", "MEM201"), ignore=("loss-accumulates-graph",)) == {"MEM201"}
    assert chosen(project, select=("MEM1", "MEM2"), ignore=("graph-retention",)) == {"MEM201"}


def test_extend_select_adds_to_the_defaults(project: Path) -> None:
    assert chosen(project, extend_select=("only-a-hint",)) == DEFAULT_ON | {"MEM901"}


def test_ignore_on_the_command_line_adds_to_that_of_the_file(project: Path) -> None:
    write(project / "memlint.toml", 'ignore = ["MEM101"]\n')
    assert chosen(project, ignore=("MEM102",)) == {"MEM003", "MEM201"}


def test_select_on_the_command_line_starts_afresh(project: Path) -> None:
    write(project / "memlint.toml", 'select = ["MEM2"]\nignore = ["MEM101"]\n')
    assert chosen(project, select=("MEM1",)) == {"MEM101", "MEM102"}


def test_the_findings_that_say_a_file_was_not_checked_are_always_on(project: Path) -> None:
    overrides = Options("the command line", select=("MEM101",), ignore=("ALL", "MEM0"))
    assert "MEM001" in RuleSelector(RULES).codes_for(settings(project, overrides), project / "a.py")


@pytest.mark.parametrize(
    ("glob", "file", "is_ignored"),
    [
        ("tests/**", "tests/deep/test_a.py", True),
        ("tests/*", "tests/test_a.py", True),
        ("tests/", "tests/deep/test_a.py", True),
        ("conftest.py", "anywhere/conftest.py", True),
        ("./src/*.py", "src/a.py", True),
        ("src/*.py", "src/deep/a.py", False),
        ("/a.py", "deep/a.py", False),
        ("tests/**", "src/tests.py", False),
    ],
)
def test_per_file_ignores_match_from_the_project_root(project: Path, glob: str, file: str, is_ignored: bool) -> None:
    write(project / "memlint.toml", f'select = ["MEM1"]\nper-file-ignores = {{"{glob}" = ["MEM101"]}}\n')
    assert rules_on(project, file=file) == ({"MEM102"} if is_ignored else {"MEM101", "MEM102"})


def test_each_decision_has_a_reason(project: Path) -> None:
    write(project / "memlint.toml", 'ignore = ["grad-mode"]\nper-file-ignores = {"a.py" = ["MEM101"]}\n')
    selector, found = RuleSelector(RULES), settings(project)
    decisions = selector.decide_for_file(selector.decide(found), found, project / "a.py")
    assert {code: decision.reason for code, decision in decisions.items()} == {
        "MEM001": "always on",
        "MEM003": "on by default",
        "MEM101": 'per-file-ignores of "a.py" in memlint.toml',
        "MEM102": "on by default",
        "MEM201": 'ignore "grad-mode" of memlint.toml',
        "MEM901": "off by default",
    }


# --- the torch to aim at ---


@pytest.mark.parametrize(
    ("requirement", "version"),
    [
        ("torch>=1.13", (1, 13)),
        ("torch >= 2.0.1, < 3", (2, 0)),
        ("torch<3,>=2.1", (2, 1)),
        ("torch==2.1.*", (2, 1)),
        ("torch~=2.2", (2, 2)),
        ("torch>2", (2, 0)),
        ("torch (>=1.10)", (1, 10)),
        ("torch[opt-einsum]>=2.3; python_version < '3.12'", (2, 3)),
        ("Torch>=2.4  # the GPU one", (2, 4)),
        ("torch==2.1.0+cu118", (2, 1)),
        ("torch", None),
        ("torch<2", None),
        ("torch!=1.9", None),
        ("torch @ https://example.com/torch-2.0.whl", None),
        ("torchvision>=0.15", None),
        ("torch-geometric>=2.0", None),
        ("pytorch-lightning>=2.0", None),
    ],
)
def test_the_lower_bound_of_a_requirement(requirement: str, version: tuple[int, int] | None) -> None:
    assert lowest_torch(requirement) == version


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("pyproject.toml", '[project]\ndependencies = ["numpy", "torch>=2.1"]\n'),
        ("pyproject.toml", '[project.optional-dependencies]\ngpu = ["torch>=2.1"]\n'),
        ("pyproject.toml", '[tool.poetry.dependencies]\ntorch = "^2.1"\n'),
        ("pyproject.toml", '[tool.poetry.group.gpu.dependencies]\ntorch = {version = "2.1.0", optional = true}\n'),
        ("setup.cfg", "[options]\ninstall_requires =\n    numpy\n    torch>=2.1\n"),
        ("setup.cfg", "[options.extras_require]\ngpu =\n    torch~=2.1\n"),
        ("requirements.txt", "--extra-index-url https://example.com\nnumpy\ntorch==2.1.0+cu118\n"),
        ("requirements-train.txt", "torch>=2.1 # newest\n"),
    ],
)
def test_the_target_is_read_from_what_the_project_depends_on(project: Path, name: str, text: str) -> None:
    write(project / name, text)
    target = SettingsResolver(Options("the command line")).target_for(project / "src" / "deep")
    assert target.version == (2, 1)
    assert target.origin.startswith(name)


def test_of_several_requirements_the_lowest_counts(project: Path) -> None:
    write(project / "requirements.txt", "torch>=2.2; python_version>='3.12'\ntorch>=1.13; python_version<'3.12'\n")
    assert SettingsResolver(Options("the command line")).target_for(project).version == (1, 13)


def test_the_configured_target_goes_before_the_declared_one(project: Path) -> None:
    write(project / "requirements.txt", "torch>=2.2\n")
    write(project / "memlint.toml", 'target-torch = "2.0"\n')
    assert SettingsResolver(Options("the command line")).target_for(project).version == (2, 0)


def test_no_declaration_means_the_current_torch(project: Path) -> None:
    write(project / "setup.cfg", "no section, so no configuration")
    write(project / "pyproject.toml", "not = = TOML")
    assert SettingsResolver(Options("the command line")).target_for(project).version is None


def test_the_search_for_dependencies_ends_at_the_project(project: Path) -> None:
    write(project / "requirements.txt", "torch>=2.2\n")
    write(project / "vendored" / "pyproject.toml", '[project]\nname = "vendored"\n')
    assert SettingsResolver(Options("the command line")).target_for(project / "vendored").version is None
