"""What golden.py makes of folders: other families, absent files, equal names."""

import json

import golden
import numpy as np
import pytest
from safetensors.numpy import save_file


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """folders({name: value or None}, ...) makes one folder each; None is listed in the manifest but absent."""
    monkeypatch.setenv("WAMCORE_REQUIRE_GOLDEN", "1")

    def make(*contents):
        paths = [tmp_path / str(i) for i in range(len(contents))]
        for path, files in zip(paths, contents, strict=True):
            path.mkdir()
            listed = {f"{name}.safetensors": {"what": "a test"} for name in files}
            (path / "manifest.json").write_text(json.dumps({"files": listed}))
            for name, value in files.items():
                if value is not None:
                    save_file({"x": np.array([value], np.float32)}, path / f"{name}.safetensors")
        monkeypatch.setenv("WAMCORE_GOLDEN", ":".join(map(str, paths)))
        golden.all_cases.cache_clear()

    yield make
    golden.all_cases.cache_clear()


def test_other_families_skip_even_if_golden_data_is_required(folders):
    folders({"newcomer_weights": None, "dit_ti2v_seq": None})
    (other,) = golden.cases("newcomer")
    assert other.kind == "unknown"
    with pytest.raises(pytest.skip.Exception, match="absent"):
        golden.need(other)
    (ours,) = golden.cases("dit_")
    with pytest.raises(pytest.fail.Exception, match="absent"):
        golden.need(ours)
    with pytest.raises(pytest.fail.Exception, match="no t5_weights"):
        golden.case("t5_weights")


def test_equal_names(folders):
    folders({"t5_weights": 1, "clip_weights": 1, "vae22_dec_weights": None}, {"t5_weights": 1, "clip_weights": 2})
    assert len(golden.cases("t5_")) == 1 and golden.case("t5_weights").path.exists()
    assert len(golden.cases("clip_")) == 2  # neither is dropped
    with pytest.raises(pytest.fail.Exception, match="differ"):
        golden.case("clip_weights")


def test_a_file_wins_over_one_that_is_only_listed(folders):
    folders({"t5_weights": None}, {"t5_weights": 1}, {"t5_weights": None})
    (case,) = golden.cases("t5_")
    assert case.path.exists() and golden.case("t5_weights") == case
