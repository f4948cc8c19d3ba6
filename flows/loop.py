"""Unrolls the loop of a flow: its body is written once and becomes T iterations of ordinary steps.

Metaflow's graph is acyclic. So, with a body `plan` … `evaluate` whose last step ends in `self.next(self.plan)`, the
flow is rewritten as soon as its config is known:

    start -> plan_1 -> … -> evaluate_1 -> plan_2 -> … -> evaluate_T -> end

A step may run on several nodes, joined by the step after it; see `Unroll`.

A step knows its iteration from an artifact that the first body step counts: `self.iteration = 0` in `start`,
`self.iteration += 1` in `plan`; a join hands it on with `self.iteration = inputs[0].iteration`.

Copies keep the line numbers of the step as written: in a traceback, `"flow.py [Flow.plan_2]", line 57` is line 57
of flow.py.
"""

from __future__ import annotations

import ast
import inspect
import linecache
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import CodeType, FunctionType
from typing import Any

from metaflow import FlowMutator, parallel, step
from metaflow.exception import MetaflowException

from components.run_config import MAX_ITERATIONS

# Metaflow's checks call themselves once per consecutive step, and Python stops them at about 950.
MAX_STEPS = 900


class LoopError(MetaflowException):
    """A loop that cannot be unrolled, or not that often."""

    headline = "The loop cannot be unrolled"


class Unroll(FlowMutator):
    """Flow decorator that repeats the steps `body`, given in the order of one iteration, and then goes to step `exit`.

    `iterations` says where T stands: "<config name>.<key>". Steps outside the body enter it at its first step, to
    which its last step goes back. The body may come from a base class, and may stand inside a foreach.

    `nodes` names three steps in a row and where a number stands: with more than one node, the second becomes as many
    tasks at once (Metaflow's `num_parallel`), to which the first leads and which the third joins; with one, it is a
    plain step and the other two are left out.
    """

    def init(
        self, *, body: tuple[str, ...], exit: str, iterations: str, nodes: tuple[str, str, str, str] | None = None
    ) -> None:
        self.body, self.exit, self.iterations, self.nodes = tuple(body), exit, iterations, nodes

    def pre_mutate(self, mutable_flow: Any) -> None:
        """Puts T copies in the place of the body. Raises LoopError."""
        flow, first, last = mutable_flow._flow_cls, self.body[0], self.body[-1]
        # Not the class attribute: when a run is resumed, that holds the default instead of the origin's config.
        configs, body, entries = dict(mutable_flow.configs), self._read_body(flow), self._read_entries(flow)
        spread, skipped = self._read_nodes(configs)
        for name in skipped:
            del body[name]
        count = _count(self.iterations, configs, MAX_STEPS // len(body))
        for t in range(1, count + 1):
            targets = {name: f"{name}_{t}" for name in body}
            targets |= {name: targets[following] for name, following in skipped.items()}
            back = {first: f"{first}_{t + 1}" if t < count else self.exit}
            for name, template in body.items():
                new = targets[name]
                if hasattr(flow, new):
                    raise template.error(f"its copy cannot be named {new}: that exists. Rename one.")
                copy = template.copy(flow, new, targets | back if name == last else targets, spread)
                setattr(flow, new, parallel(copy) if name in spread else copy)
        for name, template in entries.items():
            setattr(flow, name, template.copy(flow, name, {first: f"{first}_1"}))
        for name in self.body:
            setattr(flow, name, property())  # hides a base class's step too; a value would become an artifact
        flow._init_graph()

    def _read_nodes(self, configs: Mapping[str, Any]) -> tuple[dict[str, int], dict[str, str]]:
        """On how many nodes a step runs, if on several; else the steps that are left out, and which follow them."""
        if self.nodes is None:
            return {}, {}
        before, step, after, path = self.nodes
        following = dict(pairwise(self.body))
        if [following.get(before), following.get(step)] != [step, after] or after not in following:
            raise LoopError(f"nodes: {before}, {step} and {after} must follow each other in the body, and not end it.")
        if (count := _number(path, configs)) > 1:
            return {step: count}, {}
        return {}, {name: following[name] for name in (before, after)}

    def _read_body(self, flow: Any) -> dict[str, _Template]:
        known = ", ".join(node.name for node in flow._graph)
        for name in (*self.body, self.exit):
            if name not in flow._graph:
                raise LoopError(f"{flow.__name__} has no step {name}. Its steps: {known}.")
        body = {name: _Template.read(getattr(flow, name)) for name in self.body}
        first, last = self.body[0], self.body[-1]
        for name, template in body.items():
            targets = [target.attr for target in template.targets]
            if unknown := [target for target in targets if target not in flow._graph]:
                raise template.error(f"there is no step {unknown[0]} to go to. The steps: {known}.")
            if name != last and first in targets:
                raise template.error(f"only {last}, the last step of the body, goes back to {first}.")
            if name == last and targets != [first]:
                raise template.error(f"the last step of the body must go back: self.next(self.{first}).")
        return body

    def _read_entries(self, flow: Any) -> dict[str, _Template]:
        entries = {}
        for node in flow._graph:
            inside = set(node.out_funcs).intersection(self.body)
            if inside and node.name not in self.body:
                entries[node.name] = template = _Template.read(getattr(flow, node.name))
                if inside != {self.body[0]}:
                    wrong = ", ".join(sorted(inside - {self.body[0]}))
                    raise template.error(f"the loop is entered at {self.body[0]}, not at {wrong}.")
        return entries


unroll = Unroll


@dataclass(frozen=True)
class _Template:
    """A step as written; `lines` give its source the line numbers that it has in its file."""

    step: Any
    lines: list[str]
    definition: ast.FunctionDef
    targets: list[Any]  # ast.Attribute nodes: the arguments of self.next

    @classmethod
    def read(cls, function: Any) -> _Template:
        source, first = inspect.getsourcelines(function)
        # Inside its class statement, `super()` and private names compile as they did in the flow.
        owner = function.__qualname__.split(".")[-2]
        lines = ["\n"] * (first - 2) + [f"class {owner}:\n", *source]
        definition = _definition(ast.parse("".join(lines)))
        template = cls(function, lines, definition, [])
        if outer := sorted(set(function.__code__.co_freevars) - {"__class__"}):
            raise template.error(f"takes {', '.join(outer)} from an outer function. Move it to the module.")
        match definition.body[-1]:
            case ast.Expr(ast.Call(ast.Attribute(ast.Name("self"), "next"), targets)):
                template.targets.extend(targets)
            case _:
                raise template.error("self.next(…) is missing. It must be the last statement.")
        if any(isinstance(target, ast.Dict) for target in template.targets):
            raise template.error("a switch cannot lead into or through the loop.")
        if not targets or not all(isinstance(target, ast.Attribute) for target in targets):
            raise template.error("self.next must name the following steps as self.step.")
        return template

    def error(self, message: str) -> LoopError:
        code = self.step.__code__
        return LoopError(f"{self.step.__name__}: {message}", code.co_firstlineno, code.co_filename)

    def copy(self, flow: Any, name: str, renamed: Mapping[str, str], spread: Mapping[str, int] | None = None) -> Any:
        """The step with another name, renamed targets, some on several nodes, and decorators of its own."""
        file = f"{self.step.__code__.co_filename} [{flow.__name__}.{name}]"
        lines = self._rewritten(name, renamed, spread or {})
        # Metaflow reads each step's source there, and so does a traceback.
        linecache.cache[file] = (sum(map(len, lines)), None, lines, file)
        tree = ast.parse("".join(lines))
        _definition(tree).decorator_list.clear()
        flags = self.step.__code__.co_flags & annotations.compiler_flag
        code = _inner(_inner(compile(tree, file, "exec", flags, dont_inherit=True)))
        copy = FunctionType(code, self.step.__globals__, name, self.step.__defaults__, self.step.__closure__)
        return _decorate(copy, self.step)

    def _rewritten(self, name: str, renamed: Mapping[str, str], spread: Mapping[str, int]) -> list[str]:
        lines = list(self.lines)
        for target in reversed(self.targets):  # from the right: offsets further left on the line stay true
            row, end = target.end_lineno - 1, target.end_col_offset
            line, new = lines[row].encode(), renamed.get(target.attr, target.attr)  # ast counts bytes
            new += f", num_parallel={spread[target.attr]}" if target.attr in spread else ""
            lines[row] = (line[: end - len(target.attr)] + new.encode() + line[end:]).decode()
        row = self.definition.lineno - 1
        lines[row] = re.sub(r"\bdef\s+\w+", f"def {name}", lines[row], count=1)
        return lines


def _number(path: str, configs: Mapping[str, Any]) -> Any:
    """What stands at a dotted path of the configs."""
    value: Any = configs
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            known = ", ".join(value) if isinstance(value, Mapping) else "none"
            raise LoopError(f"{path}: there is no {key} in the config. Known keys: {known}.")
        value = value[key]
    return value


def _count(path: str, configs: Mapping[str, Any], limit: int) -> int:
    value = _number(path, configs)
    limit = min(limit, MAX_ITERATIONS)
    if type(value) is not int or not 1 <= value <= limit:
        raise LoopError(
            f"{path} is {value!r}. Use a whole number from 1 to {limit}: every iteration adds its own steps to the "
            "graph, and Metaflow cannot check a longer one."
        )
    return int(value)


def _definition(tree: ast.Module) -> ast.FunctionDef:
    return next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def _inner(code: CodeType) -> CodeType:
    return next(constant for constant in code.co_consts if isinstance(constant, CodeType))


def _decorate(copy: Any, written: Any) -> Any:
    """`copy` as a step decorated like `written`. Config expressions are carried over unevaluated."""
    copy = step(start=written.is_start_step, end=written.is_end_step, node_info=dict(written.node_info))(copy)
    for deco in written.decorators:
        given = {
            key: value
            for key, value in deco.attributes.items()
            if key in deco._user_defined_attributes
            or key not in deco.defaults  # stems from `**config_expr(…)`
            or value != deco.defaults[key]  # set by a mutator
        }
        copy.decorators.append(type(deco)(given, deco.statically_defined, deco.inserted_by))
    for deco in dict.fromkeys([*written.wrappers, *written.config_decorators]):  # one object may be in both
        again = type(deco)(*deco._args, **deco._kwargs)
        again(copy, _statically_defined=deco.statically_defined, _inserted_by=deco.inserted_by)
    return copy
