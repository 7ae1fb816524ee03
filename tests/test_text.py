from pathlib import Path

import numpy as np
import pytest

from edgeseg.errors import ConfigError, InputError, OutputError
from edgeseg.text import TextEmbeddings


@pytest.fixture
def table() -> TextEmbeddings:
    return TextEmbeddings.random(("road", "rider", "bicycle"), 16, seed=1)


def test_saved_table_is_read_back(table: TextEmbeddings, tmp_path: Path) -> None:
    table.save(tmp_path / "streets.npy")
    again = TextEmbeddings.load(tmp_path / "streets.npy")
    assert again.classes == table.classes
    assert again.provenance == table.provenance
    np.testing.assert_array_equal(again.vectors, table.vectors)


def test_select_reorders_rows(table: TextEmbeddings) -> None:
    chosen = table.select(("bicycle", "road"))
    assert chosen.classes == ("bicycle", "road")
    np.testing.assert_allclose(chosen.vectors, table.vectors[[2, 0]], atol=1e-7)
    assert chosen.provenance == table.provenance


def test_select_names_the_missing_class(table: TextEmbeddings) -> None:
    with pytest.raises(ConfigError, match=r"\['tram'\].*'rider'.*edgeseg text"):
        table.select(("road", "tram"))


def test_synonyms_are_renormalised_means(table: TextEmbeddings) -> None:
    merged = table.by_synonym({"street": ["road"], "bicyclist": ["rider", "bicycle"]})
    mean = (table.vectors[1].astype(float) + table.vectors[2]) / 2
    assert merged.classes == ("street", "bicyclist")
    np.testing.assert_allclose(merged.vectors[0], table.vectors[0], atol=1e-7)
    np.testing.assert_allclose(merged.vectors[1], mean / np.linalg.norm(mean), atol=1e-7)
    assert '"bicyclist": ["rider", "bicycle"]' in merged.provenance


def test_random_table_follows_its_seed() -> None:
    first, same, other = (TextEmbeddings.random(("a", "b"), seed=s).vectors for s in (3, 3, 4))
    assert first.shape == (2, 1024)
    np.testing.assert_array_equal(first, same)
    assert not np.allclose(first, other)
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize(
    ("classes", "vectors", "message"),
    [
        (("a",), np.eye(2, dtype=np.float32), "2 rows for 1 class names"),
        (("a", "b"), np.eye(2), "float64"),
        (("a", "a"), np.eye(2, dtype=np.float32), r"repeat: \['a'\]"),
        (("a", "b"), np.diag([1, 2]).astype(np.float32), "'b' has length 2.0000"),
        (("a", "b"), np.full((2, 2), np.nan, np.float32), "NaN"),
        (("a",), np.ones(1, np.float32), r"shape \(1,\)"),
    ],
)
def test_bad_tables_are_refused(
    classes: tuple[str, ...], vectors: np.ndarray, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        TextEmbeddings(classes, vectors, "test")


def test_zero_vector_has_no_direction() -> None:
    with pytest.raises(InputError, match="no direction"):
        TextEmbeddings.normalised(("a",), np.zeros((1, 4)), "test")


def test_bad_files_are_named(table: TextEmbeddings, tmp_path: Path) -> None:
    path = tmp_path / "t.npy"
    with pytest.raises(InputError, match=r"t\.npy does not exist.*edgeseg text"):
        TextEmbeddings.load(path)
    table.save(path)
    (tmp_path / "t.json").write_text('{"classes": ["road"]}')
    with pytest.raises(InputError, match=r"t\.json must be"):
        TextEmbeddings.load(path)
    path.write_bytes(b"not an array")
    with pytest.raises(InputError, match=r"t\.npy is not a NumPy array.*edgeseg text"):
        TextEmbeddings.load(path)


def test_a_table_is_written_under_the_name_that_is_read(
    table: TextEmbeddings, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"streets does not end in \.npy"):
        table.save(tmp_path / "streets")
    with pytest.raises(OutputError, match="does not exist"):
        table.save(tmp_path / "none" / "streets.npy")
    assert not list(tmp_path.iterdir())
