"""Fitted models to ONNX, without what the converters get wrong unless one knows. Needs `headrace[export]` and the model's own library.

What is healed, each with a test beside it that shows the converter alone:

| trap | what it does |
| --- | --- |
| ZipMap | probabilities as a list of dicts: four to five times slower, and no tensor |
| float64 | a float64 sample makes a double model, which float32 rows do not fit |
| one input a column | a DataFrame as sample gives as many inputs as columns |
| operator sets | the newest the onnx package knows, which an older onnxruntime refuses; a domain listed twice, or not at all |
| a second output | `label`, declared as [1] by LightGBM; here the scores are the only output |
| a name that changes | a random graph name, so the same model has another sha256 each time |
| thresholds | rounded to the nearest float32, so that a row on a threshold goes the other way (LightGBM, HistGradientBoosting) |
| absent values | the direction that scikit-learn's trees learned for NaN is left out: every absent value goes right |
| names of objectives | LightGBM's `l2`, `mae` and so on are refused where `regression` is not |
| names of features | XGBoost's are refused unless they are f0, f1 ... |
| a Booster's objective | XGBoost's is guessed from the counts in its nodes: probabilities can come out as margins |

What nobody healed is found: before an export is handed out it is compared with the library itself, on rows drawn around the thresholds of
its trees, or on rows that are given. So a model that the converter gets wrong (LightGBM's random forests, `zero_as_missing`, `linear_tree`,
`reg_sqrt`, a sigmoid other than 1) is refused with both numbers. Limits: a float32 graph may decide otherwise within rounding of a
threshold behind a scaler or a bin edge, so one row in a hundred may differ; `rows=` of the real kind see more than drawn ones.
"""

from headrace.predict.export.of_lightgbm import export_lightgbm
from headrace.predict.export.of_sklearn import export_sklearn
from headrace.predict.export.of_xgboost import export_xgboost

__all__ = ["export_lightgbm", "export_sklearn", "export_xgboost"]
