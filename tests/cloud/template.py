"""The stack's template, read: CloudFormation's short forms become mappings."""

from pathlib import Path
from typing import Any

import yaml

TEMPLATE = Path(__file__).parents[2] / "cloud" / "template.yaml"


class Loader(yaml.SafeLoader):
    """Reads CloudFormation's short forms: `!Sub x` becomes {"Sub": x}."""


def short_form(loader: Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        return {suffix: loader.construct_scalar(node)}
    if isinstance(node, yaml.SequenceNode):
        return {suffix: loader.construct_sequence(node, deep=True)}
    assert isinstance(node, yaml.MappingNode)
    return {suffix: loader.construct_mapping(node, deep=True)}


Loader.add_multi_constructor("!", short_form)
STACK: dict[str, Any] = yaml.load(TEMPLATE.read_text(), Loader)  # noqa: S506 - a SafeLoader
RESOURCES: dict[str, dict[str, Any]] = STACK["Resources"]


def of_type(kind: str) -> dict[str, dict[str, Any]]:
    return {name: body["Properties"] for name, body in RESOURCES.items() if body["Type"] == kind}
