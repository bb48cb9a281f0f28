"""Findings that the report and the log warn of."""

from __future__ import annotations

import numpy as np
import pytest

from cryolike_dask.analysis import findings
from cryolike_dask.analysis.summaries import summarise_results
from tests.analysis.making import without


@pytest.mark.parametrize(("n_negative", "warned"), [(0, False), (20, False), (21, True)])
def test_inverted_contrast_is_suspected(results, n_negative, warned):
    results["cross_correlation"][:, :n_negative] *= -1
    summary = summarise_results(results)
    assert findings.negative_fraction(summary) == n_negative / 40
    texts = [f.text for f in findings.warnings_about(summary) if f.section == "correlation"]
    assert bool(texts) == warned
    assert all("--invert-contrast" in text for text in texts)


def test_what_is_missing_is_said(results):
    gone = np.zeros((3, 40), bool)
    gone[:, 35:], gone[1] = True, True
    text = findings.warnings_about(summarise_results(without(results, gone)))[0].text
    assert "5 of 40 images have no result yet" in text
    assert "1 of 3 structures have no result yet (b)" in text
    assert not [
        f for f in findings.warnings_about(summarise_results(results)) if f.section == "run"
    ]
