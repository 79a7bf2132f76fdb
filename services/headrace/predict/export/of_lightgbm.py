"""LightGBM to ONNX."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headrace.predict.agreement import TOLERANCE
from headrace.predict.attached_rows import Rows
from headrace.predict.export.compared import compared
from headrace.predict.export.finish import INPUT, OPSET, checked_names, converting
from headrace.predict.export.trees import healed

_WHAT = "export_lightgbm"


def export_lightgbm(estimator: Any, feature_names: Sequence[str], *, rows: object = None, tolerance: float = TOLERANCE) -> bytes:  # noqa: ANN401 - of a library that is loaded lazily
    """A fitted Booster, LGBMClassifier or LGBMRegressor as ONNX: `probabilities` [n, classes], or `variable` [n, 1] of a regression.

    The export is compared with LightGBM itself on `rows`, or on drawn ones. Raises `DefinitionError`.
    """
    with converting(_WHAT):
        import lightgbm  # noqa: PLC0415 - only who exports needs it
        from onnxmltools.convert.common.data_types import FloatTensorType  # noqa: PLC0415
        from onnxmltools.convert.lightgbm.convert import convert  # noqa: PLC0415
        from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm  # noqa: PLC0415

        given = getattr(estimator, "booster_", estimator)
        # As a text it names its objective by the one name the converter knows, and no labels it does not.
        booster = lightgbm.Booster(model_str=given.model_to_string())
        names = checked_names(feature_names, _own_names(given), given.num_feature(), _WHAT)
        mended = dict.fromkeys(("LgbmClassifier", "LgbmRegressor", "LgbmRanker"), healed(convert_lightgbm))
        converted = convert(
            booster,
            name="exported",
            initial_types=[(INPUT, FloatTensorType([None, len(names)]))],
            target_opset=OPSET,
            zipmap=False,
            custom_conversion_functions=mended,
        )

    def library(values: Rows) -> Any:  # noqa: ANN401 - as above
        return given.predict(values.astype(np.float64))

    return compared(converted, names, library, rows=rows, absent=True, tolerance=tolerance, what=_WHAT)


def _own_names(booster: Any) -> list[str] | None:  # noqa: ANN401 - as above
    """The features by the names it was trained with; None where it made up its own, `Column_0` and so on."""
    found: list[str] = booster.feature_name()
    return None if found == [f"Column_{place}" for place in range(len(found))] else found
