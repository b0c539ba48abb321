"""Mappings: a YAML file that says how somebody's messages become our orders and clicks, compiled to Python once.

    version: 1
    orders:
      when: {event: [Order Completed, Order Cancelled]}     # other messages are ignored, and counted
      fields:
        order_id: properties.order_id                       # a path
        user_id: {first: [userId, anonymousId]}
        order_status: {enum: event, values: {Order Completed: CREATED, Order Cancelled: CANCELLED}}
        currency: {upper: properties.currency}
        total_amount_minor: {money: properties.total}
        event_time: {time: timestamp}
        items: {each: properties.products, fields: {product_id: product_id, quantity: quantity}}

docs/mapping.md has every form. A message becomes one record, is ignored, or is refused with all that is wrong with it.

Long, as the expressions, their compiler and their errors are one language.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from collections.abc import Mapping as AnyMapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final, NamedTuple, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
import yaml

from schemas import mapped_values as values
from schemas.events import ClickstreamEvent, EventType, OrderEvent, OrderItem, OrderStatus

__all__ = [
    "ITEM",
    "RECORDS",
    "SHIPPED",
    "Compiled",
    "Envelope",
    "Mapping",
    "MappingError",
    "NotMappable",
    "not_an_object",
    "parse_mapping",
    "shipped",
]

SHIPPED: Final = ("ga4", "segment", "shopify", "snowplow", "woocommerce")
"""Mappings that the package has."""

# The last three are PyYAML's own on a tag that does not fit: `!!map [a]`, `!!bool x`, `!!timestamp x`.
_NOT_YAML = (yaml.YAMLError, RecursionError, ValueError, TypeError, LookupError, AttributeError)
_MAX_CHARS = 1 << 18
_MAX_DEPTH = 24
_MAX_ITEMS = 10_000
"""Of one order: what a hostile message can make us work."""


class MappingError(ValueError):
    """A mapping that cannot be used; the message names the place and the reason."""


class NotMappable(ValueError):
    """A message that should be a record and is none; it names all that is wrong."""


class Envelope(NamedTuple):
    """What a message has beside its fields: `$header.name`, `$key`, `$topic`, `$time`."""

    headers: AnyMapping[str, str] = {}
    key: str | None = None
    topic: str | None = None
    time_ms: int | None = None


class _Kind(NamedTuple):
    """How a field of ours is filled.

    Attributes:
      convert: text, whole, amount, time, flag or a tuple of what it may be.
      default: None: the field must be filled; a string of Python otherwise.
    """

    convert: Any
    default: str | None = None


_TEXT = _Kind("text", "''")
_MAYBE = _Kind("text", "None")
ITEM: Final = {
    "product_id": _Kind("text", "''"),
    "product_name": _TEXT,
    "category": _TEXT,
    "quantity": _Kind("whole", "1"),
    "unit_price_minor": _Kind("amount", "0"),
    "total_price_minor": _Kind("amount", "v_unit_price_minor * max(v_quantity, 0)"),
}
_ORDER: Final = {
    "order_id": _Kind("text"),
    "user_id": _Kind("text"),
    "session_id": _TEXT,
    "order_status": _Kind(get_args(OrderStatus)),
    "currency": _Kind("text"),
    "discount_minor": _Kind("amount", "0"),
    "shipping_minor": _Kind("amount", "0"),
    "total_amount_minor": _Kind("amount"),
    "subtotal_minor": _Kind("amount", "max(v_total_amount_minor + v_discount_minor - v_shipping_minor, 0)"),
    "payment_method": _TEXT,
    "shipping_region": _TEXT,
    "event_time": _Kind("time"),
    "is_first_order": _Kind("flag", "False"),
    "items": _Kind("items", "[]"),  # behind currency, by which their money is read
}
_CLICK: Final = {
    "event_id": _Kind("text"),
    "user_id": _Kind("text"),
    "session_id": _TEXT,
    "event_type": _Kind(get_args(EventType)),
    "product_id": _MAYBE,
    "category": _MAYBE,
    "currency": _MAYBE,
    "quantity": _Kind("whole", "None"),
    "price_minor": _Kind("amount", "None"),
    "event_time": _Kind("time"),
    "device_type": _TEXT,
    "geo_region": _TEXT,
    "page_url": _MAYBE,
    "referrer": _MAYBE,
}
RECORDS: Final[dict[str, tuple[type[msgspec.Struct], dict[str, _Kind]]]] = {
    "orders": (OrderEvent, _ORDER),
    "clicks": (ClickstreamEvent, _CLICK),
}
"""Section → what it makes, and how each field is filled; `ITEM` is that of an order's items."""
_SECTIONS: Final = {OrderEvent: "orders", ClickstreamEvent: "clicks"}

Compiled = Callable[[Any, Envelope], Any]


@dataclass(frozen=True)
class Mapping:
    """A validated mapping.

    Attributes:
      sections: orders, clicks or both → message and envelope to record, or None for one that is ignored; raises
        NotMappable.
      filled: of each section, the fields of ours that it says how to fill.
      source: the Python that was compiled.
    """

    sections: dict[str, Compiled]
    filled: dict[str, frozenset[str]]
    source: dict[str, str]

    @property
    def records(self) -> frozenset[type[msgspec.Struct]]:
        """What it makes."""
        return frozenset(RECORDS[section][0] for section in self.sections)

    def of(self, record: type[msgspec.Struct]) -> Compiled:
        """Raises: MappingError: it says nothing of such records."""
        section = _SECTIONS.get(record, record.__name__)
        if section not in self.sections:
            raise MappingError(f"it has no section {section}, which this job reads")
        return self.sections[section]


def shipped(name: str) -> str:
    """The text of a mapping that the package has."""
    return files("schemas").joinpath("mappings", f"{name}.yaml").read_text(encoding="utf-8")


class _StrictLoader(yaml.SafeLoader):
    """Of two keys of one name the later would win, and one field silently disappear."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if str(key.value) in seen:
                raise MappingError(f"line {key.start_mark.line + 1}: {key.value} is there twice")
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise MappingError(f"line {self.peek_event().start_mark.line + 1}: aliases are not read")  # type: ignore[no-untyped-call]
        return super().compose_node(parent, index)


def parse_mapping(text: str) -> Mapping:
    """Raises: MappingError, in one line, with the place."""
    if len(text) > _MAX_CHARS:
        raise MappingError(f"longer than {_MAX_CHARS} characters")
    try:
        document = yaml.load(text, _StrictLoader)  # noqa: S506 - derived from SafeLoader
    except MappingError:
        raise
    except _NOT_YAML as e:
        raise MappingError(f"not YAML: {' '.join(str(e).split())}") from e
    if not isinstance(document, dict):
        raise MappingError("a mapping with version and orders or clicks is needed")
    _only(document, {"version", "orders", "clicks", "blank", "about"}, "the file")
    if document.get("version") != 1:
        raise MappingError(f"version: {document.get('version')!r} is not known; this release reads version 1")
    blank = document.get("blank", [])
    if not isinstance(blank, list) or not all(isinstance(each, str) for each in blank):
        raise MappingError("blank: a list of texts that stand for nothing is needed")
    sections, filled, source = {}, {}, {}
    for name in RECORDS:
        if name in document:
            compiler = _Compiler(name, frozenset(["", *blank]))
            sections[name], source[name] = compiler.compile(document[name])
            filled[name] = frozenset(document[name]["fields"])
    if not sections:
        raise MappingError("orders or clicks is needed, or both")
    return Mapping(sections, filled, source)


def _only(fields: Any, known: set[str], where: str) -> None:
    unknown = sorted(str(key) for key in fields if key not in known)
    if unknown:
        raise MappingError(f"{where}: unknown {unknown[0]!r}; known are {', '.join(sorted(known))}")


_PATH_STEP = re.compile(r"(?P<name>[^.\[\]]+)?(?P<picked>(\[[^\]]*\])*)")
_EXPRESSIONS: Final = (
    "const",
    "enum",
    "first",
    "hash",
    "join",
    "lower",
    "minor",
    "money",
    "path",
    "prefix",
    "sum",
    "time",
    "upper",
)
_OPTIONS: Final = {
    "enum": {"values", "else"},
    "join": {"with"},
    "prefix": {"with"},
    "sum": {"minus"},
    "time": {"unit", "zone"},
}
_AMOUNTS: Final = ("money", "minor", "sum", "const", "first")


class _Compiler:
    """One section to the source of one function. What a user wrote gets into it as a constant's name or by `repr`."""

    def __init__(self, section: str, blank: frozenset[str]):
        self._section = section
        self._constants: dict[str, Any] = {name: getattr(values, name) for name in values.__all__}
        self._constants |= {"NotMappable": NotMappable, "BLANK": blank, "not_an_object": not_an_object}
        self._constants["filled"] = lambda value: None if type(value) is str and value in blank else value

    def compile(self, section: Any) -> tuple[Compiled, str]:
        where, (record, kinds) = self._section, RECORDS[self._section]
        if not isinstance(section, dict):
            raise MappingError(f"{where}: a mapping with fields is needed")
        _only(section, {"when", "unless", "fields"}, where)
        self._constants["Record"], self._constants["Item"] = record, OrderItem
        body = ["def mapped(r, m):", "  if type(r) is not dict: raise NotMappable(not_an_object(r))"]
        body += [f"  if not ({self._holds(section, where, 'r')}): return None", "  faults = []"]
        body += self._fields(section.get("fields"), kinds, f"{where}.fields", "r", "  ")
        body += ["  if faults: raise NotMappable('; '.join(faults))"]
        names = [f.name for f in msgspec.structs.fields(record)]
        body += [f"  return Record({', '.join(f'{n}=v_{n}' for n in names)})"]
        source = "\n".join(body) + "\n"
        namespace = dict(self._constants)
        try:
            exec(compile(source, f"<mapping {where}>", "exec"), namespace)  # noqa: S102 - of our own making
        except (SyntaxError, RecursionError, MemoryError) as e:
            raise MappingError(f"{where}: nested too deeply") from e
        return namespace["mapped"], source

    def _fields(self, fields: Any, kinds: dict[str, _Kind], where: str, root: str, indent: str) -> list[str]:
        if not isinstance(fields, dict) or not fields:
            raise MappingError(f"{where}: a mapping from our fields to yours is needed")
        _only(fields, set(kinds), where)
        missing = [name for name, kind in kinds.items() if kind.default is None and name not in fields]
        if missing:
            raise MappingError(f"{where}: {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} required")
        if "currency" not in fields and "currency" in kinds and any(self._in_money(each) for each in fields.values()):
            raise MappingError(f"{where}: currency is needed to read money in main units")
        lines = []
        for name, kind in kinds.items():
            place = f"{where}.{name}"
            if kind.convert == "items" and name in fields:
                lines += self._items(fields[name], place, indent)
                continue
            default = "None" if kind.default is None else kind.default
            if name not in fields:
                lines.append(
                    f"{indent}v_{name} = {default}" if "v_" not in default else self._guarded(name, default, indent)
                )
                continue
            lines += self._field(name, fields[name], kind, place, root, indent)
        return lines

    @staticmethod
    def _guarded(name: str, default: str, indent: str) -> str:
        """Of a default that is computed from other fields, which may have been refused."""
        return f"{indent}v_{name} = 0 if faults else {default}"

    def _field(self, name: str, expression: Any, kind: _Kind, place: str, root: str, indent: str) -> list[str]:
        if kind.convert == "amount" and not self._is_amount(expression):
            raise MappingError(f"{place}: say {{money: path}} of main units or {{minor: path}} of minor ones")
        if kind.convert == "time" and not (isinstance(expression, dict) and {"time", "first"} & expression.keys()):
            raise MappingError(f"{place}: say {{time: path}}")
        value = self._expression(expression, place, root, 0)
        match kind.convert:
            case "text" | "whole" | "flag":
                made = f"{kind.convert}(x)"
            case tuple():
                self._check_enum(expression, kind.convert, place)
                allowed = self._constant(frozenset(kind.convert))
                made = f"x if x in {allowed} else fail({', '.join(kind.convert)!r}, x)"
                self._constants["fail"] = _fail
            case _:
                made = "x"
        default, shown = kind.default, name if root == "r" else f"items.{name}"
        if default is None:
            missing = f"{name} is missing" + (
                ", or no word that the mapping knows" if "enum" in repr(expression) else ""
            )
            otherwise = [f"{indent}  if x is None: faults.append({missing!r}); v_{name} = {_zero(kind.convert)}"]
        elif "v_" in default:
            otherwise = [f"{indent}  if x is None: v_{name} = 0 if faults else {default}"]
        else:
            otherwise = [f"{indent}  if x is None: v_{name} = {default}"]
        return [
            f"{indent}try:",
            f"{indent}  x = {value}",
            *otherwise,
            f"{indent}  else: v_{name} = {made}",
            f"{indent}except Fault as e:",
            f"{indent}  faults.append(f'{shown}: {{e}}'); v_{name} = {_zero(kind.convert)}",
        ]

    def _items(self, expression: Any, place: str, indent: str) -> list[str]:
        if not isinstance(expression, dict) or "each" not in expression:
            raise MappingError(f"{place}: say {{each: path, fields: {{…}}}}")
        _only(expression, {"each", "fields", "when", "unless"}, place)
        inner = indent + "  "
        return [
            f"{indent}v_items, found = [], {self._expression(expression['each'], f'{place}.each', 'r', 0)}",
            f"{indent}if type(found) is list and len(found) > {_MAX_ITEMS}:",
            f"{inner}faults.append('items: more than {_MAX_ITEMS}')",
            f"{indent}elif found is not None and type(found) is not list: faults.append('items: not an array')",
            f"{indent}else:",
            f"{inner}for i in found or ():",
            f"{inner}  if type(i) is not dict: faults.append('items: one is not an object'); continue",
            f"{inner}  if not ({self._holds(expression, place, 'i')}): continue",
            *self._fields(expression.get("fields"), ITEM, f"{place}.fields", "i", inner + "  "),
            f"{inner}  if v_quantity == 0: continue",
            f"{inner}  v_items.append(Item({', '.join(f'{name}=v_{name}' for name in ITEM)}))",
        ]

    def _holds(self, section: dict[str, Any], where: str, root: str) -> str:
        """Python that is true where all of `when` and none of `unless` hold."""
        parts = ["True"]
        for word in ("when", "unless"):
            conditions = section.get(word, {})
            if not isinstance(conditions, dict):
                raise MappingError(
                    f"{where}.{word}: a mapping from path to value, values or {{exists: true}} is needed"
                )
            for path, wanted in conditions.items():
                one = self._condition(str(path), wanted, f"{where}.{word}.{path}", root)
                parts.append(one if word == "when" else f"not ({one})")
        return " and ".join(parts)

    def _condition(self, path: str, wanted: Any, place: str, root: str) -> str:
        value = self._path(path, place, root)
        if isinstance(wanted, dict):
            if wanted.keys() != {"exists"} or not isinstance(wanted["exists"], bool):
                raise MappingError(f"{place}: say a value, a list of values or {{exists: true}}")
            return f"filled({value}) is {'not ' if wanted['exists'] else ''}None"
        listed = wanted if isinstance(wanted, list) else [wanted]
        if not listed or not all(isinstance(each, str | int | float | bool) for each in listed):
            raise MappingError(f"{place}: say a value, a list of values or {{exists: true}}")
        return f"same({value}, {self._constant(frozenset((isinstance(each, bool), each) for each in listed))})"

    def _expression(self, expression: Any, place: str, root: str, depth: int) -> str:
        if depth > _MAX_DEPTH:
            raise MappingError(f"{place}: nested more than {_MAX_DEPTH} deep")
        if isinstance(expression, str):
            return f"filled({self._path(expression, place, root)})"
        if not isinstance(expression, dict):
            raise MappingError(f"{place}: a path or one of {', '.join(_EXPRESSIONS)} is needed, not {expression!r}")
        words = [word for word in _EXPRESSIONS if word in expression]
        if len(words) != 1:
            raise MappingError(f"{place}: exactly one of {', '.join(_EXPRESSIONS)} is needed")
        [word] = words
        _only(expression, {word, "when", "unless"} | _OPTIONS.get(word, set()), place)
        made = self._made(word, expression, f"{place}.{word}", root, depth)
        if "when" in expression or "unless" in expression:
            return f"({made} if {self._holds(expression, place, root)} else None)"
        return made

    def _made(self, word: str, expression: dict[str, Any], place: str, root: str, depth: int) -> str:
        given = expression[word]

        def one(inner: Any = given) -> str:
            return self._expression(inner, place, root, depth + 1)

        def several(inner: Any) -> list[str]:
            if not isinstance(inner, list) or not inner:
                raise MappingError(f"{place}: a list is needed")
            return [self._expression(each, f"{place}[{i}]", root, depth + 1) for i, each in enumerate(inner)]

        x = f"x{depth}"
        match word:
            case "const":
                if not isinstance(given, str | int | bool):
                    raise MappingError(f"{place}: a text, a whole number, true or false is needed")
                return self._constant(given)
            case "path":
                return one(given if isinstance(given, str) else self._bad_path(place))
            case "first":
                made = "None"
                for each in reversed(several(given)):
                    made = f"({x} if ({x} := {each}) is not None else {made})"
                return made
            case "enum":
                table = expression.get("values")
                if not isinstance(table, dict) or not table or not all(isinstance(v, str) for v in table.values()):
                    raise MappingError(f"{place}: values: a mapping from your words to ours is needed")
                name = self._constant({_key(key): value for key, value in table.items()})
                otherwise = self._constant(expression["else"]) if "else" in expression else "None"
                self._constants["word"] = _word
                return f"(None if ({x} := {one()}) is None else {name}.get(word({x}), {otherwise}))"
            case "join":
                self._constants["joined"] = _joined
                return f"joined({str(expression.get('with', ''))!r}, [{', '.join(several(given))}])"
            case "prefix":
                return f"(None if ({x} := {one()}) is None else {str(expression.get('with', ''))!r} + text({x}))"
            case "upper" | "lower":
                return f"(None if ({x} := {one()}) is None else text({x}).strip().{word}())"
            case "hash":
                return f"hashed({', '.join(several(given))})"
            case "money":
                return f"(None if ({x} := {one()}) is None else money({x}, v_currency))"
            case "minor":
                return f"(None if ({x} := {one()}) is None else minor({x}))"
            case "sum":
                return self._sum(several(given), several(expression["minus"]) if "minus" in expression else [], depth)
            case _:
                return self._time(expression, one(), place, x)

    def _sum(self, plus: list[str], minus: list[str], depth: int) -> str:
        """The first must be there; the others are 0 if they are not."""
        x = f"x{depth}"
        rest = "".join(f" + ({each} or 0)" for each in plus[1:]) + "".join(f" - ({each} or 0)" for each in minus)
        return f"(None if ({x} := {plus[0]}) is None else {x}{rest})"

    def _time(self, expression: dict[str, Any], value: str, place: str, x: str) -> str:
        unit, zone = expression.get("unit", "auto"), expression.get("zone")
        if unit not in ("auto", "iso", *values.UNITS):
            raise MappingError(f"{place}: unit {unit!r} is not one of auto, iso, {', '.join(values.UNITS)}")
        try:
            its = None if zone is None else ZoneInfo(str(zone))
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise MappingError(f"{place}: zone {zone!r} is not a time zone, such as Europe/Istanbul") from None
        return f"(None if ({x} := {value}) is None else time_ms({x}, {unit!r}, {self._constant(its)}))"

    @staticmethod
    def _bad_path(place: str) -> str:
        raise MappingError(f"{place}: a path is text")

    @staticmethod
    def _is_amount(expression: Any) -> bool:
        if not isinstance(expression, dict):
            return False
        if "first" in expression or "sum" in expression:
            inner = expression.get("first") or expression.get("sum")
            return isinstance(inner, list) and all(_Compiler._is_amount(each) for each in inner)
        return bool({"money", "minor"} & expression.keys()) or isinstance(expression.get("const"), int)

    @staticmethod
    def _in_money(expression: Any) -> bool:
        return isinstance(expression, dict) and "'money'" in repr(expression)

    @staticmethod
    def _check_enum(expression: Any, allowed: tuple[str, ...], place: str) -> None:
        """A word that we do not have is found when the mapping is read, not in the first message."""
        if isinstance(expression, dict):
            given = list(expression.get("values", {}).values()) if isinstance(expression.get("values"), dict) else []
            given += [expression[word] for word in ("const", "else") if word in expression]
            for word in given:
                if word not in allowed:
                    raise MappingError(f"{place}: {word!r} is not one of {', '.join(allowed)}")
            for each in expression.get("first", []) if isinstance(expression.get("first"), list) else []:
                _Compiler._check_enum(each, allowed, place)

    def _path(self, path: str, place: str, root: str) -> str:
        if not path:
            raise MappingError(f"{place}: an empty path")
        if path.startswith("$header."):
            return f"m.headers.get({path[len('$header.') :].lower()!r})"
        if path in ("$key", "$topic", "$time"):
            return {"$key": "m.key", "$topic": "m.topic", "$time": "m.time_ms"}[path]
        value = root
        if path.startswith("$."):  # from an item, the message
            value, path = "r", path[2:]
        elif path.startswith("$"):
            raise MappingError(f"{place}: {path!r}: known are $header.NAME, $key, $topic, $time and $.path")
        steps = path.split(".")
        if len(steps) > _MAX_DEPTH:
            raise MappingError(f"{place}: a path of more than {_MAX_DEPTH} steps")
        for number, step in enumerate(steps):
            found = _PATH_STEP.fullmatch(step)
            if not step or not found:
                raise MappingError(f"{place}: {path!r} is not a path such as a.b[0].c or list[key=name].value")
            if found["name"] == "*":
                value = f"any_of({value})"
            elif found["name"]:
                get = repr(found["name"])
                sure = value in ("r", "i") and number == 0
                value = f"{value}.get({get})" if sure else f"(y.get({get}) if type(y := {value}) is dict else None)"
            for inside in re.findall(r"\[([^\]]*)\]", found["picked"]):
                key, equals, wanted = inside.partition("=")
                if equals and key:
                    value = f"pick({value}, {key!r}, {wanted!r})"
                elif re.fullmatch(r"-?\d{1,4}", inside):
                    value = f"number_at({value}, {int(inside)})"
                else:
                    raise MappingError(f"{place}: [{inside}] is neither a number nor key=value")
        return value

    def _constant(self, value: Any) -> str:
        name = f"c{len(self._constants)}"
        self._constants[name] = value
        return name


_ZERO: Final = {"amount": "0", "whole": "1", "time": "0", "flag": "False"}


def _zero(convert: Any) -> str:
    """Stands for a value that was refused, until the record is."""
    return _ZERO.get(convert, "''") if isinstance(convert, str) else "''"


def not_an_object(message: Any) -> str:
    """Why what is neither a JSON object nor an Avro record has no fields."""
    if isinstance(message, list):
        return f"an array of {len(message)}; a message is one object with fields"
    return f"{'null' if message is None else repr(message)[:40]}, and not an object with fields"


def _fail(allowed: str, value: Any) -> Any:
    raise values.Fault(f"{str(value)[:80]!r} is not one of {allowed}")


def _key(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else values.text(value)


def _joined(between: str, parts: list[Any]) -> str | None:
    return None if any(part is None for part in parts) else between.join(map(values.text, parts))
