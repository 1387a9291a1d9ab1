"""Checks the user's own YAML, from `--config-dir`. A mistake is told with the file's name and the line."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import yaml
from hydra._internal.config_repository import ConfigRepository
from hydra.core.object_type import ObjectType
from hydra.plugins.config_source import ConfigResult, ConfigSource
from omegaconf._utils import get_yaml_loader

from gan_runner.errors import UserError
from gan_runner.overrides import TEXT_KEYS
from gan_runner.paths import CONF

# Choices in these groups change keys of the whole configuration, which Hydra does where their first line says so.
GLOBAL = ("experiment", "hparams_search")
HEADER = "# @package _global_"
DEEPEST = 20  # an alias can lead back to where it stands
PARAMS = "hydra.sweeper.params."  # below it keys are written whole


class CheckedRepository(ConfigRepository):
    """The files from which Hydra composes, of which it reads none before it is checked."""

    newest: ClassVar[str] = ""  # the path of the file that was read last, by whichever copy of this

    def load_config(self, config_path: str) -> ConfigResult | None:
        """As Hydra's; raises `UserError` for a file of the user's own that is wrong."""
        CheckedRepository.newest = config_path
        source = self._find_object_source(config_path, ObjectType.CONFIG)
        if source is not None and source.scheme() == "file" and source.path != str(CONF):
            file = Path(source.path, f"{config_path.removesuffix('.yaml')}.yaml")
            refuse_bad_yaml(file, config_path.rpartition("/")[0])
        return super().load_config(config_path)


def refuse_bad_yaml(file: Path, group: str) -> None:
    """Raises `UserError` if `file`, a choice of `group`, is no YAML of keys and values or would be misread."""
    text = _read(file)
    try:
        root = yaml.compose(text, get_yaml_loader())
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark is not None else ""
        raise UserError(f"{file}{line}: {_in_plain_words(error)}") from error
    except (yaml.YAMLError, ValueError) as error:  # characters that YAML forbids, a date that is none
        raise UserError(f"{file}: {' '.join(str(error).split())}") from error
    if root is None:
        raise UserError(f"{file}: is empty; allowed: keys and values, or {{}} for none")
    if not isinstance(root, yaml.MappingNode):
        raise UserError(f"{file}, line {root.start_mark.line + 1}: is no `key: value`; is a colon missing?")
    is_global = _package(text, file) == "_global_"
    if group.partition("/")[0] in GLOBAL and not is_global:
        raise UserError(f"{file}, line 1: must be `{HEADER}`; without it, what follows is no part of the configuration")
    sections = {folder.name for folder in CONF.iterdir() if folder.is_dir()} if is_global else set()
    seen = set[str]()
    for key, name, value in _pairs(root, "" if is_global else group.replace("/", ".")):
        here = f"{file}, line {name.start_mark.line + 1}"
        section, dot, inner = str(name.value).partition(".")
        if dot and (name, value) in root.value:
            raise UserError(f"{here}: found {name.value}; in YAML, {inner} is indented below `{section}:`")
        if key in sections and isinstance(value, yaml.ScalarNode) and not _stands_for_keys(value.value):
            raise UserError(
                f"{here}: found {key}: {value.value}, but {key} has keys of its own; is a colon missing, or did you "
                f"mean `defaults: [override /{key}: …, _self_]`?"
            )
        if key in seen:
            raise UserError(f"{here}: {key} is there twice")
        seen.add(key)
        text_key = key.removeprefix(PARAMS)
        if text_key in TEXT_KEYS and value.tag.endswith((":int", ":float", ":bool")):
            raise UserError(
                f"{here}: {text_key} is a text, and {value.value} is none in YAML; write it in quotes: "
                f'{name.value}: "{value.value}"'
            )


def _stands_for_keys(text: str) -> bool:
    """Whether what stands in place of keys is none, or is taken from elsewhere."""
    return text in ("", "~", "null") or text.startswith("${")


def _read(file: Path) -> str:
    try:
        content = file.read_bytes()
        text = content.decode()
    except OSError as error:
        raise UserError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(f"{file}, line {line}: is not in UTF-8; save the file in UTF-8") from error
    if text.startswith("\ufeff"):
        raise UserError(f"{file}, line 1: begins with a byte-order mark; save the file in UTF-8 without one")
    return text


def _package(text: str, file: Path) -> str | None:
    """Where in the configuration the keys go, as Hydra understands the first lines; None for where the group is."""
    try:
        package: str | None = ConfigSource._get_header_dict(text)["package"]
    except ValueError as error:
        raise UserError(f"{file}, line 1: {error}") from error
    return package


def _in_plain_words(error: yaml.MarkedYAMLError) -> str:
    """What is wrong, for somebody who knows YAML by sight."""
    problem = error.problem or "is no YAML"
    if "\\t" in problem:
        return "has a tab; YAML is indented with spaces"
    if "expected ':'" in problem:
        return "is no `key: value`; is a colon missing?"
    return f"{error.context}, {problem}" if error.context else problem


def _pairs(node: yaml.MappingNode, prefix: str, depth: int = 0) -> Iterator[tuple[str, yaml.ScalarNode, yaml.Node]]:
    """Every key in `node`, at any depth: as a whole, as it stands there, and its value."""
    for name, value in node.value:
        if isinstance(name, yaml.ScalarNode):
            path = f"{prefix}.{name.value}" if prefix else str(name.value)
            yield path, name, value
            if isinstance(value, yaml.MappingNode) and depth < DEEPEST:
                yield from _pairs(value, path, depth + 1)
