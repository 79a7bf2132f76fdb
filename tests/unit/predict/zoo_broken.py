"""The broken part of the zoo: each has one fault, and the code it must be refused with. Those that end a process are not here."""

from __future__ import annotations

import base64
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from headrace.predict import onnx_file
from headrace.predict.attached_rows import GOLDEN_ROWS, background_entries, golden_entries
from headrace.predict.gate_codes import Code
from headrace.predict.signature import METADATA_KEY, ViewVersion
from tests.unit.predict import zoo_good
from tests.unit.predict.zoo import FEATURES, ROOMY, WIDTH, Zoo, draw, finished, graph, node, signature, value
from tests.unit.predict.zoo_good import MEAN, PROBABILITY, ROWS, SPREAD, B, W, scaled, sigmoid

BROKEN = Zoo()
PLAIN = (ROWS @ W)[:, 0]


def weighed(**more: Any) -> bytes:
    """X times W."""
    return graph([node("MatMul", "X w", "score")], tensors={"w": W}, **more)


@BROKEN.add(code=Code.TOO_LARGE, limits=replace(ROOMY, file_bytes=1_000))
def larger_than_allowed() -> bytes:
    """A good file, for a smaller limit."""
    return zoo_good.two_layers()


@BROKEN.add(code=Code.TOO_LARGE)
def functions_that_multiply() -> bytes:
    """Ten functions that call the next one ten times each."""
    return finished(chained(10, times=10), ROWS, PLAIN)


@BROKEN.add(code=Code.TOO_LARGE, limits=replace(ROOMY, nodes=5))
def more_nodes_than_allowed() -> bytes:
    """Six nodes, for a limit of five."""
    return zoo_good.two_layers()


@BROKEN.add(code=Code.NOT_ONNX)
def nothing() -> bytes:
    """No bytes at all: that is a valid message, too."""
    return b""


@BROKEN.add(code=Code.NOT_ONNX)
def pickled_model() -> bytes:
    """What `joblib` and `pickle` write."""
    return pickle.dumps({"model": [1.0, 2.0]})


@BROKEN.add(code=Code.NOT_ONNX)
def cut_off() -> bytes:
    """The first half of a good file."""
    whole = zoo_good.two_layers()
    return whole[: len(whole) // 2]


@BROKEN.add(code=Code.NOT_ONNX)
def graph_without_nodes() -> bytes:
    """A graph that says what it takes and gives, and does nothing."""
    return finished(graph([], outputs=[value("X", [None, WIDTH])]), ROWS, PLAIN, output="X")


@BROKEN.add(code=Code.EXTERNAL_TENSOR)
def weights_in_another_file() -> bytes:
    """Saved with save_as_external_data=True."""
    model = onnx.ModelProto.FromString(zoo_good.linear())
    tensor = model.graph.initializer[0]
    onnx.external_data_helper.set_external_data(tensor, "weights.bin")
    tensor.ClearField("raw_data")
    return bytes(model.SerializeToString())


@BROKEN.add(code=Code.EXTERNAL_TENSOR)
def weights_outside_as_default_of_a_function() -> bytes:
    """The value that a function takes where a call gives none lives outside the file."""
    tensor = TensorProto(name="away", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="weights.bin")
    constant = node("Constant", "", "y")
    constant.attribute.append(onnx.AttributeProto(name="value", ref_attr_name="given", type=onnx.AttributeProto.TENSOR))
    made = helper.make_function("mine", "f", [], ["y"], [constant], [helper.make_opsetid("", 17)])
    made.attribute_proto.append(helper.make_attribute("given", tensor))
    return finished(weighed(functions=[made]), ROWS, PLAIN)


@BROKEN.add(code=Code.DOMAIN)
def operator_of_a_company() -> bytes:
    """A custom operator."""
    return finished(graph([node("Score", "X", "score", domain="acme.ops")], sets=[("", 17), ("acme.ops", 1)]), ROWS, PLAIN)


@BROKEN.add(code=Code.DOMAIN)
def operator_fused_by_a_runtime() -> bytes:
    """Saved after optimisation, with an operator of one runtime."""
    fused = node("FusedMatMul", "X w", "score", domain="com.microsoft")
    return finished(graph([fused], tensors={"w": W}, sets=[("", 17), ("com.microsoft", 1)]), ROWS, PLAIN)


@BROKEN.add(code=Code.DOMAIN)
def operator_of_a_company_in_a_branch() -> bytes:
    """A custom operator, hidden in a graph inside a function."""
    branch = helper.make_graph([node("Score", "x", "s", domain="acme.ops")], "branch", [], [value("s", None)])
    hidden = [node("Constant", "", "c", value_int=1), node("Cast", "c", "b", to=TensorProto.BOOL)]
    hidden.append(node("If", "b", "y", then_branch=branch, else_branch=branch))
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("acme.ops", 1)]
    made = helper.make_function("mine", "f", ["x"], ["y"], hidden, sets)
    return finished(graph([node("f", "X", "score", domain="mine")], functions=[made], sets=[("", 17), ("mine", 1)]), ROWS, PLAIN)


@BROKEN.add(code=Code.DOMAIN)
def function_in_the_place_of_an_operator() -> bytes:
    """A function of the file that would hide an operator of a runtime."""
    made = helper.make_function("com.microsoft", "Gelu", ["x"], ["y"], [node("Identity", "x", "y")], [helper.make_opsetid("", 17)])
    nodes = [node("Gelu", "X", "g", domain="com.microsoft"), node("MatMul", "g w", "score")]
    return finished(graph(nodes, tensors={"w": W}, functions=[made], sets=[("", 17), ("com.microsoft", 1)]), ROWS, PLAIN)


@BROKEN.add(code=Code.OPERATOR)
def branch() -> bytes:
    """An If that nobody allowed."""
    return zoo_good.branch_that_was_allowed()


@BROKEN.add(code=Code.OPERATOR)
def scan_over_features() -> bytes:
    """A Scan."""
    inside = [value("total", [None]), value("column", [None])]
    body = helper.make_graph([node("Add", "total column", "sum")], "body", inside, [value("sum", [None])])
    nodes = [
        node("ReduceSum", "X axis", "start", keepdims=0),
        node("Scan", "start X", "flat", body=body, num_scan_inputs=1, scan_input_axes=[1]),
        node("Unsqueeze", "flat axis", "score"),
    ]
    return finished(graph(nodes, tensors={"axis": np.array([1])}), ROWS, 2 * ROWS.sum(axis=1))


@BROKEN.add(code=Code.OPERATOR)
def noise() -> bytes:
    """Noise on the score, as left over from training."""
    nodes = [node("MatMul", "X w", "z"), node("RandomNormalLike", "z", "r", scale=1e-6), node("Add", "z r", "score")]
    return finished(graph(nodes, tensors={"w": W}), ROWS, PLAIN)


@BROKEN.add(code=Code.OPERATOR)
def compiled_parts() -> bytes:
    """A node that carries what was compiled for one kind of machine."""
    return finished(graph([node("EPContext", "X", "score")]), ROWS, PLAIN)


@BROKEN.add(code=Code.NESTING)
def functions_twenty_deep() -> bytes:
    """More calls of calls than anything needs."""
    return finished(chained(20), ROWS, PLAIN)


@BROKEN.add(code=Code.NESTING)
def function_that_calls_itself() -> bytes:
    """A function that would never end."""
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    made = helper.make_function("mine", "f", ["x"], ["y"], [node("f", "x", "y", domain="mine")], sets)
    return finished(graph([node("f", "X", "score", domain="mine")], functions=[made], sets=[("", 17), ("mine", 1)]), ROWS, PLAIN)


@BROKEN.add(code=Code.NESTING, limits=replace(ROOMY, operators=("If",), graphs_deep=2))
def graphs_three_deep() -> bytes:
    """An If in an If in an If."""
    inner = [node("Identity", "X", "y0")]
    for depth in range(1, 4):
        body = helper.make_graph(inner, f"g{depth}", [], [value(f"y{depth - 1}", None)])
        inner = [node("If", "sure", f"y{depth}", then_branch=body, else_branch=body)]
    nodes = [*inner, node("MatMul", "y3 w", "score")]
    return finished(graph(nodes, tensors={"w": W, "sure": np.ones((), dtype=bool)}), ROWS, PLAIN)


@BROKEN.add(code=Code.CHECKER)
def nodes_in_the_wrong_order() -> bytes:
    """A node uses what a later one gives."""
    return finished(graph([node("Add", "z b", "score"), node("MatMul", "X w", "z")], tensors={"w": W, "b": np.array([B])}), ROWS, PLAIN)


@BROKEN.add(code=Code.CHECKER)
def operator_that_is_not_there() -> bytes:
    """A name that is in no operator set."""
    return finished(graph([node("MatMull", "X w", "score")], tensors={"w": W}), ROWS, PLAIN)


@BROKEN.add(code=Code.LOAD)
def types_that_do_not_meet() -> bytes:
    """Floats and integers are added, which the checker does not see."""
    return finished(graph([node("Add", "X one", "score")], tensors={"one": np.array([1])}), ROWS, PLAIN)


@BROKEN.add(code=Code.LOAD)
def shapes_that_do_not_meet() -> bytes:
    """Weights for another number of features."""
    return finished(graph([node("MatMul", "X w", "score")], tensors={"w": np.ones((WIDTH + 1, 1))}), ROWS, PLAIN)


@BROKEN.add(code=Code.NO_SIGNATURE)
def not_stamped() -> bytes:
    """As it came from the converter."""
    return weighed()


@BROKEN.add(code=Code.SIGNATURE_UNREADABLE)
def signature_of_another_format() -> bytes:
    """Something else under the key of the signature."""
    return onnx_file.with_metadata(zoo_good.linear(), {METADATA_KEY: '{"format": 7}'})


@BROKEN.add(code=Code.SIGNATURE_UNREADABLE)
def signature_nested_too_deep() -> bytes:
    """JSON that would exhaust a parser."""
    return onnx_file.with_metadata(zoo_good.linear(), {METADATA_KEY: "[" * 100_000})


@BROKEN.add(code=Code.OTHER_PIPELINE)
def stamped_for_another_pipeline() -> bytes:
    """A signature of another name."""
    return finished(weighed(), ROWS, PLAIN, name="early")


@BROKEN.add(code=Code.FEATURES)
def columns_in_another_order() -> bytes:
    """The same features, two of them exchanged."""
    return finished(weighed(), ROWS, PLAIN, features=(FEATURES[1], FEATURES[0], *FEATURES[2:]))


@BROKEN.add(code=Code.FEATURES)
def one_feature_too_few() -> bytes:
    """Trained on three of four."""
    model = graph([node("MatMul", "X w", "score")], tensors={"w": W[:3]}, inputs=[value("X", [None, 3])])
    return finished(model, ROWS[:, :3], (ROWS[:, :3] @ W[:3])[:, 0], features=FEATURES[:3])


@BROKEN.add(code=Code.DEFINITIONS)
def view_with_another_window() -> bytes:
    """The same names over a view that was defined otherwise."""
    return finished(weighed(), ROWS, PLAIN, views=(ViewVersion(name="flights", version=1, fingerprint="e" * 64),))


@BROKEN.add(code=Code.DEFINITIONS)
def event_feature_in_another_unit() -> bytes:
    """An event feature that computed something else."""
    return finished(weighed(), ROWS, PLAIN, event_features="a" * 64)


@BROKEN.add(code=Code.INPUT_COUNT)
def an_input_for_every_feature() -> bytes:
    """As scikit-learn's converter does for data frames."""
    inputs = [value(f"f{place}", [None, 1]) for place in range(WIDTH)]
    nodes = [node("Concat", "f0 f1 f2 f3", "X", axis=1), node("MatMul", "X w", "score")]
    return finished(graph(nodes, tensors={"w": W}, inputs=inputs), ROWS, PLAIN)


@BROKEN.add(code=Code.INPUT_DTYPE)
def float64_input() -> bytes:
    """Exported from a float64 sample."""
    model = graph(
        [node("MatMul", "X w", "score")],
        tensors={"w": W},
        inputs=[value("X", [None, WIDTH], TensorProto.DOUBLE)],
        outputs=[value("score", [None, 1], TensorProto.DOUBLE)],
    )
    parsed = onnx.ModelProto.FromString(model)
    parsed.graph.initializer[0].CopyFrom(numpy_helper.from_array(W, "w"))
    return finished(parsed.SerializeToString(), ROWS, PLAIN)


@BROKEN.add(code=Code.INPUT_SHAPE)
def input_of_another_width() -> bytes:
    """The signature names four features, the file takes five."""
    model = graph([node("MatMul", "X w", "score")], tensors={"w": np.ones((5, 1))}, inputs=[value("X", [None, 5])])
    return finished(model, ROWS, PLAIN)


@BROKEN.add(code=Code.BATCH_AXIS)
def input_of_one_row() -> bytes:
    """Exported with the shape of its sample."""
    return finished(weighed(inputs=[value("X", [1, WIDTH])], outputs=[value("score", [1, 1])]), ROWS, PLAIN)


@BROKEN.add(code=Code.OUTPUT_MISSING)
def output_of_another_name() -> bytes:
    """The signature names an output that is not there."""
    return finished(weighed(), ROWS, PLAIN, output="probabilities")


@BROKEN.add(code=Code.OUTPUT_ZIPMAP)
def output_as_dicts() -> bytes:
    """A classifier with ZipMap, the default of converters."""
    kind = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    zipped = helper.make_value_info("score", helper.make_sequence_type_proto(kind))
    nodes = [node("MatMul", "X w", "z"), node("ZipMap", "z", "score", domain="ai.onnx.ml", classlabels_int64s=[0, 1])]
    return finished(graph(nodes, tensors={"w": np.concatenate((W, -W), axis=1)}, outputs=[zipped]), ROWS, PLAIN)


@BROKEN.add(code=Code.OUTPUT_DTYPE)
def output_of_texts() -> bytes:
    """The label of a class in the place of its probability."""
    return finished(
        graph([node("Cast", "X", "score", to=TensorProto.STRING)], outputs=[value("score", [None, WIDTH], TensorProto.STRING)]), ROWS, PLAIN
    )


@BROKEN.add(code=Code.OUTPUT_CLASS)
def class_that_is_not_there() -> bytes:
    """The third class of two."""
    model = graph([node("MatMul", "X w", "score")], tensors={"w": np.concatenate((W, -W), axis=1)}, outputs=[value("score", [None, 2])])
    return finished(model, ROWS, PLAIN, class_index=2)


@BROKEN.add(code=Code.ROWS_UNREADABLE)
def golden_rows_that_are_damaged() -> bytes:
    """Bytes that are no array."""
    return onnx_file.with_metadata(zoo_good.linear(), {GOLDEN_ROWS: base64.b64encode(b"not an array").decode()})


@BROKEN.add(code=Code.ROWS_UNREADABLE)
def golden_rows_made_to_harm() -> bytes:
    """An array whose header, which numpy reads as Python, opens nine thousand brackets."""
    header = b"{'descr': " + b"(" * 9_000 + b"}\n"
    array = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    return onnx_file.with_metadata(zoo_good.linear(), {GOLDEN_ROWS: base64.b64encode(array).decode()})


@BROKEN.add(code=Code.ROWS_UNREADABLE)
def golden_rows_that_claim_too_much() -> bytes:
    """An array of 64 bytes that says it has four million million numbers."""
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000, 4)}\n"
    array = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(64)
    return onnx_file.with_metadata(zoo_good.linear(), {GOLDEN_ROWS: base64.b64encode(array).decode()})


@BROKEN.add(code=Code.ROWS_UNREADABLE)
def golden_rows_of_other_features() -> bytes:
    """Rows of three columns."""
    return onnx_file.with_metadata(zoo_good.linear(), golden_entries(ROWS[:, :3], PLAIN))


@BROKEN.add(code=Code.ROWS_UNREADABLE)
def background_of_too_many_rows() -> bytes:
    """More rows than explanations take."""
    return onnx_file.with_metadata(zoo_good.linear(), background_entries(draw(101)))


@BROKEN.add(code=Code.OUTPUT_SHAPE)
def one_score_for_all_rows() -> bytes:
    """Sums over rows as well."""
    return finished(graph([node("ReduceSum", "X", "score", keepdims=1)], outputs=[value("score", [None, None])]), ROWS, PLAIN)


@BROKEN.add(code=Code.CALL)
def made_for_one_row_inside() -> bytes:
    """Declared with a free batch axis, and reshaped to one row inside."""
    nodes = [node("Reshape", "X one_row", "r"), node("MatMul", "r w", "score")]
    return finished(graph(nodes, tensors={"one_row": np.array([1, WIDTH]), "w": W}), ROWS, PLAIN)


@BROKEN.add(code=Code.NOT_FINITE)
def zero_over_zero() -> bytes:
    """A constant feature was scaled by its spread."""
    nodes = [node("Sub", "X X", "z"), node("Div", "z z", "n"), node("MatMul", "n w", "score")]
    return finished(graph(nodes, tensors={"w": W}), ROWS, PLAIN)


@BROKEN.add(code=Code.NOT_FINITE)
def weights_that_are_nan() -> bytes:
    """Training diverged."""
    return finished(graph([node("MatMul", "X w", "score")], tensors={"w": W * np.nan}), ROWS, PLAIN)


@BROKEN.add(code=Code.RANGE)
def margins_as_probabilities() -> bytes:
    """Exported before the sigmoid."""
    return finished(weighed(), ROWS, PLAIN, **PROBABILITY)


@BROKEN.add(code=Code.NO_GOLDEN_ROWS)
def without_golden_rows() -> bytes:
    """Nothing shows what it should answer."""
    return onnx_file.with_metadata(weighed(), signature().to_metadata())


@BROKEN.add(code=Code.GOLDEN_DIFFERENCE)
def columns_exchanged_inside() -> bytes:
    """The names are in order, and the training had two columns exchanged."""
    return finished(weighed(), ROWS, (ROWS[:, [1, 0, 2, 3]] @ W)[:, 0])


@BROKEN.add(code=Code.GOLDEN_DIFFERENCE)
def scaler_left_out() -> bytes:
    """Only the classifier of a pipeline was exported."""
    model = graph([node("MatMul", "X w", "z"), node("Sigmoid", "z", "score")], tensors={"w": W})
    return finished(model, ROWS, sigmoid(scaled(ROWS) @ W)[:, 0], **PROBABILITY)


@BROKEN.add(code=Code.GOLDEN_DIFFERENCE)
def scaler_applied_twice() -> bytes:
    """Scaled at training, and scaled again in the export."""
    nodes = [node("Sub", "X mean", "c"), node("Div", "c spread", "s"), node("Sub", "s mean", "c2"), node("Div", "c2 spread", "s2")]
    nodes.append(node("MatMul", "s2 w", "score"))
    return finished(graph(nodes, tensors={"mean": MEAN, "spread": SPREAD, "w": W}), ROWS, (scaled(ROWS) @ W)[:, 0])


@BROKEN.add(code=Code.GOLDEN_DIFFERENCE)
def probability_of_the_other_class() -> bytes:
    """Column 0 in the place of column 1."""
    nodes = [node("MatMul", "X w", "z"), node("Softmax", "z", "score", axis=1)]
    model = graph(nodes, tensors={"w": np.concatenate((W, -W), axis=1)}, outputs=[value("score", [None, 2])])
    return finished(model, ROWS, sigmoid(-2 * ROWS @ W)[:, 0], class_index=0, **PROBABILITY)


@BROKEN.add(code=Code.GOLDEN_DIFFERENCE)
def missing_values_filled_otherwise() -> bytes:
    """Zero stands for a missing value, and the training had the mean."""
    rows = ROWS.copy()
    rows[::3, 1] = np.nan
    nodes = [
        node("Imputer", "X", "full", domain="ai.onnx.ml", imputed_value_floats=[0.0] * WIDTH, replaced_value_float=float("nan")),
        node("MatMul", "full w", "score"),
    ]
    return finished(graph(nodes, tensors={"w": W}), rows, (np.where(np.isnan(rows), MEAN, rows) @ W)[:, 0])


@BROKEN.add(code=Code.NOT_REPEATABLE, limits=replace(ROOMY, operators=("RandomNormalLike",)))
def noise_that_was_allowed() -> bytes:
    """Noise far below the tolerance of golden rows."""
    return noise()


@BROKEN.add(code=Code.ROWS_DEPEND)
def centred_by_its_batch() -> bytes:
    """Less the mean of whatever rows come together."""
    nodes = [node("ReduceMean", "X", "m", axes=[0], keepdims=1), node("Sub", "X m", "c"), node("MatMul", "c w", "score")]
    return finished(graph(nodes, tensors={"w": W}), ROWS, ((ROWS - ROWS.mean(axis=0)) @ W)[:, 0])


@BROKEN.add(code=Code.ROWS_DEPEND)
def softmax_over_rows() -> bytes:
    """Probabilities that sum to one over the batch."""
    nodes = [node("MatMul", "X w", "z"), node("Softmax", "z", "score", axis=0)]
    raised = np.exp(ROWS @ W - (ROWS @ W).max())
    return finished(graph(nodes, tensors={"w": W}), ROWS, (raised / raised.sum())[:, 0], **PROBABILITY)


@BROKEN.add(code=Code.ROWS_DEPEND)
def running_sum() -> bytes:
    """A cumulative sum over rows, which one golden row cannot show."""
    nodes = [node("MatMul", "X w", "z"), node("CumSum", "z axis", "score")]
    return finished(graph(nodes, tensors={"w": W, "axis": np.array(0)}), ROWS[:1], PLAIN[:1])


@BROKEN.add(code=Code.TOO_SLOW, limits=replace(ROOMY, call_us=0.001))
def slow_alone() -> bytes:
    """A good model, for a limit that nothing meets."""
    return zoo_good.linear()


@BROKEN.add(code=Code.TOO_SLOW, limits=replace(ROOMY, row_us=1e-6))
def slow_in_a_batch() -> bytes:
    """The same, for the limit of a row in a batch."""
    return zoo_good.linear()


@BROKEN.add(code=Code.TOO_MUCH_MEMORY, limits=replace(ROOMY, model_bytes=16 << 20))
def hungry() -> bytes:
    """Two thousand numbers are made of every row."""
    nodes = [node("MatMul", "X w", "z"), node("Relu", "z", "r"), node("ReduceSum", "r axis", "score", keepdims=1)]
    wide = np.full((WIDTH, 2_048), 0.001)
    return finished(graph(nodes, tensors={"w": wide, "axis": np.array([1])}), ROWS, np.maximum(ROWS @ wide, 0).sum(axis=1))


@BROKEN.add(code=Code.REHEARSAL, rehearsal=np.where(np.arange(400)[:, None] % 4 > 0, np.nan, draw(400).astype(np.float64)))
def no_score_for_real_events() -> bytes:
    """A linear model, for events three of four of which miss a value."""
    return zoo_good.linear()


def chained(depth: int, *, times: int = 1) -> bytes:
    """Functions that call one another so many times each, the first the second, and so on."""
    sets = [helper.make_opsetid("", 17), helper.make_opsetid("mine", 1)]
    made = []
    for place in range(depth):
        called = {"op_type": "Identity"} if place == depth - 1 else {"op_type": f"f{place + 1}", "domain": "mine"}
        names = ["x", *(f"h{number}" for number in range(1, times)), "y"]
        inner = [helper.make_node(inputs=names[number : number + 1], outputs=names[number + 1 :][:1], **called) for number in range(times)]
        made.append(helper.make_function("mine", f"f{place}", ["x"], ["y"], inner, sets))
    nodes = [node("MatMul", "X w", "z"), node("f0", "z", "score", domain="mine")]
    return graph(nodes, tensors={"w": W}, functions=made, sets=[("", 17), ("mine", 1)])
