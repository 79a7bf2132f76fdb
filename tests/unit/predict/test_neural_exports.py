"""Networks as PyTorch and Keras export them: stamped, loaded, scored; and what their exporters do unless told otherwise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from headrace import models
from headrace.errors import DefinitionError
from headrace.predict.attached_rows import Rows
from headrace.predict.gate import examine
from headrace.predict.onnx_model import OnnxModel
from tests.unit.predict.neural_exports import Network, Told, by_keras, by_torch, by_torch_script
from tests.unit.predict.zoo import ROOMY
from tests.unit.training import shop

NAMES = shop.fraud.feature_names
NETWORK = Network.drawn(len(NAMES))
EXPORTERS = {"torch": by_torch, "torch script": by_torch_script, "keras": by_keras}
Exporter = Callable[..., bytes]


def rows(count: int = 1_000) -> Rows:
    """Rows as they are served, some values absent."""
    draw = np.random.default_rng(12)
    found: Rows = (draw.normal(size=(count, len(NAMES))) * 20).astype(np.float32)
    found[draw.random(found.shape) < 0.1] = np.nan
    return found


@pytest.mark.parametrize("exporter", EXPORTERS.values(), ids=EXPORTERS)
def test_a_network_is_stamped_and_scores_as_its_library_scores_it(exporter: Exporter) -> None:
    """Exported as documented, a network goes through stamp, gate and path: 1,000 rows within 1e-6, a row alone as among others."""
    given = rows()
    stamped = models.stamp(exporter(NETWORK), shop.fraud, version="1", golden_rows=given, golden_scores=NETWORK(given), background=given)
    onnx.checker.check_model(onnx.ModelProto.FromString(stamped))
    model = OnnxModel.load(stamped, NAMES)
    found = model.score(given.astype(np.float64))
    assert found.refused == []
    assert np.abs(found.scores - NETWORK(given)[:, 0]).max() < 1e-6
    assert examine(stamped, shop.fraud, limits=ROOMY).refusals == ()
    alone = np.concatenate([model.score(row[None].astype(np.float64)).scores for row in given[:50]])
    assert np.abs(alone - found.scores[:50]).max() < 1e-6
    assert stamped == models.stamp(stamped, shop.fraud, version="1", golden_rows=given, golden_scores=NETWORK(given), background=given)


@pytest.mark.parametrize("exporter", EXPORTERS.values(), ids=EXPORTERS)
def test_without_free_axes_it_is_refused(exporter: Exporter) -> None:
    """Without dynamic axes an exporter fixes the batch at that of its sample; loading such a file says so."""
    stamped = models.stamp(exporter(NETWORK, Told.WITHOUT_AXES), shop.fraud, version="1")
    with pytest.raises(
        DefinitionError, match=rf"has shape \[[12], {len(NAMES)}\] for {len(NAMES)} features; export it with a free batch axis"
    ):
        OnnxModel.load(stamped, NAMES)


def test_weights_in_a_file_of_their_own_are_refused() -> None:
    """PyTorch's newer exporter writes weights beside the file unless told not to; golden rows show it already when it is stamped."""
    beside = by_torch(NETWORK, Told.WITH_A_FILE_BESIDE)
    with pytest.raises(DefinitionError, match=r"keeps tensor 'mean' outside the file"):
        models.stamp(beside, shop.fraud, version="1", golden_rows=rows())
    with pytest.raises(DefinitionError, match=r"keeps tensor 'mean' outside the file"):
        OnnxModel.load(models.stamp(beside, shop.fraud, version="1"), NAMES)


def test_a_scaler_left_out_of_the_export_is_noticed() -> None:
    """A network that was fed with scaled rows in training, and exported without the scaler, is refused by its golden rows."""
    plain = Network(np.zeros_like(NETWORK.mean), np.ones_like(NETWORK.deviation), *_weights())
    with pytest.raises(
        DefinitionError, match=r"the trained model gave .* look at the output and class that are scored, at scalers left out"
    ):
        models.stamp(by_keras(plain), shop.fraud, version="1", golden_rows=rows(), golden_scores=NETWORK(rows()))


def test_the_drawn_network_tells_rows_apart() -> None:
    """The network that all of this is tried on gives many different scores, so that a mistake would show."""
    scores = NETWORK(rows())
    assert len(np.unique(np.round(scores, 3))) > 100
    assert 0.05 < scores.mean() < 0.95


def _weights() -> tuple[np.ndarray, ...]:
    return NETWORK.hidden, NETWORK.hidden_bias, NETWORK.last, NETWORK.last_bias
