"""Constructors of Equinox modules and named tuples for the API reference, from their fields.

An extension of Griffe, which knows by itself only classes that ``@dataclass`` decorates.
"""

from typing import Any, override

from griffe import (
    Attribute,
    Class,
    Docstring,
    Expr,
    ExprCall,
    ExprKeyword,
    Extension,
    Function,
    Parameter,
    ParameterKind,
    Parameters,
)


class Fields(Extension):
    """Gives an ``__init__`` to classes that write none."""

    @override
    def on_class(self, *, cls: Class, **kwargs: Any) -> None:
        if "__init__" in cls.members or any("dataclass" in str(d.value) for d in cls.decorators):
            return
        parameters = [
            Parameter(
                member.name,
                annotation=member.annotation,
                kind=ParameterKind.positional_or_keyword,
                default=_default(member.value),
            )
            for member in cls.members.values()
            if isinstance(member, Attribute) and _is_field(member)
        ]
        if parameters:
            init = Function("__init__", parameters=Parameters(*parameters), parent=cls)
            init.docstring = Docstring("", parent=init)
            cls.set_member("__init__", init)


def _is_field(member: Attribute) -> bool:
    return (
        member.annotation is not None
        and "instance-attribute" in member.labels  # not a ClassVar
        and "AbstractVar" not in str(member.annotation)
    )


def _default(value: str | Expr | None) -> str | Expr | None:
    """The default among the arguments of ``eqx.field``, or the value itself."""
    if not isinstance(value, ExprCall):
        return value
    for argument in value.arguments:
        if isinstance(argument, ExprKeyword) and argument.name == "default":
            return argument.value
    return None
