"""A pipeline's proto as text that people read and compare: what a running job's state hangs on, and nothing random."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from apache_beam import coders
from apache_beam.portability.api import beam_runner_api_pb2
from apache_beam.runners.pipeline_context import PipelineContext
from apache_beam.transforms.window import FixedWindows, GlobalWindows, Sessions

__all__ = ["outline", "unstable_keys"]

_ONLY = ("None", "0")  # Beam's tags of an output that was given none
_PYTHON = "beam:coder:pickled_python:v1"


def outline(pipeline: Any) -> str:
    """Every step by its name, in order, with what it reads, keeps and gives.

    A step's name and the names and types of what it keeps are what a new version of a job is matched by when it takes
    over the state of a running one.
    """
    return "\n".join(_Outline(pipeline).lines()) + "\n"


def unstable_keys(pipeline: Any) -> list[str]:
    """Steps that group or keep state by a key whose encoding is not always the same: two workers would disagree."""
    seen = _Outline(pipeline)
    return [name for name, coder in seen.key_coders() if not coder.is_deterministic()]


class _Outline:
    def __init__(self, pipeline: Any):
        self._parts = pipeline.components
        self._roots = pipeline.root_transform_ids
        self._context = PipelineContext(pipeline.components)
        self._made_by = {
            pcollection: (step.unique_name, tag)
            for step in self._leaves()
            for tag, pcollection in sorted(step.outputs.items())
        }

    def lines(self) -> Iterator[str]:
        for step in self._leaves():
            yield f"{step.unique_name}: {step.spec.urn.split(':')[-2]}"
            for source in sorted(self._source(i) for i in step.inputs.values()):
                yield f"  reads {source}"
            yield from self._kept(step)
            for tag, pcollection in sorted(step.outputs.items()):
                made = self._parts.pcollections[pcollection]
                label = "" if tag in _ONLY or len(step.outputs) == 1 else f" {tag}"
                yield f"  gives{label} {self._coder(made.coder_id)}"
            yield from self._rewindowed(step)

    def key_coders(self) -> Iterator[tuple[str, Any]]:
        for step in self._leaves():
            payload = self._do_fn(step)
            if step.spec.urn.endswith(":group_by_key:v1") or (payload and payload.state_specs):
                (pcollection,) = step.inputs.values()
                coder = self._context.coders.get_by_id(self._parts.pcollections[pcollection].coder_id)
                assert isinstance(coder, coders.TupleCoder), (step.unique_name, coder)
                yield step.unique_name, coder.key_coder()

    def _leaves(self) -> Iterator[Any]:
        def walk(name: str) -> Iterator[Any]:
            step = self._parts.transforms[name]
            if step.subtransforms:
                for inner in step.subtransforms:
                    yield from walk(inner)
            elif step.unique_name and dict(step.inputs) != dict(step.outputs):
                # (what only hands on its input, as a reshuffle of one element, is no step to a runner)
                yield step

        for root in self._roots:
            yield from walk(root)

    def _source(self, pcollection: str) -> str:
        name, tag = self._made_by[pcollection]
        return name if tag in _ONLY else f"{name} {tag}"

    @staticmethod
    def _do_fn(step: Any) -> Any:
        if not step.spec.urn.endswith(":pardo:v1"):
            return None
        return beam_runner_api_pb2.ParDoPayload.FromString(step.spec.payload)

    def _kept(self, step: Any) -> Iterator[str]:
        payload = self._do_fn(step)
        if payload is None:
            return
        if payload.restriction_coder_id:
            yield f"  restriction {self._coder(payload.restriction_coder_id)}"
        for name, spec in sorted(payload.state_specs.items()):
            kind = spec.WhichOneof("spec")
            inner = getattr(spec, kind)
            coder = getattr(inner, "element_coder_id", "") or inner.coder_id
            yield f"  state {name}: {kind.removesuffix('_spec')} of {self._coder(coder)}"
        for name, timer in sorted(payload.timer_family_specs.items()):
            domain = beam_runner_api_pb2.TimeDomain.Enum.Name(timer.time_domain).lower()
            yield f"  timer {name}: {domain}, {self._coder(timer.timer_family_coder_id)}"

    def _rewindowed(self, step: Any) -> Iterator[str]:
        """The windows of what a step gives, where they are not those of what it reads."""
        before = {self._windows(i) for i in step.inputs.values()}
        for windows in sorted({self._windows(i) for i in step.outputs.values()} - before):
            if before:
                yield f"  in {windows}"

    def _coder(self, name: str) -> str:
        coder = self._parts.coders[name]
        if coder.spec.urn == _PYTHON:
            return type(self._context.coders.get_by_id(name)).__name__
        inner = ", ".join(map(self._coder, coder.component_coder_ids))
        return coder.spec.urn.split(":")[2] + (f"[{inner}]" if inner else "")

    def _windows(self, pcollection: str) -> str:
        name = self._parts.pcollections[pcollection].windowing_strategy_id
        strategy = self._parts.windowing_strategies[name]
        windows = self._context.windowing_strategies.get_by_id(name).windowfn
        mode = beam_runner_api_pb2.AccumulationMode.Enum.Name(strategy.accumulation_mode).lower()
        trigger = _when(strategy.trigger)
        match windows:
            case Sessions():
                kind = f"sessions with a gap of {windows.gap_size.micros // 1000} ms"
            case FixedWindows():
                kind = f"windows of {windows.size.micros // 1000} ms"
            case GlobalWindows():
                kind = "all time"
            case _:
                kind = type(windows).__name__
        return f"{kind}, {mode}, {trigger}, allowed lateness {strategy.allowed_lateness} ms"


def _when(trigger: Any) -> str:
    kind = trigger.WhichOneof("trigger")
    inner = getattr(trigger, kind)
    match kind:
        case "after_end_of_window":
            parts = [
                f"{name} {_when(getattr(inner, field))}"
                for name, field in (("early", "early_firings"), ("late", "late_firings"))
                if inner.HasField(field)
            ]
            return " ".join(["at the end", *parts])
        case "element_count":
            return f"after {inner.element_count} elements"
        case "after_processing_time":
            return f"after {sum(t.delay.delay_millis for t in inner.timestamp_transforms)} ms"
        case _:
            return kind.replace("_", " ")
