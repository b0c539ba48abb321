"""A Beam pipeline as a list of steps: what the simulated runner runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import apache_beam as beam
from apache_beam.internal import pickler
from apache_beam.pipeline import PipelineVisitor
from apache_beam.runners.common import DoFnSignature

__all__ = ["Step", "steps_of"]


@dataclass
class Step:
    """A primitive transform. Flattens are none: their consumers have several inputs.

    Attributes:
      kind: impulse, do, read (a splittable DoFn), keyed (a stateful one) or group.
      fn: the DoFn, pickled: each worker process has copies of its own.
      windowing: of the output; of the input, if it is a group.
      inputs: the steps that it reads from.
      outputs: tag → who reads that. The main output has the tag None.
    """

    number: int
    label: str
    kind: str
    fn: bytes = b""
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    windowing: Any = None
    inputs: list[int] = field(default_factory=list)
    outputs: dict[str | None, list[int]] = field(default_factory=dict)


def steps_of(pipeline: beam.Pipeline) -> list[Step]:
    """The steps of a pipeline, inputs before consumers.

    Raises: NotImplementedError: it has a transform that is not simulated.
    """
    visitor = _Visitor()
    pipeline.visit(visitor)
    steps = visitor.steps
    for step, inputs in zip(steps, visitor.inputs, strict=True):
        for collection in inputs:
            for maker, tag in visitor.makers(collection):
                steps[maker].outputs.setdefault(tag, []).append(step.number)
                if maker not in step.inputs:
                    step.inputs.append(maker)
    return steps


class _Visitor(PipelineVisitor):
    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.inputs: list[list[Any]] = []
        self._makers: dict[Any, tuple[int, str | None]] = {}
        self._flattened: dict[Any, tuple[Any, ...]] = {}

    def makers(self, collection: Any) -> list[tuple[int, str | None]]:
        if collection in self._flattened:
            return [maker for each in self._flattened[collection] for maker in self.makers(each)]
        return [self._makers[collection]]

    def visit_transform(self, node: Any) -> None:
        transform = node.transform
        if isinstance(transform, beam.Flatten):
            self._flattened[node.outputs[None]] = node.inputs
            return
        step = Step(len(self.steps), node.full_label, "do")
        if isinstance(transform, beam.Impulse):
            step.kind = "impulse"
        elif isinstance(transform, beam.GroupByKey):
            step.kind, step.windowing = "group", node.inputs[0].windowing
        elif isinstance(transform, beam.ParDo):
            step.fn = pickler.dumps(transform.fn)
            step.args, step.kwargs = transform.args, transform.kwargs
            step.windowing = next(iter(node.outputs.values())).windowing
            signature = DoFnSignature(transform.fn)
            step.kind = "read" if signature.is_splittable_dofn() else "keyed" if signature.is_stateful_dofn() else "do"
        else:
            raise NotImplementedError(f"{node.full_label}: {transform}")
        self.steps.append(step)
        self.inputs.append([c for c in node.inputs if isinstance(c, beam.pvalue.PCollection)])
        for tag, collection in node.outputs.items():
            main = tag in (None, "None") or tag == getattr(transform, "main_tag", None)
            self._makers[collection] = step.number, None if main else tag
