"""YAML without surprises, for config files and command-line values.

YAML 1.1, which PyYAML reads, takes `010` for 8, `1:30.5` for 90.5, `no` for false, `2024-01-01` for a date, and of a
repeated key the last value. Here numbers are decimal, and what is repeated, tagged or refers to something is refused.
"""

import re
from typing import Any, ClassVar

import yaml
from yaml.composer import ComposerError
from yaml.constructor import ConstructorError

MOST_DIGITS = 40  # of a whole number: longer ones are a slip, and slow to convert


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the few plain types of YAML 1.2, and nothing that makes a short text mean much."""

    yaml_implicit_resolvers: ClassVar[dict] = {}

    def compose_node(self, parent, index):
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise ComposerError(None, None, "anchors (&) and aliases (*) are not read", event.start_mark)
        if getattr(event, "tag", None) is not None:
            raise ComposerError(None, None, f"tags ({event.tag}) are not read", event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        names = [self.construct_object(name, deep=True) for name, _ in node.value]
        for place, name in enumerate(names):
            if name in names[:place]:
                mark = node.value[place][0].start_mark
                raise ConstructorError(None, None, f"{name} stands there twice", mark)
        return super().construct_mapping(node, deep)

    def construct_integer(self, node) -> int:
        if len(node.value) > MOST_DIGITS:
            raise ConstructorError(None, None, f"a whole number of {len(node.value)} digits", node.start_mark)
        return int(node.value)

    def construct_decimal(self, node) -> float:
        return float(node.value.replace(".inf", "inf").replace(".nan", "nan"))


_TYPES = {  # YAML 1.2, section 10.3.2
    "null": (r"null|~|", "n~", yaml.SafeLoader.construct_yaml_null),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF", yaml.SafeLoader.construct_yaml_bool),
    "int": (r"[-+]?[0-9]+", "-+0123456789", _Loader.construct_integer),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.inf|\.nan",
        "-+.0123456789",
        _Loader.construct_decimal,
    ),
}
for _name, (_pattern, _first, _construct) in _TYPES.items():
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(rf"(?:{_pattern})\Z"), list(_first))
    _Loader.add_constructor(f"tag:yaml.org,2002:{_name}", _construct)
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"\Z"), [""])


def parse_yaml(text: str) -> Any:
    """Return what a YAML text says.

    Raises:
        ValueError: it is no such YAML; the message is one line.
    """
    try:
        return yaml.load(text, _Loader)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (yaml.YAMLError, TypeError) as error:  # TypeError: a list as a key
        raise ValueError(" ".join(str(error).split())) from None
