"""The .onnx running: what is refused at load, and that a bad row never takes another one with it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnxruntime.capi import onnxruntime_pybind11_state as runtime

from headrace.errors import DefinitionError, SignatureMismatch
from headrace.predict import onnx_file, onnx_model
from headrace.predict.onnx_model import OnnxModel
from tests.unit.predict import small_models
from tests.unit.predict.small_models import FEATURES, graph_bytes, output, stamped


def test_every_exception_of_the_runtime_is_mapped() -> None:
    """A new onnxruntime cannot bring an exception that the table at the seam does not know."""
    known = {kind for kind in vars(runtime).values() if isinstance(kind, type) and issubclass(kind, Exception)}
    assert known == set(onnx_model.FAILURES)


def test_name_version_and_hash_come_from_the_bytes() -> None:
    """A loaded model says who it is by its signature and its sha256."""
    content = stamped(small_models.linear(), name="late", version="7")
    model = OnnxModel.load(content, FEATURES)
    assert (model.name, model.version, model.sha256) == ("late", "7", hashlib.sha256(content).hexdigest())


def test_loads_from_a_path_as_from_bytes(tmp_path: Path) -> None:
    """A path and its content give the same model."""
    path = tmp_path / "m.onnx"
    path.write_bytes(stamped(small_models.linear()))
    assert OnnxModel.load(path, FEATURES).sha256 == OnnxModel.load(path.read_bytes(), FEATURES).sha256


def test_missing_file_is_named() -> None:
    """A path that is not there is a DefinitionError with the path."""
    with pytest.raises(DefinitionError, match=r"model 'nowhere\.onnx' cannot be read.*check the path"):
        OnnxModel.load("nowhere.onnx", FEATURES)


def test_one_column_is_the_score() -> None:
    """[n, 1] is taken as it is."""
    answer = OnnxModel.load(stamped(small_models.linear()), FEATURES).score(np.array([[1.0, 2.0], [3.0, 4.0], [0.5, 0.0]]))
    assert answer.scores.dtype == np.float64
    assert answer.scores.tolist() == [8.0, 18.0, 1.0]
    assert answer.refused == []


def test_flat_output_is_the_score() -> None:
    """[n] is taken as it is."""
    flat = graph_bytes([helper.make_node("ReduceSum", ["X", "axis"], ["score"], keepdims=0)], [output("score", [None])], tensors=[_axis(1)])
    assert OnnxModel.load(stamped(flat), FEATURES).score(np.array([[1.0, 2.0], [3.0, 4.0]])).scores.tolist() == [3.0, 7.0]


@pytest.mark.parametrize(("class_index", "expected"), [(0, 0.5), (1, 0.5)])
def test_class_index_picks_the_column(class_index: int, expected: float) -> None:
    """[n, 2] gives the column of the class."""
    model = OnnxModel.load(stamped(small_models.picking(), class_index=class_index), FEATURES)
    assert model.score(np.array([[1.0, 0.0], [0.0, 0.0]])).scores.tolist() == pytest.approx([expected, [0.9, 0.1][class_index]])


def test_no_rows_give_no_scores() -> None:
    """An empty batch does not reach the runtime."""
    answer = OnnxModel.load(stamped(small_models.linear()), FEATURES).score(np.empty((0, 2)))
    assert len(answer.scores) == 0
    assert answer.refused == []


@pytest.mark.parametrize("rows", [1, 2, 3, 17, 256])
def test_one_row_has_the_bits_it_has_in_any_batch(rows: int) -> None:
    """A batch of one is padded to two, so a row scores the same bits alone and among others."""
    generator = np.random.default_rng(5)
    values = generator.normal(size=(rows, 2))
    weigh = [
        helper.make_node("MatMul", ["X", "w"], ["z"]),
        helper.make_node("Sigmoid", ["z"], ["score"]),
    ]
    logistic = graph_bytes(weigh, [output("score", [None, 1])], tensors=[small_models.weights("w", [[0.37], [-1.91]])])
    model = OnnxModel.load(stamped(logistic), FEATURES)
    alone = np.concatenate([model.score(values[row : row + 1]).scores for row in range(rows)])
    assert alone.tobytes() == model.score(values).scores.tobytes()


def test_nan_and_infinity_out_of_the_model_refuse_their_rows() -> None:
    """Rows with NaN or infinity as score are refused alone and hold NaN; the others keep their scores."""
    ratio = graph_bytes(
        [
            helper.make_node("Split", ["X"], ["a", "b"], axis=1),
            helper.make_node("Div", ["a", "b"], ["score"]),
        ],
        [output("score", [None, 1])],
    )
    answer = OnnxModel.load(stamped(ratio), FEATURES).score(np.array([[1.0, 2.0], [0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [6.0, 3.0]]))
    assert answer.refused == [(1, "the model gave NaN"), (2, "the model gave infinity"), (3, "the model gave infinity")]
    assert answer.scores[[0, 4]].tolist() == [0.5, 2.0]
    assert np.isnan(answer.scores[1:4]).all()


@pytest.mark.parametrize("bad", [[0], [6], [0, 1, 2, 3, 4, 5, 6], [2, 5], [3]])
def test_rows_for_which_the_model_raises_are_found(bad: list[int]) -> None:
    """A batch that raises is halved until exactly the rows at fault are refused."""
    values = np.array([[row % 3, 0.0] for row in range(7)], dtype=np.float64)
    values[bad, 0] = 9_999
    answer = OnnxModel.load(stamped(small_models.picking()), FEATURES).score(values)
    assert [row for row, _ in answer.refused] == bad
    good = [row for row in range(7) if row not in bad]
    assert answer.scores[good].tolist() == pytest.approx([[0.1, 0.5, 0.8][row % 3] for row in good])


def test_error_names_the_node_but_no_value() -> None:
    """The text of a refused row says where the model raised, never what was in the row."""
    ((_, said),) = OnnxModel.load(stamped(small_models.picking()), FEATURES).score(np.array([[9_999.0, 0.0], [1.0, 0.0]])).refused
    assert "Gather" in said
    assert "9999" not in said


def test_wrong_number_of_rows_refuses_all() -> None:
    """A model that sums over the batch answers with the wrong shape, and every row is refused."""
    summing = graph_bytes(
        [helper.make_node("ReduceSum", ["X", "axis"], ["score"], keepdims=1)], [output("score", [None, 2])], tensors=[_axis(0)]
    )
    answer = OnnxModel.load(stamped(summing), FEATURES).score(np.ones((3, 2)))
    assert answer.refused == [(row, "the model gave shape [1, 2] for 2 rows") for row in range(3)]


def test_three_axes_refuse_all() -> None:
    """An output of three axes is no column of scores."""
    deep = graph_bytes([helper.make_node("Unsqueeze", ["X", "axis"], ["score"])], [output("score", [None, None, None])], tensors=[_axis(2)])
    assert len(OnnxModel.load(stamped(deep), FEATURES).score(np.ones((2, 2))).refused) == 2


def test_value_too_large_for_float32_does_not_raise() -> None:
    """A feature beyond float32 becomes infinity; what the model makes of it decides."""
    answer = OnnxModel.load(stamped(small_models.linear()), FEATURES).score(np.array([[1e300, 0.0], [1.0, 1.0]]))
    assert answer.refused == [(0, "the model gave infinity")]
    assert answer.scores[1] == 5.0


def test_unstamped_model_is_refused() -> None:
    """A model without signature is not loaded."""
    with pytest.raises(SignatureMismatch, match="carries no signature"):
        OnnxModel.load(small_models.linear(), FEATURES)


def test_features_in_another_order_are_refused() -> None:
    """The names it will be fed with must be the signature's, in order."""
    with pytest.raises(SignatureMismatch, match=r"feature 0 is 'flights\.count_1h' in the model and 'dep_delay' there"):
        OnnxModel.load(stamped(small_models.linear()), FEATURES[::-1])


def test_zipmap_is_refused_with_the_fix() -> None:
    """A list of dicts as output is refused, and the export option is named."""
    with pytest.raises(DefinitionError, match=r"ZipMap.*options=\{'zipmap': False\}"):
        OnnxModel.load(stamped(small_models.zipmap()), FEATURES)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        (
            [("a", TensorProto.FLOAT, [None, 2]), ("X", TensorProto.FLOAT, [None, 2])],
            r"has 2 inputs \(a, X\).*one float32 input \[None, 2\]",
        ),
        ([("X", TensorProto.DOUBLE, [None, 2])], r"'X' is tensor\(double\).*float32"),
        ([("X", TensorProto.FLOAT, [None, 3])], r"shape \[.*3\] for 2 features"),
        ([("X", TensorProto.FLOAT, [1, 2])], r"shape \[1, 2\] for 2 features"),
        ([("X", TensorProto.FLOAT, [None])], r"shape \['?\w*'?\] for 2 features"),
    ],
)
def test_input_of_another_form_is_refused_with_the_fix(inputs: list[tuple[str, int, list[int | None]]], said: str) -> None:
    """Several inputs, another dtype, another width, a fixed batch or one axis are refused at load."""
    given = [helper.make_tensor_value_info(name, kind, shape) for name, kind, shape in inputs]
    model = graph_bytes([helper.make_node("Identity", ["X"], ["score"])], [output("score", inputs[-1][2], inputs[-1][1])], inputs=given)
    with pytest.raises(DefinitionError, match=said):
        OnnxModel.load(stamped(model), FEATURES)


def test_unknown_output_is_refused_with_those_there_are() -> None:
    """A signature that names an output the file does not have is refused."""
    with pytest.raises(DefinitionError, match=r"no output 'probabilities', only score"):
        OnnxModel.load(stamped(small_models.linear(), output="probabilities"), FEATURES)


def test_class_index_beyond_the_classes_is_refused() -> None:
    """A class the output has no column for is refused at load."""
    with pytest.raises(DefinitionError, match=r"has 2 columns, class_index is 2"):
        OnnxModel.load(stamped(small_models.picking(), class_index=2), FEATURES)


def test_text_output_is_refused() -> None:
    """An output of texts is no score."""
    texts = graph_bytes(
        [helper.make_node("Cast", ["X"], ["score"], to=TensorProto.STRING)], [output("score", [None, 2], TensorProto.STRING)]
    )
    with pytest.raises(DefinitionError, match="not a tensor of numbers"):
        OnnxModel.load(stamped(texts), FEATURES)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x00" * 64])
def test_bytes_that_are_no_model_are_refused(content: bytes) -> None:
    """Empty and random bytes are a DefinitionError."""
    with pytest.raises(DefinitionError):
        OnnxModel.load(content, FEATURES)


def test_truncated_model_is_refused() -> None:
    """Half a file is a DefinitionError."""
    content = stamped(small_models.picking())
    with pytest.raises(DefinitionError):
        OnnxModel.load(content[: len(content) // 2], FEATURES)


@pytest.mark.parametrize(("installed", "said"), [(True, "outside the file"), (False, "cannot be loaded")])
def test_weights_outside_the_file_are_never_read(
    installed: bool,  # noqa: FBT001 - a parameter of the test
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A tensor kept in a file beside the working directory is refused by looking, and by the runtime where onnx is not installed."""
    model = onnx.ModelProto.FromString(stamped(small_models.linear()))
    tensor = model.graph.initializer[0]
    (tmp_path / "weights.bin").write_bytes(tensor.raw_data)
    onnx.external_data_helper.set_external_data(tensor, "weights.bin")
    tensor.ClearField("raw_data")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(onnx_file, "installed", lambda: installed)
    with pytest.raises(DefinitionError, match=said):
        OnnxModel.load(model.SerializeToString(), FEATURES)


def _axis(number: int) -> TensorProto:
    return onnx.numpy_helper.from_array(np.array([number], dtype=np.int64), "axis")
