"""Models of the shop as stamped ONNX files: each looks at one feature alone."""

from __future__ import annotations

from typing import Literal

import numpy as np
from onnx import TensorProto, helper, numpy_helper

import headrace as hr
from headrace.models import stamp
from tests.unit.training import shop


def looking_at(
    feature: str, *, times: float, plus: float = 0.0, version: str = "1", kind: Literal["probability", "value"] = "probability"
) -> bytes:
    """A model of `times` * feature + `plus`; as a probability the logistic function of it. NaN where the feature is."""
    (pipeline,) = shop.app.pipelines
    return stamp(_graph(pipeline, feature, times, plus, kind), pipeline, version=version, kind=kind)


def _graph(pipeline: hr.Pipeline, feature: str, times: float, plus: float, kind: str) -> bytes:
    names = list(pipeline.feature_names)
    nodes = [
        helper.make_node("Gather", ["X", "place"], ["picked"], axis=1),
        helper.make_node("Mul", ["picked", "times"], ["weighed"]),
        helper.make_node("Add", ["weighed", "plus"], ["score" if kind == "value" else "margin"]),
    ]
    nodes += [] if kind == "value" else [helper.make_node("Sigmoid", ["margin"], ["score"])]
    tensors = [
        numpy_helper.from_array(np.array([names.index(feature)], dtype=np.int64), "place"),
        numpy_helper.from_array(np.array([times], dtype=np.float32), "times"),
        numpy_helper.from_array(np.array([plus], dtype=np.float32), "plus"),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, len(names)])],
        [helper.make_tensor_value_info("score", TensorProto.FLOAT, [None, 1])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    return bytes(model.SerializeToString())
